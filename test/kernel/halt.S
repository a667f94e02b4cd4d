/* Stops for good: with interrupts off nothing wakes a processor. */
        .globl _start
_start: cli
1:      hlt
        jmp 1b

        .section .user, "ax"
