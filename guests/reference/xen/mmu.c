#include "choices.h"
#include "xen-abi.h"
#include "console.h"
#include "native.h"
#include "paravirt-tables.h"
#include "start.h"

/*
 * Page tables of a Xen guest, by direct paging: entries hold machine frames, and a table that the processor walks can be
 * changed by the host only. Tables of a space that is not pinned yet are plain memory. Where frames are translated, all
 * of that is the host's affair; changes of tables in use go to it all the same, for they cost less so than one by one.
 */
#define MOST_PAGES 8192

static word machine_frames[MOST_PAGES];
static u8 is_live[MOST_PAGES];

word machine_frame(word page) { return machine_frames[page]; }
u64 machine_address(const void *address) {
  return (u64)machine_frames[page_number(address)] * PAGE_SIZE + (word)address % PAGE_SIZE;
}
word page_of_machine(word frame) {
  return xen_translates ? frame : ((const word *)XEN_MACHINE_TO_PHYSICAL)[frame];
}

/* Any entry, between what this kernel means and what the processor sees. One that is not present means no frame. */
u64 xen_entry_to_machine(u64 value) {
  if (!(value & PRESENT)) return value;
  return (value & ~FRAME_MASK) | (u64)machine_frames[(value & FRAME_MASK) / PAGE_SIZE] * PAGE_SIZE;
}
u64 xen_entry_to_physical(u64 value) {
  if (!(value & PRESENT)) return value;
  return (value & ~FRAME_MASK) | (u64)page_of_machine((word)((value & FRAME_MASK) / PAGE_SIZE)) * PAGE_SIZE;
}

/* The kernel sees the page so already. */
void xen_freeze_here(const void *page) { is_live[page_number(page)] = 1; }

/* Tables and descriptors that the host has been told of: if it has examined them, the kernel may not write to them. */
u32 xen_is_live(const void *pointer) { return is_live[page_number(pointer)]; }

/* What was put off, in one call for each kind. */
void xen_flush_updates(void) {
  struct cpu *cpu = this_cpu();
  if (cpu->updates == 0) return;
  lazy_batches++;
  lazy_updates += cpu->updates;
  u32 count = cpu->updates;
  cpu->updates = 0;
  must("mmu_update", hypercall(XEN_MMU_UPDATE, (word)cpu->update, count, 0, XEN_SELF));
}

void xen_flush_calls(void) {
  struct cpu *cpu = this_cpu();
  u32 count = cpu->calls;
  cpu->calls = 0;
  if (count == 0) return;
  lazy_batches++;
  lazy_updates += count;
  must("multicall", hypercall(XEN_MULTICALL, (word)cpu->call, count, 0, 0));
  for (u32 index = 0; index < count; index++) must("a call of a batch", cpu->call[index].result);
}

static void update(const void *pointer, u64 entry, word command) {
  struct cpu *cpu = this_cpu();
  struct mmu_update *update = &cpu->update[cpu->updates++];
  *update = (struct mmu_update){machine_address(pointer) | command, entry};
  if (cpu->lazy_mode == LAZY_MMU && cpu->updates < BATCH) return;
  u32 count = cpu->updates;
  if (cpu->lazy_mode == LAZY_MMU) return xen_flush_updates();
  cpu->updates = 0;
  must("mmu_update", hypercall(XEN_MMU_UPDATE, (word)cpu->update, count, 0, XEN_SELF));
}

void xen_extended(struct mmuext_op *operations, u32 count) {
  xen_flush_updates();
  must("mmuext_op", hypercall(XEN_MMUEXT_OP, (word)operations, count, 0, XEN_SELF));
}

void xen_extended_one(u32 command, word frame_or_address, word argument) {
  struct mmuext_op operation = {command, frame_or_address, argument};
  xen_extended(&operation, 1);
}

static void xen_set_lazy_mode(u32 mode) {
  if (mode != LAZY_NONE) return;
  xen_flush_updates();
  xen_flush_calls();
}

void xen_set_entry(void *pointer, u64 entry) {
  if (xen_is_live(pointer)) update(pointer, entry, MMU_NORMAL);
  else native_set_entry(pointer, entry);
}

static void xen_set_pte_at(struct memory_descriptor *mm, word address, pte_entry *pointer, u64 entry) {
  (void)mm, (void)address;
  xen_set_entry(pointer, entry);
}
static void xen_pte_clear(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  (void)mm, (void)address;
  xen_set_entry(pointer, 0);
}
static void xen_set_pmd(pmd_entry *pointer, u64 entry) { xen_set_entry(pointer, entry); }

/* The entry stays; the commit keeps what the processor marks until then. */
static u64 xen_modify_start(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  (void)mm, (void)address;
  return get_pte(pointer).value;
}
static void xen_modify_commit(struct memory_descriptor *mm, word address, pte_entry *pointer, u64 entry) {
  (void)mm, (void)address;
  if (xen_is_live(pointer)) update(pointer, entry, MMU_PRESERVE_AD);
  else native_set_entry(pointer, entry);
}

/* The page as the kernel sees it. */
void xen_protect(void *page, u32 is_writable) {
  is_live[page_number(page)] = !is_writable;
  if (xen_translates) return;
  u64 entry = machine_address(page) | PRESENT | ACCESSED | DIRTY | (is_writable ? WRITABLE : 0);
  must("update_va_mapping", xen_map((word)page, entry));
}

/* One of a batch. */
static void protect_soon(void *page, u32 is_writable) {
  if (xen_translates) return;
  struct cpu *cpu = this_cpu();
  u64 entry = machine_address(page) | PRESENT | ACCESSED | DIRTY | (is_writable ? WRITABLE : 0);
  cpu->call[cpu->calls++] = (struct multicall){XEN_UPDATE_VA_MAPPING, 0, {XEN_MAPPING((word)page, entry)}};
  if (cpu->calls == BATCH) xen_flush_calls();
}

void xen_freeze(void *table, u32 level) {
  (void)level;
  is_live[page_number(table)] = 1;
  protect_soon(table, 0);
}
void xen_thaw(void *table, u32 level) {
  (void)level;
  is_live[page_number(table)] = 0;
  protect_soon(table, 1);
}

/* Pins and unpins: a host that translates examines nothing. */
void xen_pin_tables(struct mmuext_op *operations, u32 count) {
  if (!xen_translates) xen_extended(operations, count);
}
void xen_pin_table(u32 command, const void *table) {
  struct mmuext_op operation = {command, machine_frame(page_number(table)), 0};
  xen_pin_tables(&operation, 1);
}

static void xen_activate_mm(struct memory_descriptor *previous, struct memory_descriptor *next) {
  (void)previous;
  xen_pin(next);
}
static void xen_dup_mmap(struct memory_descriptor *old, struct memory_descriptor *copy) {
  (void)old;
  xen_pin(copy);
}

/* A table for a space that is pinned is one from the beginning. */
static void alloc_table(struct memory_descriptor *mm, word page) {
  if (mm->is_pinned) xen_protect(virtual(page * PAGE_SIZE), 0);
}
void xen_alloc_pt(struct memory_descriptor *mm, word page) { alloc_table(mm, page); }

static word xen_read_cr2(void) { return ((struct vcpu_info *)this_cpu()->xen_info)->cr2; }

static word xen_read_cr3(void) { return this_cpu()->root; }

static void xen_flush_tlb_user(void) { xen_extended_one(MMUEXT_FLUSH_LOCAL, 0, 0); }
static void xen_flush_tlb_single(word address) { xen_extended_one(MMUEXT_INVALIDATE_LOCAL, address, 0); }
static void xen_flush_tlb_others(word targets, struct memory_descriptor *mm, word address) {
  (void)mm;
  xen_extended_one(address == ~(word)0 ? MMUEXT_FLUSH_MULTI : MMUEXT_INVALIDATE_MULTI, address, (word)&targets);
}

static void *xen_set_fixmap(u32 index, entry_bits address) {
  (void)index, (void)address;
  panic("a page of a device");
}

CHOICES(xen_mmu) = {
  CHOICE_IF(ON_XEN, mmu, pte_val, xen_kept_to_physical, XEN_HAS_MACHINE_FRAMES),
  CHOICE_IF(ON_XEN, mmu, pmd_val, xen_kept_to_physical, XEN_HAS_MACHINE_FRAMES),
  CHOICE_IF(ON_XEN, mmu, pgd_val, xen_kept_to_physical, XEN_HAS_MACHINE_FRAMES),
  CHOICE_IF(ON_XEN, mmu, make_pte, xen_kept_to_machine, XEN_HAS_MACHINE_FRAMES),
  CHOICE_IF(ON_XEN, mmu, make_pmd, xen_kept_to_machine, XEN_HAS_MACHINE_FRAMES),
  CHOICE_IF(ON_XEN, mmu, make_pgd, xen_kept_to_machine, XEN_HAS_MACHINE_FRAMES),
  CHOICE(ON_XEN, mmu, read_cr2, xen_read_cr2),
  CHOICE(ON_XEN, mmu, read_cr3, xen_read_cr3),
  CHOICE(ON_XEN, mmu, activate_mm, xen_activate_mm),
  CHOICE(ON_XEN, mmu, dup_mmap, xen_dup_mmap),
  CHOICE(ON_XEN, mmu, flush_tlb_user, xen_flush_tlb_user),
  CHOICE(ON_XEN, mmu, flush_tlb_single, xen_flush_tlb_single),
  CHOICE(ON_XEN, mmu, flush_tlb_others, xen_flush_tlb_others),
  CHOICE(ON_XEN, mmu, alloc_pt, xen_alloc_pt),
  CHOICE(ON_XEN, mmu, alloc_pd, xen_alloc_pt),
  CHOICE(ON_XEN, mmu, set_pte_at, xen_set_pte_at),
  CHOICE(ON_XEN, mmu, set_pmd, xen_set_pmd),
  CHOICE(ON_XEN, mmu, pte_clear, xen_pte_clear),
  CHOICE(ON_XEN, mmu, ptep_modify_prot_start, xen_modify_start),
  CHOICE(ON_XEN, mmu, ptep_modify_prot_commit, xen_modify_commit),
  CHOICE(ON_XEN, mmu, set_fixmap, xen_set_fixmap),
  CHOICE(ON_XEN, misc, set_lazy_mode, xen_set_lazy_mode),
};

void xen_read_frames(void) {
  const word *list = (const word *)xen_start_info->frame_list;
  for (word page = 0; page < MOST_PAGES && page < xen_start_info->pages; page++)
    machine_frames[page] = xen_translates ? page : list[page];
}
