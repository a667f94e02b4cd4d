#pragma once
#include "types.h"

/*
 * VMware's Virtual Machine Interface, revision 3.0, as far as this kernel uses it; and two calls of the draft of early 2006,
 * by which entries of page tables are read where they hold machine frame numbers. They have their numbers in the draft, which
 * 3.0 uses for nothing. Only a ROM that says so has them.
 */

/* Calls by number: what the kernel asks the ROM for the code of. */
enum vmi_call {
  VMI_CPUID = 0,
  VMI_SET_GDT = 3,
  VMI_SET_IDT = 5,
  VMI_SET_TR = 6,
  VMI_WRITE_GDT_ENTRY = 11,
  VMI_UPDATE_KERNEL_STACK = 14,
  VMI_SET_CR3 = 17,
  VMI_GET_CR2 = 20,
  VMI_GET_CR3 = 21,
  VMI_RDTSC = 27,
  VMI_ENABLE_INTERRUPTS = 29,
  VMI_DISABLE_INTERRUPTS = 30,
  VMI_GET_INTERRUPT_MASK = 31,
  VMI_SET_INTERRUPT_MASK = 32,
  VMI_IRET = 33,
  VMI_HALT = 35,
  VMI_SHUTDOWN = 37,
  VMI_SET_PXE = 38,
  VMI_SET_PXE_LONG = 39,
  VMI_UPDATE_PXE = 40,
  VMI_UPDATE_PXE_LONG = 41,
  VMI_ALLOCATE_PAGE = 44,
  VMI_RELEASE_PAGE = 45,
  VMI_INVAL_PAGE = 46,
  VMI_FLUSH_TLB = 47,
  VMI_SET_LINEAR_MAPPING = 48,
  VMI_GET_PXE_LONG = 49,
  VMI_SWAP_PXE_LONG = 50,
  VMI_SET_INITIAL_AP_STATE = 62,
  VMI_APIC_WRITE = 63,
  VMI_APIC_READ = 64,
  VMI_IO_DELAY = 65,
  VMI_GET_CYCLE_FREQUENCY = 66,
  VMI_GET_CYCLE_COUNTER = 67,
  VMI_SET_ALARM = 68,
  VMI_SET_LAZY_MODE = 73,
};

/* How the code of a call is used. */
enum relocation { RELOCATION_NONE, RELOCATION_CALL, RELOCATION_JUMP, RELOCATION_NOP };

/* Where it is looked for, at multiples of the step. */
#define ROM_START 0xc0000
#define ROM_END 0xe0000
#define ROM_STEP 2048
#define ROM_SIGNATURE 0xaa55
#define API_MAJOR 3

struct vmi_rom {
  u16 signature;
  u8 units;
  u8 bios_entry[5];
  char vmi_signature[4]; /* cVmi */
  u8 minor, major;
  u8 jump_slots, unused;
  u32 virtual_top;
  u16 unused2, license, pci_header, pnp_header;
  u8 unused3[4];
  char extension[4]; /* GPxE, or nothing */
  u8 unused4[4];
  u8 use_machine_frames[8];
  u8 unused5[0x50];
  u8 initialise[8], relocate[8];
};
_Static_assert(offsetof(struct vmi_rom, use_machine_frames) == 0x28, "the extension's slot is where the ROM says");
_Static_assert(offsetof(struct vmi_rom, initialise) == 0x80, "the ROM's first slot is where the interface says");

/* Of pages and entries: the level that they are of. */
#define PAGE_PT 0x01
#define PAGE_PD 0x02
#define PAGE_PDP 0x04
/* Of pages. */
#define PAGE_PAE 0x10
#define PAGE_CLONE 0x20
#define PAGE_ZEROED 0x40
/* Of entries: they map an address of the tables in use, which stands in the flags' upper bits. */
#define ENTRY_CURRENT 0x10

#define FLUSH_USER 1

#define CYCLES_AVAILABLE 1
#define ALARM_PERIODIC 0x100
#define ALARM_LOCAL_TIMER 0x10000

struct ap_state {
  u32 cr0, cr2, cr3, cr4;
  u64 efer;
  u32 eip, eflags, eax, ebx, ecx, edx, esp, ebp, esi, edi;
  u16 cs, ss, ds, es, fs, gs, ldtr;
  u16 gdt_limit;
  u32 gdt_base, idt_base;
  u16 idt_limit;
} __attribute__((packed));
