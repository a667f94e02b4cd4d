#include "console.h"
#include "memory.h"
#include "native.h"
#include "start.h"

/*
 * Shows whether a change of an entry of the highest table has come to where the processor looks: of two tables, each maps
 * a page of its own at one address. Only where the kernel has several entries of the highest table is one to spare for it.
 */
#if KERNEL_SLOTS > 1
#define PROBE_ADDRESS 0xe0000000
#define PROBE_SLOT (PROBE_ADDRESS >> 22)

static word lower_tables[2][ENTRIES] ALIGNED(PAGE_SIZE);
static u32 is_placed;
static word pages[2][PAGE_SIZE / sizeof(word)] ALIGNED(PAGE_SIZE);

static void place(pgd_entry *table, u32 which) {
  pages[which][0] = which;
  lower_tables[which][0] = physical(pages[which]) | PRESENT | ACCESSED;
  native_set_entry(pgd_at(table, PROBE_SLOT), physical(lower_tables[which]) | TABLE_FLAGS);
}

static u32 probe(void) { return *(volatile u32 *)PROBE_ADDRESS; }

void place_clone_probe(pgd_entry *in_use, pgd_entry *other) {
  place(in_use, 0);
  place(other, 1);
  is_placed = 1;
  if (probe() != 0) panic("the page of the probe is not there");
}

/* The other's entry was copied to the table in use, and the processor has been told to look anew. */
void check_clone_probe(void) {
  if (is_placed && probe() != 1)
    panic("swapper_pg_dir is walked as it was: its entry %u was stored as memory, which takes mmu.set_pgd", (word)PROBE_SLOT);
}
#endif
