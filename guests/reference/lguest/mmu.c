#include "choices.h"
#include "lguest.h"
#include "memory.h"
#include "paravirt-tables.h"
#include "start.h"

/* Page tables: the kernel stores entries as on plain hardware, and tells the host, which keeps shadows of them. */
static u32 root;

static word lguest_read_cr2(void) { return lguest_data.cr2; }
static word lguest_read_cr3(void) { return root; }
static void lguest_write_cr3(word table) {
  root = table;
  lguest_call_lazily(LGUEST_NEW_PGTABLE, table, 0, 0, 0);
}
static void lguest_flush_tlb_user(void) { lguest_call_lazily(LGUEST_FLUSH_TLB, 0, 0, 0, 0); }
static void lguest_flush_tlb_single(word address) { lguest_call_lazily(LGUEST_SET_PTE, root, address, 0, 0); }

static void lguest_pte_update(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  const u32 *halves = (const u32 *)pointer;
  u32 high = LEVELS == 3 ? halves[1] : 0;
  lguest_call_lazily(LGUEST_SET_PTE, physical(mm->pgd), address & -(word)PAGE_SIZE, halves[0], high);
}
static void lguest_set_pte_at(struct memory_descriptor *mm, word address, pte_entry *pointer, entry_bits entry) {
  native_set_pte_at(mm, address, pointer, entry);
  lguest_pte_update(mm, address, pointer);
}
static void lguest_pte_clear(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  lguest_set_pte_at(mm, address, pointer, 0);
}

/* PAE's highest table may begin inside a page. */
#define TOP_TABLE_BYTES (LEVELS == 3 ? 32 : PAGE_SIZE)

static void lguest_set_pgd(pgd_entry *pointer, entry_bits entry) {
  word address = physical(pointer);
  native_set_pgd(pointer, entry);
  lguest_call_lazily(LGUEST_SET_PGD, address & -(word)TOP_TABLE_BYTES, address % TOP_TABLE_BYTES / sizeof(entry), 0, 0);
}

#if LEVELS == 3
static void lguest_set_pmd(pmd_entry *pointer, entry_bits entry) {
  word address = physical(pointer);
  native_set_pmd(pointer, entry);
  lguest_call_lazily(LGUEST_SET_PMD, address & -(word)PAGE_SIZE, address % PAGE_SIZE / sizeof(entry), 0, 0);
}
#endif

CHOICES(lguest_mmu) = {
  CHOICE(ON_LGUEST, mmu, read_cr2, lguest_read_cr2),
  CHOICE(ON_LGUEST, mmu, read_cr3, lguest_read_cr3),
  CHOICE(ON_LGUEST, mmu, write_cr3, lguest_write_cr3),
  CHOICE(ON_LGUEST, mmu, flush_tlb_user, lguest_flush_tlb_user),
  CHOICE(ON_LGUEST, mmu, flush_tlb_single, lguest_flush_tlb_single),
  CHOICE(ON_LGUEST, mmu, set_pte_at, lguest_set_pte_at),
  CHOICE(ON_LGUEST, mmu, pte_clear, lguest_pte_clear),
  CHOICE(ON_LGUEST, mmu, pte_update, lguest_pte_update),
  CHOICE(ON_LGUEST, mmu, ptep_modify_prot_commit, lguest_set_pte_at),
  CHOICE(ON_LGUEST, mmu, set_pgd, lguest_set_pgd),
#if LEVELS == 3
  CHOICE(ON_LGUEST, mmu, set_pmd, lguest_set_pmd),
#endif
};

void lguest_begin_tables(void) {
  root = lguest_data.pgdir;
  boot_page_table = virtual(root);
}
