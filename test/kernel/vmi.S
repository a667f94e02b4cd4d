/*
 * A 32-bit kernel that finds the ROM of the VMI interface, asks for all of its calls and makes each of them, and prints what
 * it sees on the serial port, a line each: a name and numbers in hexadecimal. Linear addresses are physical ones; with PAE
 * defined, tables have three levels. Its second processor is started by the interface.
 */
        .set SERIAL, 0x3f8
        .set POWER, 0x600
        .set KERNEL_CODE, 0x08
        .set KERNEL_DATA, 0x10
        .set USER_CODE, 0x1b
        .set USER_DATA, 0x23
        .set TASK, 0x28
        .set LOCAL, 0x30
        .set CALLS, 74
        .set TIMER, 0x31
        .set USER_CALL, 0x61
        .set FIRST_LINE, 0x40
        .set MAPPED, 0x40000000          /* what the table in the tests maps */
        .set USER_STACK, 0x300000
        .set PRESENT, 0x07

        .set CPUID, 0
        .set WRITE_MSR, 1
        .set READ_MSR, 2
        .set SET_GDT, 3
        .set SET_LDT, 4
        .set SET_IDT, 5
        .set SET_TASK, 6
        .set GET_GDT, 7
        .set GET_LDT, 8
        .set GET_IDT, 9
        .set GET_TASK, 10
        .set WRITE_GDT_ENTRY, 11
        .set WRITE_LDT_ENTRY, 12
        .set WRITE_IDT_ENTRY, 13
        .set SET_CR0, 15
        .set SET_CR2, 16
        .set SET_CR3, 17
        .set SET_CR4, 18
        .set GET_CR0, 19
        .set GET_CR2, 20
        .set GET_CR3, 21
        .set GET_CR4, 22
        .set SET_DEBUG, 24
        .set GET_DEBUG, 25
        .set READ_TIME_STAMP, 27
        .set CLEAR_TASK_SWITCHED, 28
        .set ENABLE_INTERRUPTS, 29
        .set DISABLE_INTERRUPTS, 30
        .set GET_INTERRUPT_MASK, 31
        .set SET_INTERRUPT_MASK, 32
        .set INTERRUPT_RETURN, 33
        .set SYSTEM_EXIT, 34
        .set HALT, 35
        .set SHUT_DOWN, 37
#ifdef PAE
        .set SET_ENTRY, 39
        .set UPDATE_ENTRY, 41
        .set ENTRY_BYTES, 8
        .set CR4, 0x20
#else
        .set SET_ENTRY, 38
        .set UPDATE_ENTRY, 40
        .set ENTRY_BYTES, 4
        .set CR4, 0x10
#endif
        .set MACHINE_TO_PHYSICAL, 42
        .set PHYSICAL_TO_MACHINE, 43
        .set ALLOCATE_PAGE, 44
        .set RELEASE_PAGE, 45
        .set INVALIDATE_PAGE, 46
        .set FLUSH_TLB, 47
        .set SET_LINEAR_MAPPING, 48
        .set SET_IO_PRIVILEGE, 61
        .set SET_INITIAL_AP_STATE, 62
        .set APIC_WRITE, 63
        .set APIC_READ, 64
        .set GET_CYCLE_FREQUENCY, 66
        .set GET_CYCLE_COUNTER, 67
        .set SET_ALARM, 68
        .set CANCEL_ALARM, 69
        .set GET_WALLCLOCK, 70
        .set WALLCLOCK_UPDATED, 71
        .set SET_LAZY_MODE, 73

        .set CR0, 0x80010021
        .set AT_LOCAL_TIMER, 0x10000
        .set PERIODIC, 0x100

        .code32
        .text
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

        .macro vmi number
        call *entries + \number * 4
        .endm

        .macro answer name, number
        vmi \number
        push %eax
        line \name
        pop %eax
        call print_number
        end
        .endm

        /* An entry of the table is to lead to a page; ESI is the page, EDI the entry's number. */
        .macro set_entry
        lea table(, %edi, ENTRY_BYTES), %ecx
        lea PRESENT(%esi), %eax
        call store_entry
        .endm

        .macro apic_write register, value
        mov $\register, %eax
        mov \value, %edx
        vmi APIC_WRITE
        .endm

        /* The next exception goes on at 8. */
        .macro expect
        movl $8f, resume
        mov %esp, resume_stack
        .endm

        .globl _start
_start: mov $boot_stack_top, %esp
        mov $0xc0000, %ebx
1:      cmpw $0xaa55, (%ebx)
        jne 2f
        cmpl $0x696d5663, 8(%ebx)
        je found
2:      add $0x800, %ebx
        cmp $0xe0000, %ebx
        jb 1b
        line no_rom
        end
        jmp off

found:  movzbl 2(%ebx), %ecx
        shl $9, %ecx
        xor %edx, %edx
1:      add -1(%ebx, %ecx), %dl
        loop 1b
        push %edx
        line rom
        show %ebx
        pop %eax
        call print_number
        movzbl 13(%ebx), %eax
        call print_number
        show 16(%ebx)
        end

        xor %edi, %edi
        push %ebx
        line relocations
        pop %ebx
1:      mov %edi, %eax
        lea 0x88(%ebx), %edx
        call *%edx
        mov %eax, entries(, %edi, 4)
        show %edx
        inc %edi
        cmp $CALLS + 1, %edi
        jb 1b
        end
        lea 0x80(%ebx), %eax
        call *%eax
        push %eax
        line init
        pop %eax
        call print_number
        end
        /* Whether the ROM has taken on more than it must. */
        mov $GET_CR0, %eax
        lea 0x88(%ebx), %ecx
        call *%ecx
        cmp $1, %dl
        jne off

        mov $0x174, %ecx
        mov $KERNEL_CODE, %eax
        xor %edx, %edx
        vmi WRITE_MSR
        mov $0x174, %ecx
        answer msr, READ_MSR
/* Descriptor tables */
        mov $gdt_pointer, %eax
        vmi SET_GDT
        ljmp $KERNEL_CODE, $1f
1:      mov $KERNEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %fs
        mov %eax, %gs
        mov %eax, %ss
        mov $task_state, %eax
        mov %ax, gdt + TASK + 2
        shr $16, %eax
        mov %al, gdt + TASK + 4
        /* The local table's descriptor is written by the ROM. */
        mov $ldt, %ecx
        shl $16, %ecx
        or $0x17, %ecx
        mov $ldt, %eax
        shr $16, %eax
        or $0x8200, %eax
        push %eax
        mov $gdt, %eax
        mov $LOCAL / 8, %edx
        vmi WRITE_GDT_ENTRY
        add $4, %esp
        mov $LOCAL, %eax
        vmi SET_LDT
        mov $TASK, %eax
        vmi SET_TASK
        /* Its third one is of data; what a program loads finds it. */
        push $0x00cf9200
        mov $ldt, %eax
        mov $2, %edx
        mov $0x0000ffff, %ecx
        vmi WRITE_LDT_ENTRY
        add $4, %esp
        mov $0x14, %eax
        mov %eax, %gs
        xor %edi, %edi
1:      mov handlers(, %edi, 8), %edx       /* vector */
        mov handlers + 4(, %edi, 8), %ecx
        mov %ecx, %eax
        and $0xffff0000, %eax
        or $0x8e00, %eax
        cmp $USER_CALL, %edx
        jne 2f
        or $0x6000, %eax
2:      push %eax
        and $0xffff, %ecx
        or $KERNEL_CODE << 16, %ecx
        mov $idt, %eax
        vmi WRITE_IDT_ENTRY
        add $4, %esp
        inc %edi
        cmp $(handlers_end - handlers) / 8, %edi
        jb 1b
        mov $idt_pointer, %eax
        vmi SET_IDT
        mov $stored, %eax
        vmi GET_GDT
        mov $stored + 8, %eax
        vmi GET_IDT
        line tables
        mov stored + 2, %eax
        sub $gdt, %eax
        call print_number
        mov stored + 10, %eax
        sub $idt, %eax
        call print_number
        vmi GET_LDT
        and $0xffff, %eax
        call print_number
        vmi GET_TASK
        and $0xffff, %eax
        call print_number
        show %gs
        end

/* Control registers; paging begins */
        call fill_tables
        mov $CR4, %eax
        vmi SET_CR4
        mov $root, %eax
        vmi SET_CR3
        mov $CR0, %eax
        vmi SET_CR0
        xor %eax, %eax
        xor %edx, %edx
        mov $0x2000, %ecx
        push $0
        vmi SET_LINEAR_MAPPING
        add $4, %esp
        answer cr0, GET_CR0
        mov $0x12345678, %eax
        vmi SET_CR2
        answer cr2, GET_CR2
        vmi GET_CR3
        sub $root, %eax
        push %eax
        line cr3
        pop %eax
        call print_number
        end
        answer cr4, GET_CR4
        mov $CR0 | 8, %eax
        vmi SET_CR0
        vmi CLEAR_TASK_SWITCHED
        answer clts, GET_CR0
        mov $3, %eax
        mov $0x1234, %edx
        vmi SET_DEBUG
        mov $3, %eax
        answer debug, GET_DEBUG

/* What the processor says, and its flags */
        xor %eax, %eax
        xor %ecx, %ecx
        vmi CPUID
        push %edx
        line cpuid
        show %ebx
        pop %eax
        call print_number
        end
        vmi READ_TIME_STAMP
        mov %eax, %ebx
        vmi READ_TIME_STAMP
        cmp %ebx, %eax
        seta %bl
        movzbl %bl, %ebx
        line time_stamp
        show %ebx
        end
        mov $0x1000, %eax
        vmi SET_IO_PRIVILEGE
        vmi GET_INTERRUPT_MASK
        and $0x3200, %eax
        push %eax
        mov $0x200, %eax
        vmi SET_INTERRUPT_MASK
        vmi GET_INTERRUPT_MASK
        and $0x3200, %eax
        push %eax
        vmi DISABLE_INTERRUPTS
        vmi GET_INTERRUPT_MASK
        and $0x3200, %eax
        push %eax
        vmi ENABLE_INTERRUPTS
        vmi GET_INTERRUPT_MASK
        and $0x3200, %eax
        push %eax
        xor %eax, %eax
        vmi SET_INTERRUPT_MASK
        vmi GET_INTERRUPT_MASK
        and $0x3200, %eax
        push %eax
        xor %eax, %eax
        vmi SET_IO_PRIVILEGE
        line flags
        mov $4, %ebx
1:      mov (%esp, %ebx, 4), %eax
        call print_number
        dec %ebx
        jns 1b
        add $20, %esp
        end
        mov $0x77, %eax
        answer machine_to_physical, MACHINE_TO_PHYSICAL
        mov $0x78, %eax
        answer physical_to_machine, PHYSICAL_TO_MACHINE

/* Page tables: the table is announced, so that only the queue tells of changes */
        mov $table, %eax
        shr $12, %eax
        mov $0x41, %edx
        xor %ecx, %ecx
        push $0
        push $0
        vmi ALLOCATE_PAGE
        add $8, %esp
        mov $page_a, %esi
        xor %edi, %edi
        set_entry
        line set
        show MAPPED
        end
        mov $page_b, %esi
        set_entry
        mov $MAPPED, %eax
        vmi INVALIDATE_PAGE
        line invalidated
        show MAPPED
        end
        mov $page_a, %esi
        set_entry
        mov $1, %eax
        vmi FLUSH_TLB
        line flushed
        show MAPPED
        end
        mov $page_b, %esi
        set_entry
        mov $3, %eax
        vmi FLUSH_TLB
        line flushed_global
        show MAPPED
        end
        mov $page_a, %esi
        set_entry
        mov $root, %eax
        vmi SET_CR3
        line root_loaded
        show MAPPED
        end
        /* The kernel stores by itself, and tells. */
        movl $(page_b + PRESENT), table
        mov $table, %eax
        mov $1, %edx
        vmi UPDATE_ENTRY
        mov $MAPPED, %eax
        vmi INVALIDATE_PAGE
        line updated
        show MAPPED
        end
        /* More changes than the queue holds, in a lazy section. */
        mov $1, %eax
        vmi SET_LAZY_MODE
        mov $page_a, %esi
        mov $300, %edi
1:      set_entry
        dec %edi
        jns 1b
        xor %eax, %eax
        vmi SET_LAZY_MODE
        mov $1, %eax
        vmi FLUSH_TLB
        line lazy
        show MAPPED
        show MAPPED+300*4096
        end
        mov $2, %eax
        vmi SET_LAZY_MODE
        xor %eax, %eax
        vmi SET_LAZY_MODE
        /* An entry goes: the fault finds the shadows told. */
        xor %eax, %eax
        xor %edi, %edi
        lea table, %ecx
        call store_entry
        mov $MAPPED, %eax
        vmi INVALIDATE_PAGE
        expect
        mov MAPPED, %eax
8:      line fault
        show vector
        end
        mov $table, %eax
        shr $12, %eax
        mov $1, %edx
        vmi RELEASE_PAGE
        /* A table that is no longer announced may be stored to without a word. */
        movl $(page_b + PRESENT), table
        mov $MAPPED, %eax
        vmi INVALIDATE_PAGE
        line released
        show MAPPED
        end
        /* The kernel's own window is no program's. */
        expect
        mov $window_read, %edx
        mov $USER_STACK, %ecx
        jmp *entries + SYSTEM_EXIT * 4
8:      line user_window
        show vector
        end

/* Ways out of the kernel */
        expect
        mov $user_call, %edx
        mov $USER_STACK, %ecx
        jmp *entries + SYSTEM_EXIT * 4
8:      line sysexit
        show vector
        end
        expect
        mov $user_host_call, %edx
        mov $USER_STACK, %ecx
        jmp *entries + SYSTEM_EXIT * 4
8:      line user_host_call
        show vector
        end
        pushf
        push $KERNEL_CODE
        push $1f
        jmp *entries + INTERRUPT_RETURN * 4
1:      line iret
        end
        expect
        mov $0x7f, %ebx
        vmcall
8:      line unknown_host_call
        show vector
        end

/* Time */
        answer frequency, GET_CYCLE_FREQUENCY
        mov $2, %eax
        answer stolen, GET_CYCLE_COUNTER
        vmi GET_WALLCLOCK
        mov $1000000000, %ecx
        div %ecx
        push %eax
        line wallclock
        pop %eax
        call print_number
        end
        answer wallclock_updated, WALLCLOCK_UPDATED
        mov $0x30, %eax
        answer apic_version, APIC_READ
        apic_write 0xf0, $0x1ff
        apic_write 0x320, $TIMER
        mov $AT_LOCAL_TIMER, %ebx
        mov $1, %esi
        call wait_for_alarm
        line alarm
        show timer_interrupts
        end
        mov $AT_LOCAL_TIMER + PERIODIC, %ebx
        mov $3, %esi
        call wait_for_alarm
        mov $AT_LOCAL_TIMER, %eax
        vmi CANCEL_ALARM
        line periodic
        show timer_interrupts
        end
        /* By the first line of the interrupt controllers of a PC. */
        mov $0x11, %al
        out %al, $0x20
        mov $FIRST_LINE, %al
        out %al, $0x21
        mov $4, %al
        out %al, $0x21
        mov $1, %al
        out %al, $0x21
        mov $0xfe, %al
        out %al, $0x21
        mov $1, %ebx                    /* available cycles */
        mov $1, %esi
        call wait_for_alarm
        line line_0
        show line_interrupts
        end

/* The second processor */
        mov $ap_state, %eax
        mov $1, %edx
        vmi SET_INITIAL_AP_STATE
        apic_write 0x310, $0x01000000
        apic_write 0x300, $0x4500
        apic_write 0x300, $0x4699
1:      pause
        cmpl $0, ap_done
        je 1b
        line boot_processor_sees
        mov $MAPPED, %eax
        vmi INVALIDATE_PAGE
        show MAPPED
        end
        mov $1, %eax
        vmi SHUT_DOWN
off:    mov $POWER, %edx
        mov $0x34, %al
        out %al, %dx
        hlt

ap_entry:
        mov %edi, %ebx
        line ap
        show %ebx
        show %cs
        show %ss
        mov %esp, %eax
        sub $ap_stack_top, %eax
        call print_number
        end
        mov $page_a, %esi
        xor %edi, %edi
        set_entry
        mov $MAPPED, %eax
        vmi INVALIDATE_PAGE
        line ap_sees
        show MAPPED
        end
        incl ap_done
1:      vmi DISABLE_INTERRUPTS
        hlt
        jmp 1b

/* EAX, with a high word of 0, goes to the entry at ECX. */
store_entry:
        push %esi
#ifdef PAE
        xor %edx, %edx
        push $1
        vmi SET_ENTRY
        add $4, %esp
#else
        mov %ecx, %edx
        mov $1, %ecx
        vmi SET_ENTRY
#endif
        pop %esi
        ret

/* Sets an alarm with the flags in EBX, and halts until interrupts have come ESI times. */
wait_for_alarm:
        movl $0, timer_interrupts
        movl $0, line_interrupts
        mov %ebx, %eax
        and $0xff, %eax
        vmi GET_CYCLE_COUNTER
        add $500000, %eax
        adc $0, %edx
        mov %edx, %ecx
        mov %eax, %edx
        push $0
        push $500000
        mov %ebx, %eax
        vmi SET_ALARM
        add $8, %esp
1:      vmi HALT
        vmi DISABLE_INTERRUPTS
        mov timer_interrupts, %eax
        add line_interrupts, %eax
        cmp %esi, %eax
        jb 1b
        ret

fill_tables:
#ifdef PAE
        movl $level_2 + 1, root
        movl $level_2_mapped + 1, root + 8
        movl $table + PRESENT, level_2_mapped
        movl $table_2 + PRESENT, level_2_mapped + 8
        mov $level_2, %edi
        mov $0x87, %eax
        mov $16, %ecx
1:      mov %eax, (%edi)
        add $0x200000, %eax
        add $8, %edi
        loop 1b
#else
        movl $table + PRESENT, root + (MAPPED >> 22) * 4
        mov $root, %edi
        mov $0x87, %eax
        mov $8, %ecx
1:      mov %eax, (%edi)
        add $0x400000, %eax
        add $4, %edi
        loop 1b
#endif
        ret

/* Exceptions with an error code, and without; interrupts */
fault_page:
        movl $14, vector
        jmp resumed
fault_protection:
        movl $13, vector
        jmp resumed
fault_opcode:
        movl $6, vector
        jmp resumed
user_called:
        movl $USER_CALL, vector
resumed:
        mov $KERNEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov resume_stack, %esp
        jmp *resume
timer:  pusha
        incl timer_interrupts
        apic_write 0xb0, $0
        popa
        jmp *entries + INTERRUPT_RETURN * 4
line_0: push %eax
        incl line_interrupts
        mov $0x20, %al
        out %al, $0x20
        pop %eax
        jmp *entries + INTERRUPT_RETURN * 4

#include "serial-print.S"

        .data
        .balign 16
gdt:    .quad 0
        .quad 0x00cf9a000000ffff        /* kernel code, kernel data */
        .quad 0x00cf92000000ffff
        .quad 0x00cffa000000ffff        /* user code, user data */
        .quad 0x00cff2000000ffff
        .quad 0x0000890000000067        /* task */
        .quad 0                         /* local table */
gdt_end:
ldt:    .quad 0, 0, 0
handlers:
        .long 6, fault_opcode, 13, fault_protection, 14, fault_page
        .long TIMER, timer, FIRST_LINE, line_0, USER_CALL, user_called
handlers_end:
gdt_pointer:
        .word gdt_end - gdt - 1
        .long gdt
idt_pointer:
        .word 0x70 * 8 - 1
        .long idt
stored: .fill 16, 1, 0
vector: .long 0
resume: .long 0
resume_stack:
        .long 0
timer_interrupts:
        .long 0
line_interrupts:
        .long 0
ap_done:
        .long 0
        .balign 16
task_state:
        .long 0, kernel_stack_top, KERNEL_DATA
        .fill 0x68 - 12, 1, 0
ap_state:
        .long CR0, 0, root, CR4         /* CR0, CR2, CR3, CR4 */
        .quad 0                         /* EFER */
        .long ap_entry, 0               /* EIP, EFLAGS */
        .long 0, 0, 0, 0, ap_stack_top, 0, 0, 0x1234
        .word KERNEL_CODE, KERNEL_DATA, KERNEL_DATA, KERNEL_DATA, 0, 0
        .word 0                         /* local table */
        .word gdt_end - gdt - 1
        .long gdt, idt
        .word 0x70 * 8 - 1
        .balign 4096
page_a: .long 0xaaaa
        .balign 4096
page_b: .long 0xbbbb
        .balign 4096
        .bss
        .balign 4096
root:   .fill 4096, 1, 0
table:  .fill 4096, 1, 0
#ifdef PAE
table_2:
        .fill 4096, 1, 0
level_2:
        .fill 4096, 1, 0
level_2_mapped:
        .fill 4096, 1, 0
#endif
idt:    .fill 0x70, 8, 0
entries:
        .fill CALLS + 1, 4, 0
        .fill 4096, 1, 0
boot_stack_top:
        .fill 4096, 1, 0
kernel_stack_top:
        .fill 4096, 1, 0
ap_stack_top:

        .section .user, "ax"
user_call:
        int $USER_CALL
user_host_call:
        mov $0x80, %ebx
        vmcall
window_read:
        mov 0xffc00000, %eax
        int $USER_CALL
