/*
 * A 32-bit kernel without paging that tries what a processor does between its rings, modes and tasks, and prints what it
 * sees on the serial port, a line each: a name and numbers in hexadecimal. It is entered as Linux is, in flat 32-bit mode.
 * The header in front lets other machines load it too (Multiboot specification 0.6.96, 3.1).
 */
        .set SERIAL, 0x3f8
        .set POWER, 0x600
        .set KERNEL_CODE, 0x08
        .set KERNEL_DATA, 0x10
        .set USER_CODE, 0x1b
        .set USER_DATA, 0x23
        .set TASK, 0x28
        .set OTHER_TASK, 0x30
        .set CALL_GATE, 0x38 + 3
        .set TASK_GATE, 0x40
        .set CODE_16, 0x48
        .set DATA_16, 0x50
        .set ABSENT, 0x58
        .set READ_ONLY, 0x60
        .set NEAR_CODE, 0x68            /* begins with the kernel, for a gate whose offset has 16 bits */
        .set USER_STACK, 0x300000
        .set REAL, 0x8000               /* where code of real and virtual-8086 mode is copied to */

        .code32
        .text
text:   .balign 4
        .long 0x1badb002, 0, -0x1badb002

        .macro line name
        mov $9f, %esi
        call print
        .section .rodata
9:      .asciz "\name"
        .text
        .endm

        .macro show value
        mov \value, %eax
        call print_number
        .endm

        .macro end
        mov $'\n', %al
        call print_byte
        .endm

        /* The next exception or interrupt is shown under a name, with the distance of its EIP from a label, and goes on at 8. */
        .macro expect name, label
        mov $9f, %eax
        mov %eax, name
        .section .rodata
9:      .asciz "\name"
        .text
        movl $\label, place
        movl $8f, resume
        mov %esp, resume_stack
        .endm

        .globl _start
_start: mov $boot_stack_top, %esp
        lgdt gdt_pointer
        ljmp $KERNEL_CODE, $1f
1:      mov $KERNEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %fs
        mov %eax, %gs
        mov %eax, %ss
        call fill_idt
        lidt idt_pointer
        mov $task_state, %eax
        mov $gdt + TASK, %edi
        call set_base
        mov $other_state, %eax
        mov $gdt + OTHER_TASK, %edi
        call set_base
        mov $text, %eax
        mov $gdt + NEAR_CODE, %edi
        call set_base
        mov $called, %eax
        mov %ax, gdt + CALL_GATE - 3
        shr $16, %eax
        mov %ax, gdt + CALL_GATE - 3 + 6
        mov $TASK, %eax
        ltr %ax
        mov $real_code, %esi
        mov $REAL, %edi
        mov $real_code_end - real_code, %ecx
        rep movsb

/* Gates in ring 0 */
        expect breakpoint, breakpoint+1
breakpoint:
        int3
8:
        expect bad_selector, bad_selector
        mov $0x78, %eax
bad_selector:
        mov %eax, %ds
8:
        expect absent, absent
        mov $ABSENT, %eax
absent: mov %eax, %es
8:
        expect read_only_stack, read_only_stack
        mov $READ_ONLY, %eax
read_only_stack:
        mov %eax, %ss
8:
        expect gate_16, gate_16+2
gate_16:
        int $0x62
8:
        expect absent_gate, absent_gate
absent_gate:
        int $0x64
8:

/* Ring 3 */
        .macro user entry
        pushl $USER_DATA
        pushl $USER_STACK
        pushl $0x2
        pushl $USER_CODE
        pushl $\entry
        iret
        .endm

        expect user_call, user_call+2
        user user_call
8:
        expect user_privileged, user_privileged
        user user_privileged
8:
        expect user_kernel_gate, user_kernel_gate
        user user_kernel_gate
8:
        expect user_returns, user_returned
        user user_gate
8:
        mov $0x174, %ecx
        mov $KERNEL_CODE, %eax
        xor %edx, %edx
        wrmsr
        mov $0x175, %ecx
        mov $kernel_stack_top, %eax
        wrmsr
        mov $0x176, %ecx
        mov $system_enter, %eax
        wrmsr
        expect sysexit, user_entered
        user user_enter
8:

/* Tasks */
        call load_data
        .macro back name
        mov %eax, seen
        line \name
        show seen
        end
        .endm

        int $0x63
        back task_interrupt
        lcall $OTHER_TASK, $0
        back task_call
        ljmp $TASK_GATE, $0
        back task_jump
        line task_flags
        pushf
        pop %eax
        and $0x4000, %eax
        call print_number
        mov %cr0, %eax
        and $8, %eax
        call print_number
        clts
        end
        /* A double fault: the interrupt's own gate is beyond the table, and so is that of the fault. */
        lidt short_idt_pointer
        movl $other_double, other_state + 0x20
double: int3
double_done:
        lidt idt_pointer

/* Virtual-8086 mode */
        .macro virtual entry, flags
        pushl $0x1111                   /* GS, FS, DS, ES */
        pushl $0x2222
        pushl $REAL / 16
        pushl $0x3333
        pushl $REAL / 16
        pushl $0x700
        pushl $(0x20002 | \flags)
        pushl $REAL / 16
        pushl $(\entry - real_code)
        iret
        .endm

        expect virtual_call, virtual_call+2-real_code
        virtual virtual_call, 0x3000
8:      call show_virtual
        expect virtual_refused, virtual_call-real_code
        virtual virtual_call, 0
8:      call show_virtual
        expect virtual_pushf, virtual_flags-real_code
        virtual virtual_flags, 0
8:      call show_virtual
        expect virtual_iret, virtual_returned+2-real_code
        virtual virtual_return, 0x3000
8:      call show_virtual

/* Real mode, by way of 16-bit segments; its table of interrupts is at 0. */
        movl $(REAL / 16 << 16) | (real_interrupt - real_code), 0x40 * 4
        lidt real_idt_pointer
        ljmp $CODE_16, $(real_enter - real_code)
real_back:
        mov $KERNEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $boot_stack_top, %esp
        lidt idt_pointer
        line real
        movzwl REAL + real_seen - real_code, %eax
        call print_number
        movzwl REAL + real_flags - real_code, %eax
        and $0x200, %eax
        call print_number
        movzwl REAL + real_stack - real_code, %eax
        call print_number
        end

/* Questions */
        line lar
        mov $0, %eax
        lar user_data_selector, %eax
        call print_number
        mov $TASK, %ecx
        lar %ecx, %eax
        call print_number
        mov $CALL_GATE, %ecx
        lsl %ecx, %eax
        setz %al
        movzbl %al, %eax
        call print_number
        lsl user_data_selector, %eax
        call print_number
        mov $READ_ONLY, %ecx
        verw %cx
        setz %al
        movzbl %al, %eax
        call print_number
        end

        mov $POWER, %edx
        mov $0x34, %al                  /* SLP_EN, SLP_TYP 5 */
        out %al, %dx
1:      hlt
        jmp 1b

        .code16
real_code:
real_enter:
        mov $DATA_16, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov %cr0, %eax
        and $~1, %eax
        mov %eax, %cr0
        ljmp $REAL / 16, $(1f - real_code)
1:      mov %cs, %ax
        mov %ax, %ds
        mov %ax, %ss
        mov $0x800, %sp
        sti
        int $0x40
        mov %ax, real_seen - real_code
        mov %sp, real_stack - real_code
        cli
        lgdtl gdt_again - real_code
        mov %cr0, %eax
        or $1, %eax
        mov %eax, %cr0
        ljmpl $KERNEL_CODE, $real_back
real_interrupt:
        pushf
        pop %ax
        mov %ax, real_flags - real_code
        mov $0x5a5a, %ax
        iret
virtual_call:
        int $0x61
virtual_flags:
        pushf
virtual_return:
        pushw $0x3002
        push %cs
        pushw $(virtual_returned - real_code)
        iret
        nop
virtual_returned:
        int $0x61
gdt_again:
        .word gdt_pointer - gdt - 1
        .long gdt
real_seen:
        .word 0
real_flags:
        .word 0
real_stack:
        .word 0
real_code_end:
        .code32

/* Entered by the call gate with two parameters. */
called: call load_data
        line gate
        show 8(%esp)
        show 12(%esp)
        show 4(%esp)
        mov $kernel_stack_top, %eax
        sub %esp, %eax
        call print_number
        end
        lret $8

system_enter:
        call load_data
        line sysenter
        mov %cs, %eax
        call print_number
        mov %ss, %eax
        call print_number
        mov $kernel_stack_top, %eax
        sub %esp, %eax
        call print_number
        end
        mov $user_entered_call, %edx
        mov $USER_STACK - 8, %ecx
        sysexit

/* The other task: says where it came from, and returns or jumps back. */
other_entry:
        line other
        show other_state                /* the link */
        pushf
        pop %eax
        and $0x4000, %eax
        call print_number
        show %ebp
        end
        incl other_count
        movl other_count, %eax
        mov %eax, task_state + 0x28     /* EAX of the task that is left */
        pushf
        testl $0x4000, (%esp)
        lea 4(%esp), %esp
        jnz 1f
        ljmp $TASK, $0
1:      iret
        jmp other_entry
other_double:
        pop %ecx                        /* the error code */
        line double
        show %ecx
        mov task_state + 0x20, %eax
        sub $double, %eax
        call print_number
        end
        movl $double_done, task_state + 0x20
        iret

/* What handlers leave: vector, error code (-1 for none) and the frame. */
handle: cld
        call load_data
        pop seen
        pop seen + 4
        mov (%esp), %eax
        mov %eax, seen + 8
        mov 4(%esp), %eax
        mov %eax, seen + 12
        mov 8(%esp), %eax
        mov %eax, seen + 16
        mov %esp, frame
        /* Behind the flags, for entries from outer rings and from virtual-8086 mode. */
        mov %esp, %esi
        add $12, %esi
        mov $outer, %edi
        mov $6, %ecx
        cmp $kernel_stack_top - 0x1000, %esp
        jb 2f
        cmp $kernel_stack_top, %esp
        ja 2f
        rep movsl
2:      mov resume_stack, %esp
        mov %ss, %eax
        mov %eax, seen + 20
        mov $KERNEL_DATA, %eax
        mov %eax, %ss
        mov name, %esi
        call print
        show seen
        show seen + 4
        mov seen + 8, %eax
        sub place, %eax
        call print_number
        show seen + 12
        mov seen + 16, %eax
        and $0x33300, %eax
        call print_number
        show seen + 20
        mov $kernel_stack_top, %eax
        sub frame, %eax
        cmp $0x1000, %eax
        ja 1f
        call print_number
        show outer
        show outer + 4
1:      end
        jmp *resume

/* Returns to an outer ring leave null selectors. */
load_data:
        mov $KERNEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        ret

/* A gate of 16 bits: a frame of three words. */
handle_16:
        ljmp $KERNEL_CODE, $1f
1:
        mov resume_stack, %eax
        sub %esp, %eax
        mov %eax, seen
        movzwl (%esp), %eax
        movzwl %ax, %ecx
        mov place, %eax
        movzwl %ax, %eax
        sub %eax, %ecx
        mov %ecx, seen + 4
        movzwl 2(%esp), %eax
        mov %eax, seen + 8
        mov resume_stack, %esp
        mov name, %esi
        call print
        show seen
        show seen + 4
        show seen + 8
        end
        jmp *resume

/* ES, DS, FS, GS of virtual-8086 mode, and what the entry left in them */
show_virtual:
        line segments
        show outer + 8
        show outer + 12
        show outer + 16
        show outer + 20
        mov %fs, %eax
        call print_number
        mov %gs, %eax
        call print_number
        end
        ret

/* EDI: a descriptor, EAX: its base */
set_base:
        mov %ax, 2(%edi)
        shr $16, %eax
        mov %al, 4(%edi)
        mov %ah, 7(%edi)
        ret

/* Gates of ring 0 for all vectors, and those that differ. */
fill_idt:
        mov $stubs, %eax
        mov $idt, %edi
        xor %ecx, %ecx
1:      mov %ax, (%edi)
        movw $KERNEL_CODE, 2(%edi)
        movw $0x8e00, 4(%edi)
        mov %eax, %edx
        shr $16, %edx
        mov %dx, 6(%edi)
        add $16, %eax
        add $8, %edi
        inc %ecx
        cmp $0x70, %ecx
        jb 1b
        movw $0xee00, idt + 0x61 * 8 + 4
        movw $(handle_16 - text), idt + 0x62 * 8
        movw $NEAR_CODE, idt + 0x62 * 8 + 2
        movw $0, idt + 0x62 * 8 + 6
        movw $0x8600, idt + 0x62 * 8 + 4
        movw $OTHER_TASK, idt + 0x63 * 8 + 2
        movw $0x8500, idt + 0x63 * 8 + 4
        movw $0x0e00, idt + 0x64 * 8 + 4
        movw $OTHER_TASK, idt + 8 * 8 + 2
        movw $0x8500, idt + 8 * 8 + 4
        ret

        .balign 16
stubs:  .set vector, 0
        .rept 0x70
        .balign 16
        .if vector != 8 && vector != 10 && vector != 11 && vector != 12 && vector != 13 && vector != 14 && vector != 17
        pushl $-1
        .endif
        pushl $vector
        jmp handle
        .set vector, vector + 1
        .endr

#include "serial-print.S"

        .data
        .balign 16
gdt:    .quad 0
        .quad 0x00cf9a000000ffff        /* kernel code, kernel data */
        .quad 0x00cf92000000ffff
        .quad 0x00cffa000000ffff        /* user code, user data */
        .quad 0x00cff2000000ffff
        .quad 0x0000890000000067        /* tasks */
        .quad 0x0000890000000067
        .quad 0x0000ec0200080000        /* call gate for ring 3 with two parameters */
        .quad 0x0000850000300000        /* task gate */
        .quad 0x00009a008000ffff        /* code and data of 16 bits, based at REAL */
        .quad 0x000092008000ffff
        .quad 0x00cf12000000ffff        /* absent */
        .quad 0x00cf90000000ffff        /* read-only */
        .quad 0x00cf9a000000ffff        /* near code; its base comes later */
gdt_pointer:
        .word gdt_pointer - gdt - 1
        .long gdt
idt_pointer:
        .word 0x70 * 8 - 1
        .long idt
short_idt_pointer:
        .word 9 * 8 - 1
        .long short_idt
real_idt_pointer:
        .word 0x3ff
        .long 0
user_data_selector:
        .long USER_DATA
        .balign 16
/* Only the double fault has a gate that is present. */
short_idt:
        .fill 8, 8, 0
        .word 0, OTHER_TASK, 0x8500, 0
name:   .long 0
place:  .long 0
resume: .long 0
resume_stack:
        .long 0
frame:  .long 0
seen:   .fill 6, 4, 0
outer:  .fill 6, 4, 0
other_count:
        .long 0x70
        .balign 16
task_state:
        .long 0, kernel_stack_top, KERNEL_DATA
        .fill 0x68 - 12, 1, 0
        .balign 16
other_state:
        .long 0, 0, 0, 0, 0, 0, 0
        .long 0                         /* CR3 */
        .long other_entry, 2            /* EIP, EFLAGS */
        .long 0, 0, 0, 0, other_stack_top, 0x55aa, 0, 0
        .long KERNEL_DATA, KERNEL_CODE, KERNEL_DATA, KERNEL_DATA, KERNEL_DATA, KERNEL_DATA, 0
        .long 0x680000

        .bss
        .balign 16
idt:    .fill 0x70, 8, 0
        .fill 4096, 1, 0
boot_stack_top:
        .fill 4096, 1, 0
kernel_stack_top:
        .fill 4096, 1, 0
other_stack_top:

        .section .user, "ax"
user_call:
        int $0x61
user_privileged:
        cli
user_kernel_gate:
        int $0x60
user_gate:
        pushl $0x1234
        pushl $0x5678
        lcall $CALL_GATE, $0
user_returned_from_gate:
        cmp $USER_STACK, %esp
        jne 1f
        int $0x61
user_returned:
1:      ud2
user_enter:
        sysenter
user_entered_call:
        int $0x61
user_entered:
