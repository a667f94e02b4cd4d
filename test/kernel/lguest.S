/*
 * A 32-bit kernel that speaks to lguest as kernels of one era do: ERA 1, 2 or 3 says which, and PAE that its tables are of
 * that kind. It tries each hypercall and each way into its ring, and prints what it sees by the call for early messages, a
 * line each: a name and numbers in hexadecimal. With "bad=N" as command line it makes the N-th of the calls that no sound
 * kernel makes instead.
 */
        .set KERNEL_CODE, 0x61
        .set KERNEL_DATA, 0x69
        .set USER_CODE, 0x73            /* entries 14 and 15, where Linux has them too */
        .set USER_DATA, 0x7b
        .set THREAD, 0x33               /* entry 6, the first for thread-local storage */
        .set COMMAND_LINE, 0x1000
        .set SUBARCH, 0x23c
        .set PAGE, 0x1000
        .set MAPPED, 4 << 20            /* bytes that the kernel's own tables map as they are */
        .set WINDOW, 0x300000           /* the page whose entry changes */
        .set NOWHERE, 0x40000000

        .set FLUSH_ASYNC, 0
        .set SHUTDOWN, 2
        .set LOAD_GDT, 3
        .set NEW_PGTABLE, 4
        .set FLUSH_TLB, 5
        .set LOAD_IDT_ENTRY, 6
        .set SET_STACK, 7
        .set TS, 8
        .set SET_CLOCKEVENT, 9
        .set HALT, 10
        .set SET_PMD, 13
        .set SET_PTE, 14
        .set SET_PGD, 15
        .set LOAD_TLS, 16
        .set NOTIFY, 17
        .set LOAD_GDT_ENTRY, 18
        .set SEND_INTERRUPTS, 19

        .code32
        .text
        .macro trap_to_host
#if ERA == 2
        vmcall
#else
        int $0x1f
#endif
        .endm

        /* Loads all registers of a call; none is kept. */
        .macro hyper number, a=$0, b=$0, c=$0, d=$0
#if ERA == 1
        mov \a, %edx
        mov \b, %ebx
        mov \c, %ecx
#else
        mov \a, %ebx
        mov \b, %ecx
        mov \c, %edx
        mov \d, %esi
#endif
        mov $\number, %eax
        trap_to_host
        .endm

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
        call print_line
        .endm

        /* The next trap goes on at 8, with what it found kept; its EIP counts from a label. */
        .macro expect label
        movl $\label, place
        movl $8f, resume
        mov %esp, resume_stack
        .endm

        /* Vector, error code, distance of EIP, CS, the interrupt flag of the frame, the word for it in the handler. */
        .macro trapped name
        line \name
        show vector
        show error
        show distance
        show frame_cs
        show frame_interrupts
        show handler_interrupts
        movl $0x200, irq_enabled
        .endm

        .macro user entry
        mov $USER_DATA, %eax
        mov %eax, %ds
        pushl $USER_DATA
        pushl $user_stack_top
        pushl $0x202
        pushl $USER_CODE
        pushl $\entry
        iret
        .endm

        .globl _start
_start: mov %esp, %edi
        mov %esi, first_esi
        mov $stack_top, %esp
        pushf
        pop first_flags
        mov SUBARCH, %eax
        mov %eax, subarch

#if ERA == 1
        mov $1, %eax
        mov $shared, %edx
        int $0x1f
#elif ERA == 2
        mov $1, %eax
        mov $shared, %ebx
        vmcall
#else
        mov $1, %eax
        mov $shared, %ebx
        int $0x1f
#endif
        line entry
        mov %cs, %eax
        call print_number
        mov %ss, %eax
        call print_number
        show first_esi
        show first_flags
        show subarch
        end
        line shared
        show reserve_memory
        show tsc_kilohertz
        mov $0, %eax
        cmpl $0, seconds
        setne %al
        call print_number
        end

        call build_tables
        hyper NEW_PGTABLE, $root
        call load_gates
        cmpl $0x3d646162, COMMAND_LINE          /* "bad=" */
        je misbehave

/* Ring 1 */
        movl $0x200, irq_enabled
        expect invalid
invalid:
        ud2
8:      trapped invalid
        end
        movl $0, irq_enabled
        expect breakpoint
breakpoint:
        int3
8:      trapped breakpoint
        end
        expect privileged
privileged:
        mov %cr3, %eax
8:      trapped privileged
        end
        expect missing
missing:
        mov NOWHERE + 0x123, %eax
8:      trapped missing
        show cr2
        end

        line ports
        mov $0x12345678, %eax
        in $0x64, %al
        call print_number
        mov $0x12345678, %eax
        mov $0xcf8, %edx
        in %dx, %eax
        call print_number
        out %al, %dx
        cli
        end

        expect switched
        hyper TS, $8
switched:
        fninit
8:      trapped switched
        hyper TS, $0
        fninit
        end

/* Ring 3 */
        call load_segments
        hyper SET_STACK, $KERNEL_DATA, $trap_stack_top, $1
        expect user_call
        user user_call
8:      trapped user_call
        show frame_ss
        show frame_esp
        show trap_stack
        end
        expect user_privileged
        user user_privileged
8:      trapped user_privileged
        end
        expect user_hypercall
        user user_hypercall
8:      trapped user_hypercall
        end
        expect user_vmcall
        user user_vmcall
8:      trapped user_vmcall
        end
        expect user_page
        user user_page
8:      trapped user_page
        show cr2
        end

/* Page tables: the window shows one page, and then another */
        line window
        call show_window
        mov $second_page, %eax
        call map_window
        hyper SET_PTE, $root, $WINDOW, %edi
        call show_window
        mov $first_page, %eax
        call map_window
        hyper FLUSH_TLB, $0
        call show_window
        mov $second_page, %eax
        call map_window
        hyper FLUSH_TLB, $1
        call show_window
        mov $first_page, %eax
        call map_window
#ifdef PAE
        hyper SET_PMD, $directory, $1
#else
        hyper SET_PGD, $root, $0
#endif
        call show_window
        end
#ifdef PAE
        hyper SET_PGD, $root, $0
#endif

/* Calls that wait: they are carried out in order in front of the next one that does not */
        line ring
        movl $0x1111, thread_base
        call put_descriptor
        mov $0, %edi
        mov $LOAD_TLS, %eax
        mov $thread_descriptors, %edx
        call enqueue
        mov $1, %edi
        mov $TS, %eax
        mov $8, %edx
        call enqueue
        mov $2, %edi
        mov $TS, %eax
        mov $0, %edx
        call enqueue
        show states
        hyper FLUSH_ASYNC
        show states
        fninit
        mov $THREAD, %eax
        mov %eax, %fs
        lsl %eax, %eax
        call print_number
        mov $0, %eax
        mov %eax, %fs
        end

/* Interrupts */
        movl $0, blocked
        movl $0x200, irq_enabled
        expect halted
        hyper SET_CLOCKEVENT, $1000000
        hyper HALT
halted: hlt
8:      trapped timer
        end
        /* One that is off, and one that is blocked, wait; a kernel that halts lets it in all the same. */
        movl $0, irq_enabled
        expect off
        hyper SET_CLOCKEVENT, $1000000
        hyper HALT
off:    hlt
8:      trapped halted_off
        end
        movl $0, irq_enabled
        hyper SET_CLOCKEVENT, $1000
        call delay
        line waits
#if ERA > 1
        show irq_pending
#else
        mov $0x200, %eax
        call print_number
#endif
        end
        expect switched_on
switched_on:
        movl $0x200, irq_enabled
1:      jmp 1b
8:      line on
        show vector
#if ERA > 1
        show irq_pending
#else
        mov $0, %eax
        call print_number
#endif
        end
        movl $1, blocked
        movl $0x200, irq_enabled
        movl $0, vector
        hyper SET_CLOCKEVENT, $1000
        call delay
        line blocked
        show vector
        end
        expect unblocked
        movl $0, blocked
#if ERA > 1
        hyper SEND_INTERRUPTS
#else
        hyper FLUSH_ASYNC
#endif
unblocked:
        jmp unblocked
8:      line unblocked
        show vector
        end
        /* Where interrupts may not come although they are on. */
        movl $0, irq_enabled
        hyper SET_CLOCKEVENT, $1000
        call delay
        expect quiet_end
        movl $0, vector
        mov $20000, %ecx
        jmp quiet
8:      line quiet
        show vector
        show quiet_count
        end
        movl $1, blocked
        hyper SET_CLOCKEVENT, $0

        hyper SHUTDOWN, $power_down, $1
        hlt

quiet:  movl $0x200, irq_enabled
1:      loop 1b
        mov %ecx, quiet_count
quiet_end:
        jmp quiet_end

user_call:
        int $0x80
user_privileged:
        hlt
user_hypercall:
        int $0x1f
user_vmcall:
        vmcall
user_page:
        mov NOWHERE, %eax

/* Long enough for a timer of a microsecond to fire between two turns of the host. */
delay:  mov $600000, %ecx
1:      loop 1b
        ret

/* Tables */
build_tables:
        mov $leaves, %edi
        mov $7, %eax
        mov $MAPPED / PAGE, %ecx
1:      stosl
#ifdef PAE
        movl $0, (%edi)
        add $4, %edi
#endif
        add $PAGE, %eax
        loop 1b
#ifdef PAE
        movl $directory + 1, root
        movl $leaves + 7, directory
        movl $leaves + PAGE + 7, directory + 8
#else
        movl $leaves + 7, root
#endif
        movl $0x11111111, first_page
        movl $0x22222222, second_page
        mov $first_page, %eax
        call map_window
        ret

/* EAX: a page. Leaves the entry in EDI. */
map_window:
        lea 7(%eax), %edi
#ifdef PAE
        mov %edi, leaves + (WINDOW / PAGE) * 8
#else
        mov %edi, leaves + (WINDOW / PAGE) * 4
#endif
        ret

show_window:
        mov WINDOW, %eax
        jmp print_number

/* Gates: all are interrupt gates but for INT3 and system calls, which are trap gates that programs may use. */
        .macro gate number, type
        mov $entry_\number, %eax
        mov %eax, %ecx
        and $0xffff, %eax
        or $KERNEL_CODE << 16, %eax
        and $0xffff0000, %ecx
        or $\type, %ecx
        mov %eax, %edi
        mov %ecx, %ebp
        hyper LOAD_IDT_ENTRY, $\number, %edi, %ebp
        .endm

load_gates:
        gate 3, 0xef00
        gate 6, 0x8e00
        gate 7, 0x8e00
        gate 13, 0x8e00
        gate 14, 0x8e00
        gate 32, 0x8e00
        gate 128, 0xef00
        ret

load_segments:
#if ERA == 1
        hyper LOAD_GDT, $descriptors, $32
#else
        hyper LOAD_GDT_ENTRY, $14, descriptors+14*8, descriptors+14*8+4
        hyper LOAD_GDT_ENTRY, $15, descriptors+15*8, descriptors+15*8+4
#endif
        ret

put_descriptor:
        movl thread_base, %eax
        movw %ax, thread_descriptors
        movw $0, thread_descriptors + 2
        movl $0x0040f200, thread_descriptors + 4
        ret

/* EDI: slot, EAX: call, EDX: first argument. */
enqueue:
#if ERA == 1
        mov %edi, %ecx
        shl $4, %ecx
        mov %eax, ring(%ecx)
        mov %edx, ring + 12(%ecx)
#else
        imul $20, %edi, %ecx
        mov %eax, ring(%ecx)
        mov %edx, ring + 4(%ecx)
#endif
        movb $0, states(%edi)
        ret

/* Ways in */
        .macro entry number, has_error=0
entry_\number:
        .if !\has_error
        pushl $-1
        .endif
        pushl $\number
        jmp common
        .endm

        entry 3
        entry 6
        entry 7
        entry 13, 1
        entry 14, 1
        entry 32
        entry 128

common: mov $KERNEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        pop vector
        pop error
        pop %eax
        sub place, %eax
        mov %eax, distance
        pop frame_cs
        pop %eax
        and $0x200, %eax
        mov %eax, frame_interrupts
        mov irq_enabled, %eax
        mov %eax, handler_interrupts
        mov (%esp), %eax
        mov %eax, frame_esp
        mov 4(%esp), %eax
        mov %eax, frame_ss
        lea 8(%esp), %eax
        mov $trap_stack_top, %ecx
        sub %eax, %ecx
        mov %ecx, trap_stack
        mov resume_stack, %esp
        jmp *resume

/* Text: a line is gathered and printed whole. */
print:  mov cursor, %edi
1:      lodsb
        test %al, %al
        jz 2f
        stosb
        jmp 1b
2:      mov %edi, cursor
        ret

print_number:
        mov cursor, %edi
        mov %eax, %edx
        mov $' ', %al
        stosb
        mov $8, %ecx
        xor %ebx, %ebx
1:      rol $4, %edx
        mov %edx, %eax
        and $15, %eax
        or %eax, %ebx
        jnz 2f
        cmp $1, %ecx
        jne 3f
2:      mov digits(%eax), %al
        stosb
3:      loop 1b
        mov %edi, cursor
        ret

print_line:
        mov cursor, %edi
        mov $'\n', %al
        stosb
        xor %eax, %eax
        stosb
        movl $buffer, cursor
        hyper NOTIFY, $buffer
        ret

/* Calls that no sound kernel makes */
misbehave:
        mov COMMAND_LINE + 4, %al
        sub $'a', %al
        movzx %al, %eax
        jmp *bad_calls(, %eax, 4)

bad_call:
        hyper 12
bad_again:
        hyper 1, $shared
bad_stack_ring:
        hyper SET_STACK, $0x68, $stack_top, $1
bad_stack_pages:
        hyper SET_STACK, $KERNEL_DATA, $stack_top, $3
bad_vector:
        hyper LOAD_IDT_ENTRY, $256, $0, $0x8e00
bad_gate:
        hyper LOAD_IDT_ENTRY, $6, $0, $0x8500
bad_descriptor:
#if ERA == 1
        hyper LOAD_GDT, $descriptors, $33
#else
        hyper LOAD_GDT_ENTRY, $32, $0, $0
#endif
bad_thread:
        hyper LOAD_TLS, $0xfffffff0
bad_notify:
        hyper NOTIFY, $0x7ffff000
bad_root:
        hyper NEW_PGTABLE, $0xfffff000
        nop
bad_panic:
        hyper SHUTDOWN, $panic, $1
bad_restart:
        hyper SHUTDOWN, $panic, $2
bad_handler:
        xor %ecx, %ecx
        div %ecx
bad_frame:
        mov $NOWHERE, %esp
        ud2
bad_page:
        mov $0x40000000, %eax
        call map_window
        hyper FLUSH_TLB, $1
        mov WINDOW, %eax
bad_ring:
        mov $0, %edi
        mov $12, %eax
        call enqueue
        hyper FLUSH_ASYNC

        .section .rodata
bad_calls:
        .long bad_call, bad_again, bad_stack_ring, bad_stack_pages, bad_vector, bad_gate, bad_descriptor, bad_thread
        .long bad_notify, bad_root, bad_panic, bad_restart, bad_handler, bad_frame, bad_page, bad_ring
digits: .ascii "0123456789abcdef"
power_down:
        .asciz "Power down"
panic:  .asciz "nothing goes"
#ifdef PAE
        .asciz "*pdpt = "
#endif
        .balign 8
descriptors:
        .fill 12, 8, 0
        .quad 0x00cf9a000000ffff, 0x00cf92000000ffff
        .quad 0x00cffa000000ffff, 0x00cff2000000ffff
        .fill 16, 8, 0

        .data
        .balign 4
shared:
irq_enabled:    .long 0
blocked:        .long 1
cr2:            .long 0
seconds:        .long 0, 0
#if ERA > 1
irq_pending:    .long 0
#endif
states:         .fill 64, 1, 0xff
#if ERA == 1
ring:           .fill 64 * 4, 4, 0
#else
ring:           .fill 64 * 5, 4, 0
#endif
reserve_memory: .long 0
tsc_kilohertz:  .long 0
#if ERA < 3
root_table:     .long 0
#endif
                .long quiet, quiet_end
                .long 0xc0000000, 0x80

cursor:         .long buffer

        .bss
        .balign 4096
root:           .fill 4096
#ifdef PAE
directory:      .fill 4096
leaves:         .fill 8192
#else
leaves:         .fill 4096
#endif
first_page:     .fill 4096
second_page:    .fill 4096
stack:          .fill 4096
stack_top:
trap_stack_page: .fill 4096
trap_stack_top:
user_stack:     .fill 4096
user_stack_top:
buffer:         .fill 256
thread_descriptors: .fill 24
first_esi:      .long 0
first_flags:    .long 0
subarch:        .long 0
thread_base:    .long 0
vector:         .long 0
error:          .long 0
place:          .long 0
distance:       .long 0
resume:         .long 0
resume_stack:   .long 0
frame_cs:       .long 0
frame_interrupts: .long 0
handler_interrupts: .long 0
frame_esp:      .long 0
frame_ss:       .long 0
trap_stack:     .long 0
quiet_count:    .long 0
