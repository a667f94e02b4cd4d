/* Entries by exception, interrupt and system call, and the way back; the switch between stacks. */
#include "kept-registers.h"
#include "layout.h"
#include "site-macros.h"

        .text
        .macro vector number, error=0
        .balign 16
vector_\number:
        site irq, adjust_exception_frame, 0, call
        .if \error == 0
        push $0
        .endif
        push $\number
        jmp enter
        .endm

        .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 9, 15, 16, 18, 19, 20
        vector \number
        .endr
        .irp number, 8, 10, 11, 12, 13, 14, 17, 21
        vector \number, 1
        .endr
        .irp number, 0x20, 0x21, 0x22, 0x80, 0xff
        vector \number
        .endr

/* A frame on the stack, cpu.h's from `vector` on. */
enter:
        push %rdi
        push %rsi
        push %rdx
        push %rcx
        push %rax
        push %r8
        push %r9
        push %r10
        push %r11
        push_kept_registers
        cld
        testb $3, 0x90(%rsp)            /* cs */
        jz 1f
        site cpu, swapgs, 0, call, swapgs
1:      mov %rsp, %rdi
        call handle_trap
leave:
        testb $3, 0x90(%rsp)
        jz 1f
        site cpu, swapgs, 0, call, swapgs
1:      pop_kept_registers
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rax
        pop %rcx
        pop %rdx
        pop %rsi
        pop %rdi
        add $16, %rsp
        site cpu, iret, 0, jmp, iretq

/* Where a process that never ran goes on: the frame that its creator made is on the stack. */
        .globl return_to_user
return_to_user:
        call unlock_kernel
        jmp leave

/* Saves the registers that C keeps and goes on with another stack. RDI: where to leave this one's. RSI: the other. */
        .globl switch_stacks
switch_stacks:
        push_kept_registers
        mov %rsp, (%rdi)
        mov %rsi, %rsp
        pop_kept_registers
        ret

        .section .rodata
        .balign 8
        .globl vectors, vectors_end
vectors:
        .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 0x20, 0x21, 0x22, 0x80, 0xff
        .quad \number, vector_\number
        .endr
vectors_end:
