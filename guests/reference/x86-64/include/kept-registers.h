#pragma once
/* The registers that C expects a function to keep. SAVED_REGISTERS says how many they are. */

        .macro push_kept_registers
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        .endm

        .macro pop_kept_registers
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        .endm
