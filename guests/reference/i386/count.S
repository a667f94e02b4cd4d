/*
 * A stand-in for each operation that counts a call and goes on to the operation. It changes no register but the flags, so
 * that it serves every calling convention.
 */
#define MOST_OPERATIONS 128

        .text
        .globl counting
counting:
        .set number, 0
        .rept MOST_OPERATIONS
        .balign 32
        lock incl operation_counts + 4 * number
        jmp *counted_operations + 4 * number
        .set number, number + 1
        .endr

        .bss
        .balign 4
        .globl operation_counts, counted_operations
operation_counts:
        .skip 4 * MOST_OPERATIONS
counted_operations:
        .skip 4 * MOST_OPERATIONS
