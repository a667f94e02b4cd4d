/*
 * Where the kernel begins: one image, and an entry for each way of booting. The first instructions of plain hardware and
 * KVM run at physical addresses, with the lowest 4 GiB mapped one to one or not mapped at all; Xen's runs at its own.
 */
#include "layout.h"

#define PHYSICAL(symbol) ((symbol) - KERNEL_BASE)
#define TABLE 0x63

        .macro note type, format, value:vararg
        .balign 4
        .long 4, 2f - 1f, \type
        .asciz "Xen"
1:      \format \value
2:
        .endm

        .section .note.xen, "a", @note
        note 1, .quad, xen_entry
        note 3, .quad, KERNEL_BASE
        note 4, .quad, 0
        note 5, .asciz, "xen-3.0"
        note 6, .asciz, "ring1 reference guest"
        note 7, .asciz, "1"
        note 8, .asciz, "generic"
        note 9, .asciz, "yes"
        note 10, .asciz, "!writable_page_tables|pae_pgdir_above_4gb|auto_translated_physmap"
        note 12, .quad, XEN_MACHINE_TO_PHYSICAL
        note 13, .quad, 1, 1
        note 15, .quad, XEN_FRAME_LIST
        note 16, .quad, 1
        note 17, .quad, 5
        note 18, .quad, PHYSICAL(pvh_entry)

        .text
/* By a boot loader's 64-bit protocol, on plain hardware and under KVM. RSI: physical address of boot_params. */
        .globl native_entry
native_entry:
        cli
        cld
        mov $PHYSICAL(initial_page_table), %eax
        mov %rax, %cr3
        movabs $native_high, %rax
        jmp *%rax
native_high:
        lea initial_stack_end(%rip), %rsp
        mov %rsi, %rdi
        call native_start

/* By the ELF note for PVH. 32 bits, no paging. EBX: physical address of hvm_start_info. */
        .code32
pvh_entry:
        cli
        cld
        lgdtl PHYSICAL(boot_gdt_pointer)
        mov $PHYSICAL(initial_stack_end), %esp
        call enable_paging_32
        ljmp $KERNEL_CODE, $PHYSICAL(pvh_long)

/* Switches to long mode on initial_page_table; the caller is still in a 32-bit segment of it. */
enable_paging_32:
        mov %cr4, %eax
        or $0x20, %eax                  /* PAE */
        mov %eax, %cr4
        mov $PHYSICAL(initial_page_table), %eax
        mov %eax, %cr3
        mov $0xc0000080, %ecx           /* EFER: LME */
        rdmsr
        or $0x100, %eax
        wrmsr
        mov %cr0, %eax
        or $0x80010001, %eax            /* PG, WP, PE */
        mov %eax, %cr0
        ret
        .code64
pvh_long:
        mov $KERNEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        movabs $pvh_high, %rax
        jmp *%rax
pvh_high:
        lea initial_stack_end(%rip), %rsp
        mov %ebx, %edi
        call pvh_start

#ifdef PARAVIRT
/* By Xen's ELF notes, as a paravirtual guest. RSI: start_info; Xen's own page tables map the kernel where it belongs. */
        .globl xen_entry
xen_entry:
        cld
        lea initial_stack_end(%rip), %rsp
        mov %rsi, %rdi
        call xen_start

/* Another processor, started by VCPUOP_up with its number in RDI and a stack of its own. */
        .globl xen_secondary_entry
xen_secondary_entry:
        cld
        call secondary_main
#else
        .set xen_entry, 0
#endif

/*
 * Another processor of a PC. These bytes are copied to TRAMPOLINE and begin in real mode there. Nothing but their own
 * addresses is known to them.
 */
        .section .rodata
        .globl trampoline_begin, trampoline_end
        .code16
trampoline_begin:
        cli
        mov %cs, %ax
        mov %ax, %ds
        lgdtl trampoline_gdt_pointer - trampoline_begin
        mov %cr0, %eax
        or $1, %eax
        mov %eax, %cr0
        ljmpl $0x20, $(TRAMPOLINE + trampoline_32 - trampoline_begin)
        .code32
trampoline_32:
        mov $KERNEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %ss
        mov $(TRAMPOLINE + PAGE_SIZE), %esp
        mov $PHYSICAL(enable_paging_32), %eax
        call *%eax
        ljmp $KERNEL_CODE, $(TRAMPOLINE + trampoline_64 - trampoline_begin)
        .code64
trampoline_64:
        movabs $secondary_high, %rax
        jmp *%rax
        .balign 8
trampoline_gdt_pointer:
        .word boot_gdt_end - boot_gdt - 1
        .long PHYSICAL(boot_gdt)
trampoline_end:

        .text
        .globl secondary_high
secondary_high:
        mov secondary_stack(%rip), %rsp
        mov secondary_number(%rip), %edi
        call secondary_main

        .data
        .balign 8
boot_gdt:
        .quad 0, 0
        .quad 0x00af9b000000ffff        /* KERNEL_CODE */
        .quad 0x00cf93000000ffff        /* KERNEL_DATA */
        .quad 0x00cf9b000000ffff        /* the same in 32 bits */
boot_gdt_end:
boot_gdt_pointer:
        .word boot_gdt_end - boot_gdt - 1
        .long PHYSICAL(boot_gdt)

/*
 * The tables that plain hardware begins with: the lowest GiB at 0, for code that still runs there, and at KERNEL_BASE.
 * Behind the kernel a table for pages of devices.
 */
        .balign PAGE_SIZE
        .globl initial_page_table, device_table
initial_page_table:
        .quad PHYSICAL(initial_level3_low) + TABLE
        .fill 510, 8, 0
        .quad PHYSICAL(initial_level3_kernel) + TABLE
initial_level3_low:
        .quad PHYSICAL(initial_level2) + TABLE
        .fill 511, 8, 0
initial_level3_kernel:
        .fill 510, 8, 0
        .quad PHYSICAL(initial_level2) + TABLE
        .quad PHYSICAL(device_level2) + TABLE
initial_level2:
        .set page, 0
        .rept 512
        .quad page + 0xe3               /* large, dirty, accessed, writable, present */
        .set page, page + 0x200000
        .endr
device_level2:
        .quad PHYSICAL(device_table) + TABLE
        .fill 511, 8, 0
device_table:
        .fill 512, 8, 0

        .bss
        .balign 16
        .skip KERNEL_STACK_SIZE
        .globl initial_stack_end
initial_stack_end:
