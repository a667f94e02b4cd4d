#include "abi.h"
#include "console.h"
#include "native.h"
#include "paravirt-tables.h"
#include "start.h"

/*
 * Page tables of a Xen guest, by direct paging: entries hold machine frames, and a table that the processor walks can be
 * changed by the host only. Tables of a space that is not pinned yet are plain memory.
 */
#define MOST_PAGES 8192

static u64 machine_frames[MOST_PAGES];
static u8 is_read_only[MOST_PAGES];


u64 machine_frame(u64 page) { return machine_frames[page]; }
u64 machine_address(const void *address) {
  return machine_frames[page_number(address)] * PAGE_SIZE + (u64)address % PAGE_SIZE;
}
u64 page_of_machine(u64 frame) { return ((const u64 *)XEN_MACHINE_TO_PHYSICAL)[frame]; }

/* Any entry, between what this kernel means and what the processor sees. One that is not present means no frame. */
u64 xen_entry_to_machine(u64 value) {
  if (!(value & PRESENT)) return value;
  return (value & ~FRAME_MASK) | machine_frames[(value & FRAME_MASK) / PAGE_SIZE] * PAGE_SIZE;
}
u64 xen_entry_to_physical(u64 value) {
  if (!(value & PRESENT)) return value;
  return (value & ~FRAME_MASK) | page_of_machine((value & FRAME_MASK) / PAGE_SIZE) * PAGE_SIZE;
}

/* Tables and descriptors that the host has examined: pages of the kernel that it may not write to. */
u32 xen_is_live(const void *pointer) { return is_read_only[page_number(pointer)]; }

/* What was put off, in one call for each kind. */
void xen_flush_updates(void) {
  struct cpu *cpu = this_cpu();
  if (cpu->updates == 0) return;
  lazy_batches++;
  lazy_updates += cpu->updates;
  u32 count = cpu->updates;
  cpu->updates = 0;
  must("mmu_update", hypercall(XEN_MMU_UPDATE, (u64)cpu->update, count, 0, XEN_SELF));
}

void xen_flush_calls(void) {
  struct cpu *cpu = this_cpu();
  u32 count = cpu->calls;
  cpu->calls = 0;
  if (count == 0) return;
  lazy_batches++;
  lazy_updates += count;
  must("multicall", hypercall(XEN_MULTICALL, (u64)cpu->call, count, 0, 0));
  for (u32 index = 0; index < count; index++) must("a call of a batch", cpu->call[index].result);
}

static void update(const void *pointer, u64 entry, u64 command) {
  struct cpu *cpu = this_cpu();
  struct mmu_update *update = &cpu->update[cpu->updates++];
  *update = (struct mmu_update){machine_address(pointer) | command, entry};
  if (cpu->lazy_mode == LAZY_MMU && cpu->updates < BATCH) return;
  u32 count = cpu->updates;
  if (cpu->lazy_mode == LAZY_MMU) return xen_flush_updates();
  cpu->updates = 0;
  must("mmu_update", hypercall(XEN_MMU_UPDATE, (u64)cpu->update, count, 0, XEN_SELF));
}

static void extended(struct mmuext_op *operations, u32 count) {
  xen_flush_updates();
  must("mmuext_op", hypercall(XEN_MMUEXT_OP, (u64)operations, count, 0, XEN_SELF));
}

static void extended_one(u32 command, u64 frame_or_address, u64 argument) {
  struct mmuext_op operation = {command, frame_or_address, argument};
  extended(&operation, 1);
}

static void xen_set_lazy_mode(u32 mode) {
  if (mode != LAZY_NONE) return;
  xen_flush_updates();
  xen_flush_calls();
}

static void set_entry(void *pointer, u64 entry) {
  if (xen_is_live(pointer)) update(pointer, entry, MMU_NORMAL);
  else *(volatile u64 *)pointer = entry;
}

static void xen_set_pte_at(struct memory_descriptor *mm, u64 address, pte_entry *pointer, u64 entry) {
  (void)mm, (void)address;
  set_entry(pointer, entry);
}
static void xen_pte_clear(struct memory_descriptor *mm, u64 address, pte_entry *pointer) {
  (void)mm, (void)address;
  set_entry(pointer, 0);
}
static void xen_set_pmd(pmd_entry *pointer, u64 entry) { set_entry(pointer, entry); }
static void xen_set_pud(pud_entry *pointer, u64 entry) { set_entry(pointer, entry); }

static pgd_entry *user_table_of(pgd_entry *pointer);

/* A program runs on a table of its own, without the kernel. */
static void xen_set_pgd(pgd_entry *pointer, u64 entry) {
  set_entry(pointer, entry);
  pgd_entry *user = user_table_of(pointer);
  if (user) set_entry(user, entry);
}

/* The entry stays; the commit keeps what the processor marks until then. */
static u64 xen_modify_start(struct memory_descriptor *mm, u64 address, pte_entry *pointer) {
  (void)mm, (void)address;
  return get_pte(pointer).value;
}
static void xen_modify_commit(struct memory_descriptor *mm, u64 address, pte_entry *pointer, u64 entry) {
  (void)mm, (void)address;
  if (xen_is_live(pointer)) update(pointer, entry, MMU_PRESERVE_AD);
  else *(volatile u64 *)pointer = entry;
}

/* The page as the kernel sees it. */
void xen_protect(void *page, u32 is_writable) {
  is_read_only[page_number(page)] = !is_writable;
  u64 entry = machine_address(page) | PRESENT | ACCESSED | DIRTY | (is_writable ? WRITABLE : 0);
  must("update_va_mapping", hypercall(XEN_UPDATE_VA_MAPPING, (u64)page, entry, 2, 0));
}

/* One of a batch. */
static void protect_soon(void *page, u32 is_writable) {
  struct cpu *cpu = this_cpu();
  u64 entry = machine_address(page) | PRESENT | ACCESSED | DIRTY | (is_writable ? WRITABLE : 0);
  cpu->call[cpu->calls++] = (struct multicall){XEN_UPDATE_VA_MAPPING, 0, {(u64)page, entry, 2}};
  if (cpu->calls == BATCH) xen_flush_calls();
}

static void freeze(void *table, u32 level) {
  (void)level;
  is_read_only[page_number(table)] = 1;
  protect_soon(table, 0);
}
static void thaw(void *table, u32 level) {
  (void)level;
  is_read_only[page_number(table)] = 0;
  protect_soon(table, 1);
}

static void pin(struct memory_descriptor *mm) {
  each_table(mm, freeze);
  freeze(mm->user_pgd, 4);
  xen_flush_calls();
  struct mmuext_op operations[] = {
    {MMUEXT_PIN_L4, machine_frame(page_number(mm->pgd)), 0},
    {MMUEXT_PIN_L4, machine_frame(page_number(mm->user_pgd)), 0},
  };
  extended(operations, COUNT(operations));
  mm->is_pinned = 1;
}

static void xen_activate_mm(struct memory_descriptor *previous, struct memory_descriptor *next) {
  (void)previous;
  pin(next);
}
static void xen_dup_mmap(struct memory_descriptor *old, struct memory_descriptor *copy) {
  (void)old;
  pin(copy);
}

static void xen_exit_mmap(struct memory_descriptor *mm) {
  if (!mm->is_pinned) return;
  struct mmuext_op operations[] = {
    {MMUEXT_UNPIN, machine_frame(page_number(mm->pgd)), 0},
    {MMUEXT_UNPIN, machine_frame(page_number(mm->user_pgd)), 0},
  };
  extended(operations, COUNT(operations));
  each_table(mm, thaw);
  thaw(mm->user_pgd, 4);
  xen_flush_calls();
  mm->is_pinned = 0;
}

/* A table for a space that is pinned is one from the beginning. */
static void alloc_table(struct memory_descriptor *mm, u64 page) {
  if (mm->is_pinned) xen_protect(virtual(page * PAGE_SIZE), 0);
}
static void xen_alloc_pt(struct memory_descriptor *mm, u64 page) { alloc_table(mm, page); }

#define MOST_SPACES 32
static struct { pgd_entry *kernel, *user; } pairs[MOST_SPACES];

static u32 xen_pgd_alloc(struct memory_descriptor *mm) {
  mm->user_pgd = allocate_page();
  for (u32 index = 0; index < MOST_SPACES; index++) {
    if (pairs[index].kernel) continue;
    pairs[index].kernel = mm->pgd;
    pairs[index].user = mm->user_pgd;
    return 0;
  }
  return 1;
}

static void xen_pgd_free(struct memory_descriptor *mm) {
  for (u32 index = 0; index < MOST_SPACES; index++) {
    if (pairs[index].kernel == mm->pgd) pairs[index].kernel = NULL;
  }
  free_page(mm->user_pgd);
}

static pgd_entry *user_table_of(pgd_entry *pointer) {
  pgd_entry *table = (pgd_entry *)((u64)pointer & -(u64)PAGE_SIZE);
  u32 slot = (u64)pointer % PAGE_SIZE / 8;
  if (slot == KERNEL_SLOT) return NULL;
  for (u32 index = 0; index < MOST_SPACES; index++) {
    if (pairs[index].kernel == table) return pgd_at(pairs[index].user, slot);
  }
  return NULL;
}

static u64 user_root_of(const void *table) {
  for (u32 index = 0; index < MOST_SPACES; index++) {
    if (pairs[index].kernel == table) return machine_frame(page_number(pairs[index].user));
  }
  return 0;
}

/* In a context switch it goes with the kernel's stack. */
static void xen_write_cr3(u64 root) {
  static struct mmuext_op operations[MOST_CPUS][2];
  struct cpu *cpu = this_cpu();
  struct mmuext_op *own = operations[cpu->number];
  cpu->root = root;
  own[0] = (struct mmuext_op){MMUEXT_NEW_BASE, machine_frame(root / PAGE_SIZE), 0};
  own[1] = (struct mmuext_op){MMUEXT_NEW_USER_BASE, user_root_of(virtual(root)), 0};
  if (cpu->lazy_mode == LAZY_CPU) {
    cpu->call[cpu->calls++] = (struct multicall){XEN_MMUEXT_OP, 0, {(u64)own, 2, 0, XEN_SELF}};
  } else {
    extended(own, 2);
  }
}

static u64 xen_read_cr2(void) { return ((struct vcpu_info *)this_cpu()->xen_info)->cr2; }

static u64 xen_read_cr3(void) { return this_cpu()->root; }

static void xen_flush_tlb_user(void) { extended_one(MMUEXT_FLUSH_LOCAL, 0, 0); }
static void xen_flush_tlb_single(u64 address) { extended_one(MMUEXT_INVALIDATE_LOCAL, address, 0); }
static void xen_flush_tlb_others(u64 targets, struct memory_descriptor *mm, u64 address) {
  (void)mm;
  extended_one(address == ~0UL ? MMUEXT_FLUSH_MULTI : MMUEXT_INVALIDATE_MULTI, address, (u64)&targets);
}

static void *xen_set_fixmap(u32 index, u64 address) {
  (void)index, (void)address;
  panic("a page of a device");
}

/* Runs when the kernel's own table is complete, before the first change of CR3. */
static void xen_first_write_cr3(u64 root) {
  xen_protect(swapper_pg_dir, 0);
  extended_one(MMUEXT_PIN_L4, machine_frame(page_number(swapper_pg_dir)), 0);
  pv_mmu_ops.write_cr3 = xen_write_cr3;
  xen_write_cr3(root);
}

/*
 * Xen has pinned the table that the kernel begins with. It counts as initial_page_table, and the kernel's own takes over
 * as on plain hardware; or it is swapper_pg_dir, and what initial_page_table has for the kernel is only a copy.
 */
static void xen_pagetable_setup_start(pgd_entry *base) {
  (void)base;
  pgd_entry *table = (pgd_entry *)xen_start_info->table_base;
  this_cpu()->root = physical(table);
  if (!begins_on_swapper()) {
    boot_page_table = table;
    return;
  }
  clone_pgd_range(boot_page_table, table, KERNEL_SLOT, 1);
  swapper_pg_dir = table;
  is_read_only[page_number(table)] = 1;
  pv_mmu_ops.write_cr3 = xen_write_cr3;
}

/* The other table is of no use any more. */
static void xen_pagetable_setup_done(pgd_entry *base) {
  (void)base;
  if (!begins_on_swapper()) extended_one(MMUEXT_UNPIN, machine_frame(page_number(boot_page_table)), 0);
}

void xen_install_mmu(void) {
  const u64 *list = (const u64 *)xen_start_info->frame_list;
  for (u64 page = 0; page < MOST_PAGES && page < xen_start_info->pages; page++) machine_frames[page] = list[page];
  struct pv_mmu_ops *ops = &pv_mmu_ops;
  ops->pte_val = ops->pmd_val = ops->pud_val = ops->pgd_val = (void *)xen_kept_to_physical;
  ops->make_pte = ops->make_pmd = ops->make_pud = ops->make_pgd = (void *)xen_kept_to_machine;
  ops->pagetable_setup_start = xen_pagetable_setup_start;
  ops->pagetable_setup_done = xen_pagetable_setup_done;
  ops->read_cr2 = xen_read_cr2;
  ops->read_cr3 = xen_read_cr3;
  ops->write_cr3 = xen_first_write_cr3;
  ops->pgd_alloc = xen_pgd_alloc;
  ops->pgd_free = xen_pgd_free;
  ops->activate_mm = xen_activate_mm;
  ops->dup_mmap = xen_dup_mmap;
  ops->exit_mmap = xen_exit_mmap;
  ops->flush_tlb_user = xen_flush_tlb_user;
  ops->flush_tlb_single = xen_flush_tlb_single;
  ops->flush_tlb_others = xen_flush_tlb_others;
  ops->alloc_pt = ops->alloc_pd = ops->alloc_pud = xen_alloc_pt;
  ops->set_pte_at = xen_set_pte_at;
  ops->set_pmd = xen_set_pmd;
  ops->set_pud = xen_set_pud;
  ops->set_pgd = xen_set_pgd;
  ops->pte_clear = xen_pte_clear;
  ops->ptep_modify_prot_start = xen_modify_start;
  ops->ptep_modify_prot_commit = xen_modify_commit;
  ops->set_fixmap = xen_set_fixmap;
  pv_misc_ops.set_lazy_mode = xen_set_lazy_mode;
}
