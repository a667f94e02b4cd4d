/*
 * Operations of Xen's that keep all registers but rax, and its entries. The interrupt flag is a byte of vcpu_info, which
 * this processor has registered in its own struct cpu.
 */
#include "layout.h"
#include "site-macros.h"

#define PENDING %gs:CPU_XEN_INFO
#define MASK %gs:CPU_XEN_INFO + 1
#define VERSION 17
#define IRET 23

        .text
        .globl xen_save_fl
xen_save_fl:
        movzbl MASK, %eax
        xor $1, %eax
        shl $9, %eax
        ret

        .globl xen_restore_fl
xen_restore_fl:
        test $0x200, %eax
        jnz xen_irq_enable
        /* fall through */
        .globl xen_irq_disable, xen_irq_disable_end
xen_irq_disable:
        movb $1, MASK
xen_irq_disable_end:
        ret

/* What has come meanwhile is delivered by any hypercall; this one does nothing else. */
        .globl xen_irq_enable
xen_irq_enable:
        movb $0, MASK
        cmpb $0, PENDING
        je 1f
        push %rax
        push %rcx
        push %rdx
        push %rsi
        push %rdi
        push %r11
        mov $VERSION, %eax
        xor %edi, %edi
        xor %esi, %esi
        syscall
        pop %r11
        pop %rdi
        pop %rsi
        pop %rdx
        pop %rcx
        pop %rax
1:      ret

/* RCX and R11 lie on top of a frame; patched into its place it is two pops. */
        .globl xen_adjust_exception_frame
xen_adjust_exception_frame:
        mov 8(%rsp), %rcx
        mov 16(%rsp), %r11
        ret $16
        .globl xen_adjust_template, xen_adjust_template_end
xen_adjust_template:
        pop %rcx
        pop %r11
xen_adjust_template_end:

/* The hypercall takes rax, r11, rcx and flags below what IRETQ would take. */
        .globl xen_iret
xen_iret:
        push $0
        push %rcx
        push %r11
        push %rax
        mov $IRET, %eax
        syscall
        ud2

        .macro keeping function
        push %rcx
        push %rdx
        push %rsi
        push %rdi
        push %r8
        push %r9
        push %r10
        push %r11
        mov %rax, %rdi
        call \function
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rdi
        pop %rsi
        pop %rdx
        pop %rcx
        ret
        .endm

        .globl xen_kept_to_machine, xen_kept_to_physical
xen_kept_to_machine:
        keeping xen_entry_to_machine
xen_kept_to_physical:
        keeping xen_entry_to_physical

/* A return found a bad segment; this kernel loads none. */
        .globl xen_failsafe_entry
xen_failsafe_entry:
        ud2
