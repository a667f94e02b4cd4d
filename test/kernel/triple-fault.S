/* An exception without a table of gates: the first fault, the double fault and the third cannot be delivered. */
        .globl _start
_start: lidt none(%rip)
fault:  ud2

        .data
none:   .word 0
        .quad 0

        .section .user, "ax"
