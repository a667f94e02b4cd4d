#pragma once
#include "cpu.h"

/* What an interface sets before it calls start_kernel: how the machine ends, and how its other processors begin. */
extern void (*end_machine)(void);
extern void (*crash_machine)(void);
extern void (*start_cpus)(void);

void start_kernel(void) NORETURN;
void start_pc_cpus(void);
void kvm_detect(void);
void vmi_detect(void);
void lguest_start(word boot_parameters) NORETURN;
void setup_descriptors(struct cpu *cpu);

/* entry.S */
extern pgd_t initial_page_table[];
/* What the kernel is on until setup_paging. */
extern pgd_entry *boot_page_table;
extern entry_bits device_table[];
extern u8 trampoline_begin[], trampoline_end[];
/* Where a processor begins that is started in a state of the kernel's. */
extern u8 secondary_high[];
extern const struct vector { word number; void (*entry)(void); } vectors[], vectors_end[];

/* How the kernel's part of swapper_pg_dir comes to be: see paging-start.c. */
u32 begins_on_swapper(void);
void setup_paging(void);
void place_clone_probe(pgd_entry *in_use, pgd_entry *other);
void check_clone_probe(void);
