/* Entries by exception, interrupt and system call, and the way back; the switch between stacks. */
#include "kept-registers.h"
#include "layout.h"
#include "site-macros.h"

        .text
        .macro vector number, error=0
        .balign 16
vector_\number:
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

/*
 * A frame on the stack, registers.h's from `vector` on. Programs have flat segments too; the way back to them takes away
 * what FS held.
 */
enter:
        push %edi
        push %esi
        push %edx
        push %ecx
        push %eax
        push %ebx
        push %ebp
        mov $CPU_DATA, %eax
        mov %eax, %fs
        cld
        mov %esp, %eax
        call handle_trap
leave:
        pop %ebp
        pop %ebx
        pop %eax
        pop %ecx
        pop %edx
        pop %esi
        pop %edi
        add $8, %esp
        site cpu, iret, 0, jmp, iretl

/* Where a process that never ran goes on: the frame that its creator made is on the stack. */
        .globl return_to_user
return_to_user:
        call unlock_kernel
        jmp leave

/* Saves the registers that C keeps and goes on with another stack. EAX: where to leave this one's. EDX: the other. */
        .globl switch_stacks
switch_stacks:
        push_kept_registers
        mov %esp, (%eax)
        mov %edx, %esp
        pop_kept_registers
        ret

        .section .rodata
        .balign 8
        .globl vectors, vectors_end
vectors:
        .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 0x20, 0x21, 0x22, 0x80, 0xff
        .long \number, vector_\number
        .endr
vectors_end:
