/*
 * Operations of Xen's that keep all registers but for their result, and its entries. The interrupt flag is a byte of
 * vcpu_info, which this processor has registered in its own struct cpu.
 */
#include "layout.h"

#define PENDING %fs:CPU_XEN_INFO
#define MASK %fs:CPU_XEN_INFO + 1
#define HYPERCALL int $0x82
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
        push %eax
        push %ebx
        push %ecx
        mov $VERSION, %eax
        xor %ebx, %ebx
        xor %ecx, %ecx
        HYPERCALL
        pop %ecx
        pop %ebx
        pop %eax
1:      ret

/* The hypercall takes EAX below what IRET would take. */
        .globl xen_iret
xen_iret:
        push %eax
        mov $IRET, %eax
        HYPERCALL
        ud2

        .globl xen_kept_to_machine, xen_kept_to_physical
xen_kept_to_machine:
        push %ecx
        call xen_entry_to_machine
        pop %ecx
        ret
xen_kept_to_physical:
        push %ecx
        call xen_entry_to_physical
        pop %ecx
        ret

/* A return found a bad segment; this kernel loads none. */
        .globl xen_failsafe_entry
xen_failsafe_entry:
        ud2
