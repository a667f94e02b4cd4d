/*
 * The interrupt flag is a word of the shared data. Operations keep all registers but for a result. Where it is set, calls
 * that waited are told to the host, which looks at the word only when it has something to do.
 */
#include "layout.h"
#include "lguest-abi.h"

        .text
        .globl lguest_save_fl, lguest_save_fl_end
lguest_save_fl:
        mov lguest_data + LGUEST_IRQ_ENABLED, %eax
lguest_save_fl_end:
        ret

        .globl lguest_irq_disable, lguest_irq_disable_end
lguest_irq_disable:
        movl $0, lguest_data + LGUEST_IRQ_ENABLED
lguest_irq_disable_end:
        ret

        .globl lguest_irq_enable
lguest_irq_enable:
        movl $0x200, lguest_data + LGUEST_IRQ_ENABLED
take_pending:
        cmpl $0, lguest_data + LGUEST_IRQ_PENDING
        je 1f
        push %eax
        mov $LGUEST_SEND_INTERRUPTS, %eax
        int $LGUEST_VECTOR
        pop %eax
1:      ret

        .globl lguest_restore_fl
lguest_restore_fl:
        push %eax
        and $0x200, %eax
        mov %eax, lguest_data + LGUEST_IRQ_ENABLED
        pop %eax
        jnz take_pending
        ret

/* Between the word and the return no interrupt may come: the host knows the two addresses. */
        .globl lguest_iret, lguest_noirq_start, lguest_noirq_end
lguest_iret:
        push %eax
        mov 12(%esp), %eax
        and $0x200, %eax
        mov %eax, %ss:lguest_data + LGUEST_IRQ_ENABLED
lguest_noirq_start:
        pop %eax
        iret
lguest_noirq_end:
