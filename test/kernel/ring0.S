/*
 * A kernel that tries what a processor does between its rings and prints what it sees on the serial port, a line each:
 * a name and numbers in hexadecimal. It is entered as Linux is, in 64-bit mode with the lowest 4 GiB mapped one to one.
 */
        .set SERIAL, 0x3f8
        .set POWER, 0x600
        .set APIC, 0xfee00000
        .set KERNEL_CODE, 0x08
        .set KERNEL_DATA, 0x10
        .set USER_CODE_32, 0x1b
        .set USER_DATA, 0x23
        .set USER_CODE, 0x2b
        .set TASK, 0x30
        .set USER_STACK, 0x300000

        .macro line name
        lea 9f(%rip), %rsi
        call print
        .section .rodata
9:      .asciz "\name"
        .text
        .endm

        .macro show value
        mov \value, %rax
        call print_number
        .endm

        .macro end
        mov $'\n', %al
        call print_byte
        .endm

        /* Expects the exception or interrupt of a vector: the handler leaves what it saw in `seen` and goes to 8. */
        .macro expect
        lea 8f(%rip), %rax
        mov %rax, resume(%rip)
        mov %rsp, resume_stack(%rip)
        .endm

        .text
        .globl _start
_start:
        lea boot_stack_top(%rip), %rsp
        mov $APIC, %r15d                /* all along */
        lgdt gdt_pointer(%rip)
        mov $KERNEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        pushq $KERNEL_CODE
        lea 1f(%rip), %rax
        push %rax
        lretq
1:      call fill_idt
        lidt idt_pointer(%rip)
        /* The base of a TSS is scattered over its descriptor. */
        lea task_state(%rip), %rax
        lea gdt_task(%rip), %rdi
        mov %ax, 2(%rdi)
        shr $16, %rax
        mov %al, 4(%rdi)
        mov %ah, 7(%rdi)
        mov $TASK, %eax
        ltr %ax
        call map_user
        /* Floating point is no subject here; system calls are. */
        mov $0xc0000080, %ecx
        rdmsr
        or $1, %eax
        wrmsr
        mov $0xc0000081, %ecx
        xor %eax, %eax
        mov $(KERNEL_CODE | (USER_CODE_32 - 3) << 16), %edx
        wrmsr
        mov $0xc0000082, %ecx
        lea system_call(%rip), %rax
        mov %rax, %rdx
        shr $32, %rdx
        wrmsr
        mov $0xc0000084, %ecx
        mov $0x700, %eax
        xor %edx, %edx
        wrmsr
        mov $0x174, %ecx
        mov $KERNEL_CODE, %eax
        xor %edx, %edx
        wrmsr
        mov $0x175, %ecx
        lea kernel_stack_top(%rip), %rax
        wrmsr
        mov $0x176, %ecx
        lea system_enter(%rip), %rax
        wrmsr
        movl $0x1ff, 0xf0(%r15)

/* Exceptions in ring 0 */
        expect
undefined:
        ud2
8:      call show_seen

        expect
        mov $0x78, %eax
bad_selector:
        mov %eax, %ds
8:      call show_seen

        mov %cr0, %rax
        or $0x10000, %rax
        mov %rax, %cr0
        expect
write_protected:
        movb $0, 0x400000
8:      call show_seen

        expect
not_mapped:
        mov 0x500123, %al
8:      call show_seen

        expect
        mov $0x8000000000000000, %rax
not_canonical:
        mov (%rax), %al
8:      call show_seen

        expect
        mov $0x1234, %ecx
no_register:
        rdmsr
8:      call show_seen

        expect
        mov %cr4, %rax
        or $0x100000, %rax
bad_control_write:
        mov %rax, %cr4
8:      call show_seen

        expect
        int3
breakpoint:
        nop
8:      call show_seen

        pushfq
        orq $0x100, (%rsp)
        expect
        popfq
        nop
single_step:
        nop
8:      call show_seen

        expect
        int $0x60
gate_stack:
        nop
8:      call show_seen

/* A fault that cannot be delivered is a double fault; its gate has a stack of its own. */
        lidt short_idt_pointer(%rip)
        expect
double_fault:
        mov 0x500123, %al
8:      lidt idt_pointer(%rip)
        call show_seen

/* Ring 3 */
        .macro user code, entry
        expect
        pushq $USER_DATA
        pushq $USER_STACK
        pushq $0x202
        pushq $\code
        pushq $\entry
        iretq
        .endm

        user USER_CODE, user_64
8:      call show_seen
        user USER_CODE, user_privileged
8:      call show_seen
        user USER_CODE, user_kernel_gate
8:      call show_seen
        user USER_CODE, user_kernel_page
8:      call show_seen
        user USER_CODE, user_port_allowed
8:      call show_seen
        user USER_CODE, user_port_refused
8:      call show_seen
        user USER_CODE_32, user_32
8:      call show_seen

        user USER_CODE, user_system_call
8:      line "syscall"
        show call_flags(%rip)
        show call_return(%rip)
        show call_stack_segment(%rip)
        end

        user USER_CODE_32, user_system_enter
8:      line "sysenter"
        show call_flags(%rip)
        show call_return(%rip)
        show call_stack_segment(%rip)
        end

/* Interrupts */
        lea interrupt_while_off(%rip), %rax
        call set_gate_interrupt
        xor %ebx, %ebx
        cli
        movl $0x40080, 0x300(%r15)     /* vector 0x80 to itself */
        inc %ebx
        sti
        inc %ebx
        inc %ebx
        line "shadow"
        show interrupted_at(%rip)
        end

        xor %ebx, %ebx
        cli
        movl $0x40080, 0x300(%r15)
        pushq $0x202
        inc %ebx
        popfq
        inc %ebx
        line "popf"
        show interrupted_at(%rip)
        end

        cli
        movl $0x80, 0x320(%r15)        /* one shot */
        movl $0xb, 0x3e0(%r15)
        movl $1000000, 0x380(%r15)
        xor %ebx, %ebx
        sti
        hlt
        cli
        line "halt"
        show interrupted_at(%rip)
        end

        movl $0x80, 0x80(%r15)         /* task priority of the vector's class */
        movl $0x40080, 0x300(%r15)
        movq $-1, interrupted_at(%rip)
        mov $1, %ebx
        sti
        nop
        nop
        mov $2, %ebx
        movl $0, 0x80(%r15)
        nop
        cli
        line "priority"
        show interrupted_at(%rip)
        end

        line "swapgs"
        mov $0xc0000101, %ecx
        mov $0x1111, %eax
        xor %edx, %edx
        wrmsr
        mov $0xc0000102, %ecx
        mov $0x2222, %eax
        wrmsr
        swapgs
        mov $0xc0000101, %ecx
        rdmsr
        call print_number
        mov $0xc0000102, %ecx
        rdmsr
        call print_number
        end

/* Another processor, when there is one: real mode, then a word in memory. */
        movl $1000000, 0x380(%r15)
        mov $start_code, %esi
        mov $0x8000, %edi
        mov $start_code_end - start_code, %ecx
        rep movsb
        movw $0, 0x8800
        movl $0x01000000, 0x310(%r15)
        movl $0x4500, 0x300(%r15)
        movl $0x01000000, 0x310(%r15)
        movl $0x4608, 0x300(%r15)
        mov $1000, %ecx
2:      pause
        cmpw $0, 0x8800
        jne 3f
        loop 2b
3:      line "second"
        movzwl 0x8800, %eax
        call print_number
        end

        mov $POWER, %edx
        mov $0x34, %al                  /* SLP_EN, SLP_TYP 5 */
        out %al, %dx
1:      hlt
        jmp 1b

        .code16
start_code:
        mov %cs, %ax
        mov %ax, %ds
        movw %ax, 0x800
1:      hlt
        jmp 1b
start_code_end:
        .code64

/* What handlers leave: vector, error code (-1 for none), RIP, CS, flags, the stack pointer of the frame's place. */
handle:
        pop %rax
        mov %rax, seen(%rip)
        pop %rax
        mov %rax, seen + 8(%rip)
        mov %rsp, %rax
        mov %rax, seen + 40(%rip)
        mov (%rsp), %rax
        mov %rax, seen + 16(%rip)
        mov 8(%rsp), %rax
        mov %rax, seen + 24(%rip)
        mov 16(%rsp), %rax
        mov %rax, seen + 32(%rip)
        mov %ss, %eax
        mov %rax, seen + 48(%rip)
        mov resume_stack(%rip), %rsp
        jmp *resume(%rip)

show_seen:
        line "exception"
        show seen(%rip)
        show seen + 8(%rip)
        mov seen + 16(%rip), %rax
        call print_place
        show seen + 24(%rip)
        mov seen + 32(%rip), %rax
        and $0x10300, %eax
        call print_number
        mov seen + 40(%rip), %rax
        call print_stack
        show seen + 48(%rip)
        mov %cr2, %rax
        call print_number
        xor %eax, %eax
        mov %rax, %cr2
        mov %dr6, %rax
        and $0xe00f, %eax
        call print_number
        mov $0xffff0ff0, %eax
        mov %rax, %dr6
        end
        mov $KERNEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %ss
        ret

/* The instruction that did it, by the distance from the label in front: names stand in a table. */
print_place:
        push %rbx
        lea places(%rip), %rdi
1:      mov (%rdi), %rbx
        test %rbx, %rbx
        jz 2f
        cmp %rbx, %rax
        je 3f
        add $16, %rdi
        jmp 1b
3:      mov 8(%rdi), %rsi
        call print
        pop %rbx
        ret
2:      call print_number
        pop %rbx
        ret

        .macro place name
        .quad \name
        .quad 7f
        .pushsection .rodata.names
7:      .asciz " \name"
        .popsection
        .endm
        .section .rodata
        .balign 8
places: place undefined
        place bad_selector
        place write_protected
        place not_mapped
        place not_canonical
        place no_register
        place breakpoint
        place single_step
        place gate_stack
        place bad_control_write
        place double_fault
        place user_64_call
        place user_kernel_gate
        place user_kernel_page_access
        place user_port_refused_access
        place user_32_call
        place user_port_done
        .quad 0
        .text

/* Which stack a frame stands on, and where from its top. */
print_stack:
        lea kernel_stack_top(%rip), %rbx
        sub %rax, %rbx
        cmp $0x1000, %rbx
        jb 1f
        lea gate_stack_top(%rip), %rbx
        sub %rax, %rbx
        cmp $0x1000, %rbx
        jb 2f
        lea 3f(%rip), %rsi
        jmp print
1:      lea 4f(%rip), %rsi
        call print
        jmp 5f
2:      lea 6f(%rip), %rsi
        call print
5:      mov %rbx, %rax
        jmp print_number
        .section .rodata
3:      .asciz " same"
4:      .asciz " kernel"
6:      .asciz " gate"
        .text

system_call:
        mov %r11, call_flags(%rip)
        pushfq
        pop %rax
        and $0x700, %eax
        shl $32, %rax
        or %rax, call_flags(%rip)
        lea user_called(%rip), %rax
        sub %rcx, %rax
        mov %rax, call_return(%rip)
        mov %ss, %eax
        mov %rax, call_stack_segment(%rip)
        /* Back to ring 3, which comes again by an interrupt. */
        sysretq

system_enter:
        pushfq
        pop %rax
        and $0x300, %eax
        mov %rax, call_flags(%rip)
        lea kernel_stack_top(%rip), %rax
        sub %rsp, %rax
        mov %rax, call_return(%rip)
        mov %ss, %eax
        mov %rax, call_stack_segment(%rip)
        mov resume_stack(%rip), %rsp
        mov $KERNEL_DATA, %eax
        mov %eax, %ds
        jmp *resume(%rip)

interrupt_while_off:
        mov %rbx, interrupted_at(%rip)
        movl $0, 0xb0(%r15)
        iretq

/* Programs of ring 3, on a page that it may use. */
        .section .user, "ax"
        .balign 4096
user_start:
user_64:
        int $0x61
user_64_call:
user_privileged:
        hlt
user_kernel_gate:
        int $0x62
user_kernel_page:
        mov $kernel_stack, %eax
user_kernel_page_access:
        mov (%rax), %al
user_port_allowed:
        mov $0x3fd, %edx
        in %dx, %al
        int $0x61
user_port_done:
user_port_refused:
        mov $POWER, %edx
user_port_refused_access:
        in %dx, %al
user_system_call:
        syscall
user_called:
        int $0x61
        .code32
user_32:
        mov $0xffffffff, %eax
        inc %eax
        int $0x61
user_32_call:
user_system_enter:
        sysenter
        .code64
        .balign 4096
user_end:
        .text

/* All vectors lead to `handle`; 0x61 and the breakpoint may be used by programs, 8 and 0x60 have a stack of their own. */
fill_idt:
        lea stubs(%rip), %rax
        lea idt(%rip), %rdi
        mov $256, %ecx
1:      mov %ax, (%rdi)
        movw $KERNEL_CODE, 2(%rdi)
        movw $0x8e00, 4(%rdi)
        mov %rax, %rdx
        shr $16, %rdx
        mov %dx, 6(%rdi)
        movq $0, 8(%rdi)
        add $16, %rdi
        add $16, %rax
        loop 1b
        movb $1, idt + 8 * 16 + 4(%rip)
        movb $1, idt + 0x60 * 16 + 4(%rip)
        movb $0xee, idt + 0x61 * 16 + 5(%rip)
        ret

set_gate_interrupt:
        lea idt + 0x80 * 16(%rip), %rdi
        mov %ax, (%rdi)
        shr $16, %rax
        mov %ax, 6(%rdi)
        ret

        .balign 16
stubs:
        .set vector, 0
        .rept 256
        .balign 16
        .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
        push $-1
        .endif
        push $vector
        jmp handle
        .set vector, vector + 1
        .endr

/* Tables of pages of 4 KiB for 4–6 MiB and for the programs; the others stay as they were found. */
map_user:
        mov %cr3, %rax
        and $~0xfff, %rax
        orl $4, (%rax)
        mov (%rax), %rbx
        and $~0xfff, %rbx
        orl $4, (%rbx)
        mov (%rbx), %rbx
        and $~0xfff, %rbx
        /* The programs' 2 MiB, page by page. */
        lea user_start(%rip), %rax
        shr $21, %rax
        lea (%rbx, %rax, 8), %r8
        shl $21, %rax
        lea user_table(%rip), %rdi
        mov $512, %ecx
1:      mov %rax, %rdx
        or $3, %rdx
        lea user_start(%rip), %rsi
        cmp %rsi, %rax
        jb 2f
        lea user_end(%rip), %rsi
        cmp %rsi, %rax
        jae 2f
        or $4, %rdx
2:      mov %rdx, (%rdi)
        add $8, %rdi
        add $4096, %rax
        loop 1b
        lea user_table(%rip), %rdx
        or $7, %rdx
        mov %rdx, (%r8)
        /* The stack of ring 3 lies below 3 MiB, which is the first page of the next 2 MiB minus one. */
        orl $4, 8(%rbx)
        /* 4 MiB: read-only. 5 MiB and on: nothing. */
        lea odd_table(%rip), %rdx
        or $7, %rdx
        mov %rdx, 16(%rbx)
        movq $0x400001, odd_table(%rip)
        mov %cr3, %rax
        mov %rax, %cr3
        ret

print:  mov (%rsi), %al
        test %al, %al
        jz 1f
        call print_byte
        inc %rsi
        jmp print
1:      ret

print_byte:
        mov $SERIAL, %edx
        out %al, %dx
        ret

print_number:
        push %rbx
        push %rcx
        mov %rax, %rbx
        mov $' ', %al
        call print_byte
        mov $60, %ecx
1:      mov %rbx, %rax
        shr %cl, %rax
        jnz 2f
        sub $4, %ecx
        jnz 1b
2:      mov %rbx, %rax
        shr %cl, %rax
        and $15, %eax
        lea digits(%rip), %rsi
        mov (%rsi, %rax), %al
        call print_byte
        sub $4, %ecx
        jns 2b
        pop %rcx
        pop %rbx
        ret

        .section .rodata
digits: .ascii "0123456789abcdef"

        .data
        .balign 16
gdt:    .quad 0
        .quad 0x00af9b000000ffff
        .quad 0x00cf93000000ffff
        .quad 0x00cffb000000ffff
        .quad 0x00cff3000000ffff
        .quad 0x00affb000000ffff
gdt_task:
        .quad 0x0000890000000000 + task_state_end - task_state - 1
        .quad 0
gdt_end:
gdt_pointer:
        .word gdt_end - gdt - 1
        .quad gdt
idt_pointer:
        .word 256 * 16 - 1
        .quad idt
short_idt_pointer:
        .word 9 * 16 - 1
        .quad idt
        .balign 16
task_state:
        .long 0
        .quad kernel_stack_top
        .quad 0, 0, 0
        .quad gate_stack_top
        .quad 0, 0, 0, 0, 0, 0
        .quad 0
        .word 0
        .word port_bitmap - task_state
port_bitmap:
        .fill 0x7f, 1, 0xff
        .byte 0xdf                      /* 0x3fd */
        .fill 0x80, 1, 0xff
task_state_end:
        .balign 8
resume: .quad 0
resume_stack: .quad 0
seen:   .fill 7, 8, 0
call_flags: .quad 0
call_return: .quad 0
call_stack_segment: .quad 0
interrupted_at: .quad 0

        .bss
        .balign 4096
idt:    .skip 4096
user_table: .skip 4096
odd_table: .skip 4096
boot_stack: .skip 4096
boot_stack_top:
kernel_stack: .skip 4096
kernel_stack_top:
gate_stack_bottom: .skip 4096
gate_stack_top:
