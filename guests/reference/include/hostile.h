#pragma once
#include "memory.h"
#include "registers.h"

/* Calls that no sound kernel makes: `hostile=SEED` on the command line instead of any work. */
u64 hostile_seed(void);
u64 hostile_random(u64 below);
u64 hostile_number(void);

/* Prints for ever: `chatter` on the command line. */
void chatter(void) NORETURN;

/* Does something that may end by an exception. 0, or the exception's vector and 1, with a flag if a program had it. */
#define HOSTILE_IN_PROGRAM 0x100
u32 hostile_attempt(void (*what)(void));
/* Whether an exception was expected: the kernel goes on behind the attempt then. */
u32 recover(struct frame *frame);

/* An address space with pages in a row that the kernel can do without; it is loaded from here on. */
#define HOSTILE_BASE USER_MAPPINGS
#define HOSTILE_PAGES 32
#define HOSTILE_END (HOSTILE_BASE + HOSTILE_PAGES * PAGE_SIZE)
extern struct memory_descriptor *hostile_mm;
void hostile_space(void);
word hostile_address(void);
/* A page behind one of the addresses as it was at first, by number, and the kernel's address of it. */
word hostile_page(void);
/* Some entry of the lowest level, and what it could hold. */
void *hostile_entry_pointer(void);
entry_bits hostile_entry(void);
/* Uses an address of the space, whatever comes of it. */
void hostile_touch(void);
/* A call of the host by a program, with that in EAX and EBX. */
void hostile_program(u32 number);

void xen_be_hostile(void);
void kvm_be_hostile(void);
void vmi_be_hostile(void);
/* Before a host examines tables: those of the kernel's part, as they are and as they will be. */
void vmi_be_hostile_early(entry_bits *boot_directory, entry_bits *kernel_directory);
void lguest_be_hostile(void);
