#include "cpu.h"
#include "memory.h"

/* Address spaces: their tables come as they are needed and go all together. Slots of the highest table: */
#define USER_SLOTS 256
#define KERNEL_SLOT 511
#define MOST_SPACES 32

static struct memory_descriptor spaces[MOST_SPACES];

/* Entries of the kernel's part, from a table that may be in use to one that may be too: always by their accessors. */
void clone_pgd_range(pgd_entry *to, pgd_entry *from, u32 start, u32 count) {
  for (u32 index = start; index < start + count; index++) set_pgd(pgd_at(to, index), get_pgd(pgd_at(from, index)));
}

struct memory_descriptor *create_space(void) {
  struct memory_descriptor *mm = NULL;
  for (u32 index = 0; index < MOST_SPACES && !mm; index++) {
    if (!spaces[index].pgd) mm = &spaces[index];
  }
  if (!mm) panic("no address space is free");
  *mm = (struct memory_descriptor){0};
  mm->pgd = allocate_page();
  if (PV_CALL_1(mmu, pgd_alloc, mm)) panic("no top-level table");
  clone_pgd_range(mm->pgd, swapper_pg_dir, KERNEL_SLOT, 1);
  PV_CALL_4(mmu, alloc_pd_clone, page_number(mm->pgd), page_number(swapper_pg_dir), KERNEL_SLOT, 1);
  return mm;
}

static void *table_of(u64 entry) { return virtual(entry & FRAME_MASK); }

/* Calls for each table of programs' part and the highest, from below, so that it may free them. */
void each_table(struct memory_descriptor *mm, void (*visit)(void *table, u32 level)) {
  for (u32 slot = 0; slot < USER_SLOTS; slot++) {
    u64 upper = pgd_val(get_pgd(pgd_at(mm->pgd, slot)));
    if (!(upper & PRESENT)) continue;
    for (u32 third = 0; third < ENTRIES; third++) {
      u64 middle = pud_val(get_pud(pud_at(table_of(upper), third)));
      if (!(middle & PRESENT)) continue;
      for (u32 second = 0; second < ENTRIES; second++) {
        u64 lower = pmd_val(get_pmd(pmd_at(table_of(middle), second)));
        if (lower & PRESENT) visit(table_of(lower), 1);
      }
      visit(table_of(middle), 2);
    }
    visit(table_of(upper), 3);
  }
  visit(mm->pgd, 4);
}

static void release_table(void *table, u32 level) {
  if (level == 1) PV_CALL_1(mmu, release_pt, page_number(table));
  if (level == 2) PV_CALL_1(mmu, release_pd, page_number(table));
  if (level == 3) PV_CALL_1(mmu, release_pud, page_number(table));
  free_page(table);
}

/* No processor has it loaded any more. */
void destroy_space(struct memory_descriptor *mm) {
  while (mm->areas > 0) unmap_range(mm, mm->area[0].start, mm->area[0].end);
  PV_CALL_1(mmu, exit_mmap, mm);
  PV_CALL_1(mmu, pgd_free, mm);
  each_table(mm, release_table);
  mm->pgd = NULL;
}

/* The entry that translates an address; NULL when there is no table for it. */
pte_entry *find_entry(struct memory_descriptor *mm, u64 address) {
  u64 entry = pgd_val(get_pgd(pgd_at(mm->pgd, pgd_index(address))));
  if (!(entry & PRESENT)) return NULL;
  entry = pud_val(get_pud(pud_at(table_of(entry), pud_index(address))));
  if (!(entry & PRESENT)) return NULL;
  entry = pmd_val(get_pmd(pmd_at(table_of(entry), pmd_index(address))));
  if (!(entry & PRESENT)) return NULL;
  return pte_at(table_of(entry), pte_index(address));
}

/* The same, with tables made where they are missing: told of before they are linked. */
pte_entry *make_entry(struct memory_descriptor *mm, u64 address) {
  pgd_entry *first = pgd_at(mm->pgd, pgd_index(address));
  if (!(pgd_val(get_pgd(first)) & PRESENT)) {
    void *table = allocate_page();
    PV_CALL_2(mmu, alloc_pud, mm, page_number(table));
    set_pgd(first, make_pgd(physical(table) | TABLE_FLAGS));
  }
  pud_entry *second = pud_at(table_of(pgd_val(get_pgd(first))), pud_index(address));
  if (!(pud_val(get_pud(second)) & PRESENT)) {
    void *table = allocate_page();
    PV_CALL_2(mmu, alloc_pd, mm, page_number(table));
    set_pud(second, make_pud(physical(table) | TABLE_FLAGS));
  }
  pmd_entry *third = pmd_at(table_of(pud_val(get_pud(second))), pmd_index(address));
  if (!(pmd_val(get_pmd(third)) & PRESENT)) {
    void *table = allocate_page();
    PV_CALL_2(mmu, alloc_pt, mm, page_number(table));
    set_pmd(third, make_pmd(physical(table) | TABLE_FLAGS));
  }
  return pte_at(table_of(pmd_val(get_pmd(third))), pte_index(address));
}
