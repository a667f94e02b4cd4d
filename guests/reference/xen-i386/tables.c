#include "choices.h"
#include "console.h"
#include "paravirt-tables.h"
#include "start.h"
#include "xen-abi.h"

/*
 * Tables of three levels. The highest has four entries, all of them present; the table below the last has entries of the
 * host's too and belongs to one space. So each space has a copy of the kernel's, and all have the same empty one for what
 * neither programs nor the kernel use.
 */
#define UNUSED_SLOT 2
/* Entries of the kernel's table of level 2; the host's are behind them. */
#define KERNEL_ENTRIES ((XEN_MACHINE_TO_PHYSICAL - KERNEL_BASE) >> 21)

static u8 empty_table[PAGE_SIZE] ALIGNED(PAGE_SIZE);

static void *lower_table(pgd_entry *top, u32 slot) {
  return virtual((word)(pgd_val(get_pgd(pgd_at(top, slot))) & FRAME_MASK));
}

static void link(pgd_entry *top, u32 slot, const void *table) {
  set_pgd(pgd_at(top, slot), make_pgd(physical(table) | PRESENT));
}

static void *copy_kernel_table(pgd_entry *from) {
  void *table = allocate_page(), *original = lower_table(from, KERNEL_SLOT);
  for (u32 index = 0; index < KERNEL_ENTRIES; index++) {
    pmd_t entry = get_pmd(pmd_at(original, index));
    if (pmd_val(entry) & PRESENT) set_pmd(pmd_at(table, index), entry);
  }
  return table;
}

static void xen_set_pgd(pgd_entry *pointer, u64 entry) { xen_set_entry(pointer, entry); }

static u32 xen_pgd_alloc(struct memory_descriptor *mm) {
  for (u32 slot = 0; slot < USER_SLOTS; slot++) link(mm->pgd, slot, allocate_page());
  link(mm->pgd, UNUSED_SLOT, empty_table);
  link(mm->pgd, KERNEL_SLOT, copy_kernel_table(swapper_pg_dir));
  return 0;
}

static void xen_pgd_free(struct memory_descriptor *mm) { free_page(lower_table(mm->pgd, KERNEL_SLOT)); }

void xen_pin(struct memory_descriptor *mm) {
  each_table(mm, xen_freeze);
  xen_freeze(lower_table(mm->pgd, KERNEL_SLOT), 2);
  xen_flush_calls();
  xen_pin_table(MMUEXT_PIN_L3, mm->pgd);
  mm->is_pinned = 1;
}

static void xen_exit_mmap(struct memory_descriptor *mm) {
  if (!mm->is_pinned) return;
  xen_pin_table(MMUEXT_UNPIN, mm->pgd);
  each_table(mm, xen_thaw);
  xen_thaw(lower_table(mm->pgd, KERNEL_SLOT), 2);
  xen_flush_calls();
  mm->is_pinned = 0;
}

/* In a context switch it goes with the kernel's stack. */
static void xen_write_cr3(word root) {
  static struct mmuext_op operations[MOST_CPUS];
  struct cpu *cpu = this_cpu();
  struct mmuext_op *own = &operations[cpu->number];
  cpu->root = root;
  *own = (struct mmuext_op){MMUEXT_NEW_BASE, machine_frame(root / PAGE_SIZE), 0};
  if (cpu->lazy_mode == LAZY_CPU) {
    cpu->call[cpu->calls++] = (struct multicall){XEN_MMUEXT_OP, 0, {(word)own, 1, 0, XEN_SELF}};
  } else {
    xen_extended(own, 1);
  }
}

/* Runs when the kernel's own table is complete, before the first change of CR3. */
static void xen_first_write_cr3(word root) {
  xen_protect(lower_table(swapper_pg_dir, KERNEL_SLOT), 0);
  xen_protect(swapper_pg_dir, 0);
  xen_pin_table(MMUEXT_PIN_L3, swapper_pg_dir);
  pv_mmu_ops.write_cr3 = xen_write_cr3;
  xen_write_cr3(root);
}

/*
 * Xen has pinned the table that the kernel begins with. It counts as initial_page_table, and since its last table cannot
 * be shared, what the kernel's own takes over is a copy; or it is swapper_pg_dir, and what initial_page_table has for the
 * kernel is only a copy of its entry.
 */
static void xen_pagetable_setup_start(pgd_entry *base) {
  pgd_entry *first = (pgd_entry *)xen_start_info->table_base;
  this_cpu()->root = physical(first);
  xen_protect(empty_table, 0);
  if (begins_on_swapper()) {
    link(boot_page_table, KERNEL_SLOT, lower_table(first, KERNEL_SLOT));
    swapper_pg_dir = first;
    xen_freeze_here(first);
    pv_mmu_ops.write_cr3 = xen_write_cr3;
    return;
  }
  for (u32 slot = 0; slot < KERNEL_SLOT; slot++) link(base, slot, empty_table);
  link(boot_page_table, KERNEL_SLOT, copy_kernel_table(first));
}

/* The other table is of no use any more. */
static void xen_pagetable_setup_done(pgd_entry *base) {
  (void)base;
  if (!begins_on_swapper()) xen_pin_table(MMUEXT_UNPIN, (const void *)xen_start_info->table_base);
}

CHOICES(xen_tables) = {
  CHOICE(ON_XEN, mmu, set_pgd, xen_set_pgd),
  CHOICE(ON_XEN, mmu, pgd_alloc, xen_pgd_alloc),
  CHOICE(ON_XEN, mmu, pgd_free, xen_pgd_free),
  CHOICE(ON_XEN, mmu, exit_mmap, xen_exit_mmap),
  FIRST_CHOICE(ON_XEN, mmu, write_cr3, xen_first_write_cr3),
  CHOICE(ON_XEN, mmu, pagetable_setup_start, xen_pagetable_setup_start),
  CHOICE(ON_XEN, mmu, pagetable_setup_done, xen_pagetable_setup_done),
};
