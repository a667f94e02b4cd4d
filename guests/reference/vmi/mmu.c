#include "choices.h"
#include "console.h"
#include "hostile.h"
#include "memory.h"
#include "native.h"
#include "paravirt-tables.h"
#include "start.h"
#include "vmi.h"

extern u8 kernel_end[];

/* Page tables: the ROM stores entries itself, and is told of pages that become tables, and of what the kernel stored. */
#if LEVELS == 3
#define SET_ENTRY VMI_SET_PXE_LONG
#define UPDATE_ENTRY VMI_UPDATE_PXE_LONG
#define PAGE_FORMAT PAGE_PAE
#define TOP_LEVEL PAGE_PDP
#else
#define SET_ENTRY VMI_SET_PXE
#define UPDATE_ENTRY VMI_UPDATE_PXE
#define PAGE_FORMAT 0
#define TOP_LEVEL PAGE_PD
#endif
static void (*set_entry)(entry_bits entry, void *pointer, u32 flags);
static void (*update_entry)(void *pointer, u32 flags);
#if LEVELS == 3
static entry_bits (*swap_entry)(entry_bits entry, void *pointer, u32 flags);
#endif
static void (*announce_page)(word page, u32 flags, word from, u32 start, u32 count);
static void (*withdraw_page)(word page, u32 flags);
static void (*flush_tlb)(u32 flags);

/* Where an entry of the lowest level maps a page, if that is in the tables in use. */
static u32 place(struct memory_descriptor *mm, word address) {
  u32 is_loaded = mm->cpus >> this_cpu()->number & 1;
  return is_loaded ? PAGE_PT | ENTRY_CURRENT | (address & ~(word)(PAGE_SIZE - 1)) : PAGE_PT;
}

static void vmi_set_pte_at(struct memory_descriptor *mm, word address, pte_entry *pointer, entry_bits entry) {
  set_entry(entry, pointer, place(mm, address));
}
static void vmi_pte_clear(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  set_entry(0, pointer, place(mm, address));
}
static void vmi_set_pgd(pgd_entry *pointer, entry_bits entry) { set_entry(entry, pointer, TOP_LEVEL); }
static void vmi_pte_update(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  update_entry(pointer, place(mm, address));
}
static void vmi_alloc_pt(struct memory_descriptor *mm, word page) {
  (void)mm;
  announce_page(page, PAGE_PT | PAGE_ZEROED | PAGE_FORMAT, 0, 0, 0);
}
static void vmi_release_pt(word page) { withdraw_page(page, PAGE_PT | PAGE_FORMAT); }
static void vmi_flush_tlb_user(void) { flush_tlb(FLUSH_USER); }

#if LEVELS == 3
/* The table of four entries is no page table to the ROM. */
static void vmi_set_pmd(pmd_entry *pointer, entry_bits entry) { set_entry(entry, pointer, PAGE_PD); }
static void vmi_alloc_pd(struct memory_descriptor *mm, word page) {
  (void)mm;
  announce_page(page, PAGE_PD | PAGE_ZEROED | PAGE_FORMAT, 0, 0, 0);
}
static void vmi_release_pd(word page) { withdraw_page(page, PAGE_PD | PAGE_FORMAT); }
static entry_bits vmi_modify_start(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  return swap_entry(0, pointer, place(mm, address));
}

/*
 * Where CPUID tells of no large pages, a host may examine tables, and knows none. The kernel begins with large pages all
 * the same, so that its part of the tables that it goes to is another: small pages for what its image takes.
 */
#define CPUID_LARGE_PAGES (1 << 3)
#define SMALL_TABLES 8
static u8 small_tables[SMALL_TABLES][PAGE_SIZE] ALIGNED(PAGE_SIZE);
static u8 small_directory[PAGE_SIZE] ALIGNED(PAGE_SIZE);
static u8 small_top[PAGE_SIZE] ALIGNED(PAGE_SIZE);

static void vmi_pagetable_setup_start(pgd_entry *base) {
  (void)base;
  u32 registers[4] = {1, 0, 0, 0};
  PV_CALL_1(cpu, cpuid, registers);
  if (registers[3] & CPUID_LARGE_PAGES) return;
  word pages = page_number(kernel_end), tables = (pages + ENTRIES - 1) / ENTRIES;
  if (tables > SMALL_TABLES) panic("%u page tables for the kernel", tables);
  for (word page = 0; page < pages; page++)
    native_set_entry(pte_at(small_tables[page / ENTRIES], page % ENTRIES), (page * PAGE_SIZE) | (TABLE_FLAGS & ~USER));
  for (word table = 0; table < tables; table++)
    native_set_entry(pmd_at(small_directory, table), physical(small_tables[table]) | TABLE_FLAGS);
  native_set_entry(pmd_at(small_directory, (DEVICE_BASE - KERNEL_BASE) >> 21), physical(device_table) | TABLE_FLAGS);
  native_set_entry(pgd_at(small_top, KERNEL_SLOT), physical(small_directory) | TOP_TABLE_FLAGS);
  if (word_value("hostile=")) {
    entry_bits boot_directory = ((entry_bits *)boot_page_table)[KERNEL_SLOT] & FRAME_MASK;
    vmi_be_hostile_early(virtual((word)boot_directory), (entry_bits *)small_directory);
  }
  boot_page_table = (pgd_entry *)small_top;
}
#else
static void vmi_alloc_pd_clone(word page, word from, u32 start, u32 count) {
  announce_page(page, PAGE_PD | PAGE_ZEROED | PAGE_CLONE, from, start, count);
}
/* A table in use that is told of here is not looked at by the ROM from here on. */
static void vmi_pagetable_setup_start(pgd_entry *base) {
  native_pagetable_setup_start(base);
  if (begins_on_swapper()) announce_page(page_number(swapper_pg_dir), PAGE_PD, 0, 0, 0);
}
static void vmi_pagetable_setup_done(pgd_entry *base) { announce_page(page_number(base), PAGE_PD, 0, 0, 0); }
static void vmi_pgd_free(struct memory_descriptor *mm) { withdraw_page(page_number(mm->pgd), PAGE_PD); }
#endif

/* All entries that the ROM is told of are in the kernel's image. */
static void tell_linear_mapping(void) {
  void (*set_linear_mapping)(u32 slot, word address, word pages, word page) = vmi_code(VMI_SET_LINEAR_MAPPING);
  if (set_linear_mapping) set_linear_mapping(0, KERNEL_BASE, page_number(kernel_end), 0);
}

CHOICES(vmi_mmu) = {
  CHOICE_IF(ON_VMI, mmu, set_pte_at, vmi_set_pte_at, SET_ENTRY),
  CHOICE_IF(ON_VMI, mmu, ptep_modify_prot_commit, vmi_set_pte_at, SET_ENTRY),
  CHOICE_IF(ON_VMI, mmu, pte_clear, vmi_pte_clear, SET_ENTRY),
  CHOICE_IF(ON_VMI, mmu, set_pgd, vmi_set_pgd, SET_ENTRY),
  CHOICE_IF(ON_VMI, mmu, pte_update, vmi_pte_update, UPDATE_ENTRY),
  CHOICE_IF(ON_VMI, mmu, alloc_pt, vmi_alloc_pt, VMI_ALLOCATE_PAGE),
  CHOICE_IF(ON_VMI, mmu, release_pt, vmi_release_pt, VMI_RELEASE_PAGE),
  CHOICE_IF(ON_VMI, mmu, flush_tlb_user, vmi_flush_tlb_user, VMI_FLUSH_TLB),
#if LEVELS == 3
  CHOICE(ON_VMI, mmu, pagetable_setup_start, vmi_pagetable_setup_start),
  CHOICE_IF(ON_VMI, mmu, set_pmd, vmi_set_pmd, SET_ENTRY),
  CHOICE_IF(ON_VMI, mmu, alloc_pd, vmi_alloc_pd, VMI_ALLOCATE_PAGE),
  CHOICE_IF(ON_VMI, mmu, release_pd, vmi_release_pd, VMI_RELEASE_PAGE),
  CHOICE_IF(ON_VMI, mmu, get_pte, NULL, VMI_GET_PXE_LONG),
  CHOICE_IF(ON_VMI, mmu, get_pmd, NULL, VMI_GET_PXE_LONG),
  CHOICE_IF(ON_VMI, mmu, get_pgd, NULL, VMI_GET_PXE_LONG),
  CHOICE_IF(ON_VMI, mmu, ptep_modify_prot_start, vmi_modify_start, VMI_SWAP_PXE_LONG),
#else
  CHOICE_IF(ON_VMI, mmu, alloc_pd_clone, vmi_alloc_pd_clone, VMI_ALLOCATE_PAGE),
  CHOICE_IF(ON_VMI, mmu, pagetable_setup_start, vmi_pagetable_setup_start, VMI_ALLOCATE_PAGE),
  CHOICE_IF(ON_VMI, mmu, pagetable_setup_done, vmi_pagetable_setup_done, VMI_ALLOCATE_PAGE),
  CHOICE_IF(ON_VMI, mmu, pgd_free, vmi_pgd_free, VMI_RELEASE_PAGE),
#endif
};

void vmi_begin_tables(void) {
  set_entry = vmi_code(SET_ENTRY);
  update_entry = vmi_code(UPDATE_ENTRY);
#if LEVELS == 3
  swap_entry = vmi_code(VMI_SWAP_PXE_LONG);
#endif
  announce_page = vmi_code(VMI_ALLOCATE_PAGE);
  withdraw_page = vmi_code(VMI_RELEASE_PAGE);
  flush_tlb = vmi_code(VMI_FLUSH_TLB);
  tell_linear_mapping();
}
