#include "console.h"
#include "memory.h"
#include "start.h"

/*
 * From the tables that the kernel was entered with to its own: swapper_pg_dir, whose upper part every address space has.
 * On plain hardware that is a copy of the kernel's entry of initial_page_table, and a change of CR3.
 */
#define KERNEL_SLOT 511

static u8 swapper_page[PAGE_SIZE] ALIGNED(PAGE_SIZE);
pgd_entry *swapper_pg_dir = (pgd_entry *)swapper_page;
pgd_entry *boot_page_table = (pgd_entry *)initial_page_table;

void setup_paging(void) {
  PV_CALL_1(mmu, pagetable_setup_start, swapper_pg_dir);
  clone_pgd_range(swapper_pg_dir, boot_page_table, KERNEL_SLOT, 1);
  PV_INLINE_1(mmu, write_cr3, physical(swapper_pg_dir));
  PV_CALL_1(mmu, pagetable_setup_done, swapper_pg_dir);
}
