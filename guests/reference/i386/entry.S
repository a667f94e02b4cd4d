/*
 * Where the kernel begins: one image, and an entry for each way of booting. The first instructions run at physical
 * addresses, without paging.
 */
#include "layout.h"
#include "lguest-abi.h"

#define PHYSICAL(symbol) ((symbol) - KERNEL_BASE)
#define TABLE 0x63
#define LARGE_PAGE 0xe3
/* In CR4: large pages, or entries of 8 bytes, which have them always. */
#ifdef PAE
#define PAGING_FEATURES 0x20
#define POINTER_TABLE 0x01
#else
#define PAGING_FEATURES 0x10
#endif
#define PAGING 0x80010001 /* CR0: PG, WP, PE */

        .macro note type, format, value:vararg
        .balign 4
        .long 4, 2f - 1f, \type
        .asciz "Xen"
1:      \format \value
2:
        .endm

        .section .note.xen, "a", @note
        note 18, .long, PHYSICAL(pvh_entry)
#ifdef XEN
        note 1, .long, xen_entry
        note 3, .long, KERNEL_BASE
        note 4, .long, 0
        note 5, .asciz, "xen-3.0"
        note 6, .asciz, "ring1 reference guest"
        note 7, .asciz, "1"
        note 8, .asciz, "generic"
        note 9, .asciz, "yes"
        note 10, .asciz, "!writable_page_tables|pae_pgdir_above_4gb|auto_translated_physmap"
        note 12, .long, XEN_MACHINE_TO_PHYSICAL
        note 13, .long, 1, 0, 1, 0
        note 16, .long, 1
        note 17, .long, 5
#endif

        .text
/* By a boot loader's 32-bit protocol, on plain hardware and under KVM. ESI: physical address of boot_params. */
        .globl native_entry
native_entry:
#ifdef LGUEST
        /* Paging is on, and this is ring 1. The host looks for these instructions to find the data. */
        cmpl $SUBARCH_LGUEST, BOOT_SUBARCH(%esi)
        jne 1f
        mov $LGUEST_INIT, %eax
        mov $PHYSICAL(lguest_data), %ebx
        int $LGUEST_VECTOR
        mov $initial_stack_end, %esp
        mov %esi, %eax
        mov $lguest_start, %ecx
        call *%ecx
1:
#endif
        cli
        cld
        mov %esi, %ebx
        mov $native_start, %edi
        jmp begin_high

/* By the ELF note for PVH. EBX: physical address of hvm_start_info. */
pvh_entry:
        cli
        cld
        mov $pvh_start, %edi

/* To the kernel's addresses, and with EBX as argument to the function in EDI. */
begin_high:
        mov $PHYSICAL(initial_stack_end), %esp
        call enable_paging
        mov $1f, %eax
        jmp *%eax
1:      mov $initial_stack_end, %esp
        /* The first processor's struct cpu is what a segment of the first table begins at. */
        mov $cpus, %eax
        mov %ax, boot_gdt + CPU_DATA + 2
        shr $16, %eax
        mov %al, boot_gdt + CPU_DATA + 4
        mov %ah, boot_gdt + CPU_DATA + 7
        lgdtl boot_gdt_pointer
        ljmp $KERNEL_CODE, $1f
1:      mov $KERNEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $CPU_DATA, %eax
        mov %eax, %fs
        mov %ebx, %eax
        call *%edi

#ifdef XEN
/* By Xen's ELF notes, as a paravirtual guest. ESI: start_info; Xen's own page tables map the kernel where it belongs. */
xen_entry:
        cld
        mov $initial_stack_end, %esp
        mov %esi, %eax
        call xen_start

/* Another processor, started by VCPUOP_up with its number in EAX and a stack of its own. */
        .globl xen_secondary_entry
xen_secondary_entry:
        cld
        call secondary_main
#endif

/* On initial_page_table, which has the lowest memory at both its addresses. */
enable_paging:
        mov %cr4, %eax
        or $PAGING_FEATURES, %eax
        mov %eax, %cr4
        mov $PHYSICAL(initial_page_table), %eax
        mov %eax, %cr3
        mov %cr0, %eax
        or $PAGING, %eax
        mov %eax, %cr0
        ret

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
        ljmpl $KERNEL_CODE, $(TRAMPOLINE + trampoline_32 - trampoline_begin)
        .code32
trampoline_32:
        mov $KERNEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $(TRAMPOLINE + PAGE_SIZE), %esp
        mov $PHYSICAL(enable_paging), %eax
        call *%eax
        mov $secondary_high, %eax
        jmp *%eax
        .balign 8
trampoline_gdt_pointer:
        .word boot_gdt_end - boot_gdt - 1
        .long PHYSICAL(boot_gdt)
trampoline_end:

        .text
        .globl secondary_high
secondary_high:
        mov secondary_stack, %esp
        mov secondary_number, %eax
        call secondary_main

        .data
        .balign 8
boot_gdt:
        .skip KERNEL_CODE
        .quad 0x00cf9b000000ffff        /* KERNEL_CODE */
        .quad 0x00cf93000000ffff        /* KERNEL_DATA */
        .skip CPU_DATA - KERNEL_DATA - 8
        .quad 0x00cf93000000ffff        /* CPU_DATA */
boot_gdt_end:
boot_gdt_pointer:
        .word boot_gdt_end - boot_gdt - 1
        .long boot_gdt

/*
 * The tables that plain hardware begins with: the lowest memory at 0 and at KERNEL_BASE, as much as there is room for
 * below DEVICE_BASE, and there a table for pages of devices.
 */
#define MAPPED_BYTES (DEVICE_BASE - KERNEL_BASE)
        .balign PAGE_SIZE
        .globl initial_page_table, device_table
initial_page_table:
#ifdef PAE
        .long PHYSICAL(initial_level2) + POINTER_TABLE, 0
        .quad 0, 0
        .long PHYSICAL(initial_level2) + POINTER_TABLE, 0
        .balign PAGE_SIZE
initial_level2:
        .set page, 0
        .rept MAPPED_BYTES / 0x200000
        .quad page + LARGE_PAGE
        .set page, page + 0x200000
        .endr
        .long PHYSICAL(device_table) + TABLE, 0
#else
        .macro lowest_memory
        .set page, 0
        .rept MAPPED_BYTES / 0x400000
        .long page + LARGE_PAGE
        .set page, page + 0x400000
        .endr
        .endm
        lowest_memory
        .fill KERNEL_SLOT - MAPPED_BYTES / 0x400000, 4, 0
        lowest_memory
        .long PHYSICAL(device_table) + TABLE
#endif
        .balign PAGE_SIZE
device_table:
        .skip PAGE_SIZE

        .bss
        .balign 16
        .skip KERNEL_STACK_SIZE
        .globl initial_stack_end
initial_stack_end:
