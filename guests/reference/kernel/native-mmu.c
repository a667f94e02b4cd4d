#include "apic.h"
#include "memory.h"
#include "native.h"
#include "start.h"

/* Page tables as plain hardware has them: memory that the processor reads. */
#if LEVELS == 3
/* In two halves, so that the entry is never present with one of them wrong. */
void native_set_entry(void *pointer, entry_bits entry) {
  volatile u32 *halves = pointer;
  if (!(entry & PRESENT)) halves[0] = (u32)entry;
  halves[1] = (u32)(entry >> 32);
  halves[0] = (u32)entry;
}
#else
void native_set_entry(void *pointer, entry_bits entry) { *(volatile entry_bits *)pointer = entry; }
#endif

/*
 * The kernel begins on initial_page_table. To begin on swapper_pg_dir, that is what the table in use is called, and the
 * other one gets a copy of what it has for the kernel.
 */
void native_pagetable_setup_start(pgd_entry *base) {
  if (!begins_on_swapper()) return;
  swapper_pg_dir = boot_page_table;
  boot_page_table = base;
  for (u32 slot = KERNEL_SLOT; slot < KERNEL_SLOT + KERNEL_SLOTS; slot++)
    native_set_entry(pgd_at(base, slot), get_pgd(pgd_at(swapper_pg_dir, slot)).value);
#if KERNEL_SLOTS > 1
  place_clone_probe(swapper_pg_dir, base);
#endif
}

/* The kernel's table of pages for devices comes with the upper half. */
void native_pagetable_setup_done(pgd_entry *base) { (void)base; }

u32 native_pgd_alloc(struct memory_descriptor *mm) {
  (void)mm;
  return 0;
}

void native_set_pte_at(struct memory_descriptor *mm, word address, pte_entry *pointer, entry_bits entry) {
  (void)mm, (void)address;
  native_set_entry(pointer, entry);
}
#if LEVELS >= 3
void native_set_pmd(pmd_entry *pointer, entry_bits entry) { native_set_entry(pointer, entry); }
#endif
#if LEVELS >= 4
void native_set_pud(pud_entry *pointer, entry_bits entry) { native_set_entry(pointer, entry); }
#endif
void native_set_pgd(pgd_entry *pointer, entry_bits entry) { native_set_entry(pointer, entry); }
void native_pte_clear(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  (void)mm, (void)address;
  native_set_entry(pointer, 0);
}

/* The entry is taken away meanwhile, so that no processor marks it. */
entry_bits native_ptep_modify_prot_start(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  return get_and_clear(mm, address, pointer).value;
}
void native_ptep_modify_prot_commit(struct memory_descriptor *mm, word address, pte_entry *pointer, entry_bits entry) {
  (void)mm, (void)address;
  native_set_entry(pointer, entry);
}

void *native_set_fixmap(u32 index, entry_bits physical) {
  device_table[index] = physical | PRESENT | WRITABLE | CACHE_DISABLE | WRITE_THROUGH;
  return (void *)(DEVICE_BASE + index * PAGE_SIZE);
}

void native_flush_tlb_user(void) { PV_INLINE_1(mmu, write_cr3, PV_INLINE_0(mmu, read_cr3)); }

/*
 * Each of the others is asked by an interrupt. One that waits for the kernel's lock looks at the request by itself,
 * because it takes no interrupts.
 */
void native_flush_tlb_others(word targets, struct memory_descriptor *mm, word address) {
  (void)mm, (void)address;
  for (u32 number = 0; number < cpu_count; number++) {
    if (!(targets >> number & 1)) continue;
    cpus[number].flush_requested = 1;
    send_flush_interrupt(&cpus[number]);
  }
  for (u32 number = 0; number < cpu_count; number++) {
    while (targets >> number & 1 && cpus[number].flush_requested) {
      answer_flush();
      relax();
    }
  }
}
