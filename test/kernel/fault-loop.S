/* A handler that is itself an undefined instruction, on a stack that begins anew each time: no instruction ever completes. */
        .globl _start
_start: lea stack(%rip), %rax
        mov %rax, task_state + 0x24(%rip)
        lea task_state(%rip), %rax
        mov %ax, task + 2(%rip)
        shr $16, %rax
        mov %al, task + 4(%rip)
        mov %ah, task + 7(%rip)
        lgdt gdt_pointer(%rip)
        mov $0x20, %eax
        ltr %ax
        lea handler(%rip), %rax
        mov %ax, gate(%rip)
        shr $16, %rax
        mov %ax, gate + 6(%rip)
        lidt idt_pointer(%rip)
handler:
        ud2

        .data
        .balign 16
gdt:    .quad 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff
task:   .quad 0x0000890000000067, 0
gdt_pointer:
        .word . - gdt - 1
        .quad gdt
idt:    .fill 6 * 16, 1, 0
gate:   .word 0, 0x10, 0x8e01, 0
        .quad 0
idt_pointer:
        .word idt_pointer - idt - 1
        .quad idt
        .balign 16
task_state:
        .fill 0x68, 1, 0
        .fill 256, 1, 0
stack:

        .section .user, "ax"
