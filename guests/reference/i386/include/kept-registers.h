#pragma once
/* The registers that C expects a function to keep. SAVED_REGISTERS says how many they are. */

        .macro push_kept_registers
        push %ebx
        push %ebp
        push %esi
        push %edi
        .endm

        .macro pop_kept_registers
        pop %edi
        pop %esi
        pop %ebp
        pop %ebx
        .endm
