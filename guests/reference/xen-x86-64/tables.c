#include "choices.h"
#include "xen-abi.h"
#include "paravirt-tables.h"
#include "start.h"

/* Tables of four levels: the kernel is on one that a program does not see, and each space has another for the program. */
static void xen_set_pud(pud_entry *pointer, u64 entry) { xen_set_entry(pointer, entry); }

static pgd_entry *user_table_of(pgd_entry *pointer);

/* A program runs on a table of its own, without the kernel. */
static void xen_set_pgd(pgd_entry *pointer, u64 entry) {
  xen_set_entry(pointer, entry);
  pgd_entry *user = user_table_of(pointer);
  if (user) xen_set_entry(user, entry);
}

void xen_pin(struct memory_descriptor *mm) {
  each_table(mm, xen_freeze);
  xen_freeze(mm->user_pgd, 4);
  xen_flush_calls();
  struct mmuext_op operations[] = {
    {MMUEXT_PIN_L4, machine_frame(page_number(mm->pgd)), 0},
    {MMUEXT_PIN_L4, machine_frame(page_number(mm->user_pgd)), 0},
  };
  xen_pin_tables(operations, COUNT(operations));
  mm->is_pinned = 1;
}

static void xen_exit_mmap(struct memory_descriptor *mm) {
  if (!mm->is_pinned) return;
  struct mmuext_op operations[] = {
    {MMUEXT_UNPIN, machine_frame(page_number(mm->pgd)), 0},
    {MMUEXT_UNPIN, machine_frame(page_number(mm->user_pgd)), 0},
  };
  xen_pin_tables(operations, COUNT(operations));
  each_table(mm, xen_thaw);
  xen_thaw(mm->user_pgd, 4);
  xen_flush_calls();
  mm->is_pinned = 0;
}

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
    xen_extended(own, 2);
  }
}

/* Runs when the kernel's own table is complete, before the first change of CR3. */
static void xen_first_write_cr3(u64 root) {
  xen_protect(swapper_pg_dir, 0);
  xen_pin_table(MMUEXT_PIN_L4, swapper_pg_dir);
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
  xen_freeze_here(table);
  pv_mmu_ops.write_cr3 = xen_write_cr3;
}

/* The other table is of no use any more. */
static void xen_pagetable_setup_done(pgd_entry *base) {
  (void)base;
  if (!begins_on_swapper()) xen_pin_table(MMUEXT_UNPIN, boot_page_table);
}

CHOICES(xen_tables) = {
  CHOICE(ON_XEN, mmu, set_pud, xen_set_pud),
  CHOICE(ON_XEN, mmu, set_pgd, xen_set_pgd),
  CHOICE_IF(ON_XEN, mmu, pud_val, xen_kept_to_physical, XEN_HAS_MACHINE_FRAMES),
  CHOICE_IF(ON_XEN, mmu, make_pud, xen_kept_to_machine, XEN_HAS_MACHINE_FRAMES),
  CHOICE(ON_XEN, mmu, alloc_pud, xen_alloc_pt),
  CHOICE(ON_XEN, mmu, pgd_alloc, xen_pgd_alloc),
  CHOICE(ON_XEN, mmu, pgd_free, xen_pgd_free),
  CHOICE(ON_XEN, mmu, exit_mmap, xen_exit_mmap),
  FIRST_CHOICE(ON_XEN, mmu, write_cr3, xen_first_write_cr3),
  CHOICE(ON_XEN, mmu, pagetable_setup_start, xen_pagetable_setup_start),
  CHOICE(ON_XEN, mmu, pagetable_setup_done, xen_pagetable_setup_done),
};
