#include "console.h"
#include "memory.h"
#include "start.h"

/*
 * From the tables that the kernel was entered with to its own: swapper_pg_dir, whose upper part every address space has.
 * On plain hardware that is a copy of the kernel's entry of initial_page_table, and a change of CR3. Where the kernel is
 * on swapper_pg_dir already, as Xen guests once were, the same copy goes to a table in use; docs/cloning.md has the story.
 * The word `clone=` chooses how it is done:
 *
 *   plain      as memory, which Xen does not let pass where it examines the table in use
 *   accessors  entry by entry, by the operation for it
 *   skip       not at all where the kernel is on swapper_pg_dir already
 *
 * Without the word, no interface begins on swapper_pg_dir; with it all do, but VMI's with tables of three levels where its
 * host has a part in them. clone-probe.c shows where the copy did not come to.
 */
static u8 swapper_page[PAGE_SIZE] ALIGNED(PAGE_SIZE);
pgd_entry *swapper_pg_dir = (pgd_entry *)swapper_page;
pgd_entry *boot_page_table = (pgd_entry *)initial_page_table;

u32 begins_on_swapper(void) { return word_value("clone=") != NULL; }

static void take_kernel_entry(void) {
  if (has_word("clone=plain")) {
    for (u32 slot = KERNEL_SLOT; slot < KERNEL_SLOT + KERNEL_SLOTS; slot++)
      ((entry_bits *)swapper_pg_dir)[slot] = ((entry_bits *)boot_page_table)[slot];
  } else {
    clone_pgd_range(swapper_pg_dir, boot_page_table, KERNEL_SLOT, KERNEL_SLOTS);
  }
}

void setup_paging(void) {
  PV_CALL_1(mmu, pagetable_setup_start, swapper_pg_dir);
  word root = physical(swapper_pg_dir);
  if (!has_word("clone=skip") || PV_INLINE_0(mmu, read_cr3) != root) {
    take_kernel_entry();
    PV_INLINE_1(mmu, write_cr3, root);
#if KERNEL_SLOTS > 1
    check_clone_probe();
#endif
  }
  PV_CALL_1(mmu, pagetable_setup_done, swapper_pg_dir);
}
