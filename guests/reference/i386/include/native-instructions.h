#pragma once
#include "layout.h"

/*
 * What operations are on plain hardware, where that is an instruction or two. A kernel without paravirtualization has
 * these at the places of its call sites; a patched one has them there too, with no-ops behind.
 */
#define NATIVE_save_fl "pushfl\n\tpopl %%eax"
#define NATIVE_restore_fl "pushl %%eax\n\tpopfl"
#define NATIVE_irq_disable "cli"
#define NATIVE_irq_enable "sti"
#define NATIVE_safe_halt "sti\n\thlt"
#define NATIVE_halt "hlt"
#define NATIVE_iret "iretl"
#define NATIVE_read_tsc "rdtsc"
#define NATIVE_read_cr2 "movl %%cr2, %%eax"
#define NATIVE_read_cr3 "movl %%cr3, %%eax"
#define NATIVE_write_cr3 "movl %%eax, %%cr3"
#define NATIVE_flush_tlb_single "invlpg (%%eax)"
#define NATIVE_pte_val ""
#define NATIVE_pmd_val ""
#define NATIVE_pgd_val ""
#define NATIVE_make_pte ""
#define NATIVE_make_pmd ""
#define NATIVE_make_pgd ""
#define NATIVE_get_pte "movl 4(%%eax), %%edx\n\tmovl (%%eax), %%eax"
#define NATIVE_get_pmd NATIVE_get_pte
#define NATIVE_get_pgd NATIVE_get_pte

#if LEVELS == 3
/* Two loads, of three bytes and of two. */
#define NATIVE_READS(X) X(mmu, get_pte) X(mmu, get_pmd) X(mmu, get_pgd)
#define NATIVE_PMD_INSTRUCTIONS(X) X(mmu, pmd_val) X(mmu, make_pmd) NATIVE_READS(X)
#else
#define NATIVE_PMD_INSTRUCTIONS(X)
#endif

#define NATIVE_INSTRUCTIONS(X) \
  X(irq, save_fl) X(irq, restore_fl) X(irq, irq_disable) X(irq, irq_enable) X(irq, safe_halt) X(irq, halt) \
  X(cpu, iret) X(cpu, read_tsc) \
  X(mmu, read_cr2) X(mmu, read_cr3) X(mmu, write_cr3) X(mmu, flush_tlb_single) \
  X(mmu, pte_val) X(mmu, pgd_val) X(mmu, make_pte) X(mmu, make_pgd) NATIVE_PMD_INSTRUCTIONS(X)
