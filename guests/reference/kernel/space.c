#include "cpu.h"
#include "memory.h"

/* Address spaces: their tables come as they are needed and go all together. */
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
  if ((u32)PV_CALL_1(mmu, pgd_alloc, mm)) panic("no top-level table");
  if (pv_info.shares_kernel_tables) {
    clone_pgd_range(mm->pgd, swapper_pg_dir, KERNEL_SLOT, KERNEL_SLOTS);
    PV_CALL_4(mmu, alloc_pd_clone, page_number(mm->pgd), page_number(swapper_pg_dir), KERNEL_SLOT, KERNEL_SLOTS);
  }
  return mm;
}

static void *table_of(entry_bits entry) { return virtual((word)(entry & FRAME_MASK)); }

/* What differs between levels above the lowest: their entries name tables, which interfaces are told of before and after. */
struct level {
  u32 shift, slots;
  entry_bits (*read)(void *table, u32 slot);
  void (*link)(void *table, u32 slot, entry_bits entry);
  void (*announce)(struct memory_descriptor *mm, word page);
  void (*release)(word page);
};

static entry_bits read_pgd(void *table, u32 slot) { return pgd_val(get_pgd(pgd_at(table, slot))); }
static void link_pgd(void *table, u32 slot, entry_bits entry) { set_pgd(pgd_at(table, slot), make_pgd(entry)); }
static void announce_pt(struct memory_descriptor *mm, word page) { PV_CALL_2(mmu, alloc_pt, mm, page); }
static void release_pt(word page) { PV_CALL_1(mmu, release_pt, page); }
#if LEVELS >= 3
static entry_bits read_pmd(void *table, u32 slot) { return pmd_val(get_pmd(pmd_at(table, slot))); }
static void link_pmd(void *table, u32 slot, entry_bits entry) { set_pmd(pmd_at(table, slot), make_pmd(entry)); }
static void announce_pd(struct memory_descriptor *mm, word page) { PV_CALL_2(mmu, alloc_pd, mm, page); }
static void release_pd(word page) { PV_CALL_1(mmu, release_pd, page); }
#endif
#if LEVELS >= 4
static entry_bits read_pud(void *table, u32 slot) { return pud_val(get_pud(pud_at(table, slot))); }
static void link_pud(void *table, u32 slot, entry_bits entry) { set_pud(pud_at(table, slot), make_pud(entry)); }
static void announce_pud(struct memory_descriptor *mm, word page) { PV_CALL_2(mmu, alloc_pud, mm, page); }
static void release_pud(word page) { PV_CALL_1(mmu, release_pud, page); }
#endif

/* Highest first; `announce` and `release` are about the tables that entries name. */
static const struct level levels[LEVELS - 1] = {
#if LEVELS == 2
  {22, USER_SLOTS, read_pgd, link_pgd, announce_pt, release_pt},
#elif LEVELS == 3
  {30, USER_SLOTS, read_pgd, link_pgd, announce_pd, release_pd},
  {21, ENTRIES, read_pmd, link_pmd, announce_pt, release_pt},
#else
  {39, USER_SLOTS, read_pgd, link_pgd, announce_pud, release_pud},
  {30, ENTRIES, read_pud, link_pud, announce_pd, release_pd},
  {21, ENTRIES, read_pmd, link_pmd, announce_pt, release_pt},
#endif
};
static const struct level *const levels_end = levels + COUNT(levels);

static u32 slot_of(const struct level *level, word address) { return (u32)(address >> level->shift) % ENTRIES; }

static void each_below(void *table, const struct level *level, void (*visit)(void *table, u32 level)) {
  for (u32 slot = 0; level < levels_end && slot < level->slots; slot++) {
    entry_bits entry = level->read(table, slot);
    if (entry & PRESENT) each_below(table_of(entry), level + 1, visit);
  }
  visit(table, (u32)(levels_end - level) + 1);
}

/* Calls for each table of programs' part and the highest, from below, so that it may free them. The lowest level is 1. */
void each_table(struct memory_descriptor *mm, void (*visit)(void *table, u32 level)) {
  each_below(mm->pgd, levels, visit);
}

static void release_table(void *table, u32 level) {
  if (level < LEVELS) levels[LEVELS - 1 - level].release(page_number(table));
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
pte_entry *find_entry(struct memory_descriptor *mm, word address) {
  void *table = mm->pgd;
  for (const struct level *level = levels; level < levels_end; level++) {
    entry_bits entry = level->read(table, slot_of(level, address));
    if (!(entry & PRESENT)) return NULL;
    table = table_of(entry);
  }
  return pte_at(table, pte_index(address));
}

/* The same, with tables made where they are missing: told of before they are linked. */
pte_entry *make_entry(struct memory_descriptor *mm, word address) {
  void *table = mm->pgd;
  for (const struct level *level = levels; level < levels_end; level++) {
    u32 slot = slot_of(level, address);
    entry_bits entry = level->read(table, slot);
    if (!(entry & PRESENT)) {
      void *lower = allocate_page();
      level->announce(mm, page_number(lower));
      entry = physical(lower) | (level == levels ? TOP_TABLE_FLAGS : TABLE_FLAGS);
      level->link(table, slot, entry);
      if (TOP_TABLE_IS_CACHED && level == levels) flush_space(mm);
    }
    table = table_of(entry);
  }
  return pte_at(table, pte_index(address));
}
