/* Attempts that may end by an exception: see hostile.h. */
#ifdef PARAVIRT
#include "kept-registers.h"
#include "layout.h"

        .text
/* RDI: what is attempted, a function. Result as hostile.h has it. */
        .globl hostile_attempt
hostile_attempt:
        push_kept_registers
        mov %rsp, hostile_stack
        movl $1, hostile_is_expected
        call *%rdi
        xor %eax, %eax
1:      movl $0, hostile_is_expected
        pop_kept_registers
        ret

        .globl hostile_landing
hostile_landing:
        mov hostile_stack, %rsp
        mov hostile_exception, %eax
        jmp 1b

/* Into a program, to an address in RDI. It does not return. */
        .globl hostile_enter_program
hostile_enter_program:
        pushq $USER_DATA
        pushq $0
        pushq $2
        pushq $USER_CODE
        push %rdi
        swapgs
        iretq
#endif
