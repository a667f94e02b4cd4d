#pragma once

/*
 * What operations are on plain hardware, where that is an instruction or two. A kernel without paravirtualization has
 * these at the places of its call sites; a patched one has them there too, with no-ops behind.
 */
#define NATIVE_save_fl "pushfq\n\tpopq %%rax"
#define NATIVE_restore_fl "pushq %%rax\n\tpopfq"
#define NATIVE_irq_disable "cli"
#define NATIVE_irq_enable "sti"
#define NATIVE_safe_halt "sti\n\thlt"
#define NATIVE_halt "hlt"
#define NATIVE_adjust_exception_frame ""
#define NATIVE_swapgs "swapgs"
#define NATIVE_iret "iretq"
#define NATIVE_read_tsc "rdtsc\n\tshlq $32, %%rdx\n\torq %%rdx, %%rax"
#define NATIVE_read_cr2 "movq %%cr2, %%rax"
#define NATIVE_read_cr3 "movq %%cr3, %%rax"
#define NATIVE_write_cr3 "movq %%rdi, %%cr3"
#define NATIVE_flush_tlb_single "invlpg (%%rdi)"
#define NATIVE_pte_val ""
#define NATIVE_pmd_val ""
#define NATIVE_pud_val ""
#define NATIVE_pgd_val ""
#define NATIVE_make_pte ""
#define NATIVE_make_pmd ""
#define NATIVE_make_pud ""
#define NATIVE_make_pgd ""

#define NATIVE_INSTRUCTIONS(X) \
  X(irq, save_fl) X(irq, restore_fl) X(irq, irq_disable) X(irq, irq_enable) X(irq, safe_halt) X(irq, halt) \
  X(irq, adjust_exception_frame) X(cpu, swapgs) X(cpu, iret) X(cpu, read_tsc) \
  X(mmu, read_cr2) X(mmu, read_cr3) X(mmu, write_cr3) X(mmu, flush_tlb_single) \
  X(mmu, pte_val) X(mmu, pmd_val) X(mmu, pud_val) X(mmu, pgd_val) \
  X(mmu, make_pte) X(mmu, make_pmd) X(mmu, make_pud) X(mmu, make_pgd)
