#pragma once
#include "paravirt.h"

/* Operations as plain hardware has them. Those that are an instruction or two are functions of native-instructions.c. */
#define NATIVE_DECLARE(group, op) void native_##op(void);
#ifdef PARAVIRT
NATIVE_INSTRUCTIONS(NATIVE_DECLARE)
#endif

void native_load_gdt(const struct table_pointer *pointer);
void native_load_idt(const struct table_pointer *pointer);
void native_load_tr_desc(void);
void native_write_gdt_entry(void *table, u32 entry, word low, word high);
void native_load_sp0(word stack);
void native_cpuid(u32 *registers);
u64 native_read_msr(u32 number);
void native_write_msr(u32 number, u32 low, u32 high);
void native_io_delay(void);

void native_init_irq(void);
void native_time_init(void);
u64 native_sched_clock(void);
u64 native_get_cpu_khz(void);
void native_apic_write(u32 number, u32 value);
u32 native_apic_read(u32 number);
void native_setup_boot_clock(void);
void native_setup_secondary_clock(void);

void native_pagetable_setup_start(pgd_entry *base);
void native_pagetable_setup_done(pgd_entry *base);
u32 native_pgd_alloc(struct memory_descriptor *mm);
void native_flush_tlb_user(void);
void native_flush_tlb_others(word targets, struct memory_descriptor *mm, word address);
void native_set_entry(void *pointer, entry_bits entry);
void native_set_pte_at(struct memory_descriptor *mm, word address, pte_entry *pointer, entry_bits entry);
void native_set_pmd(pmd_entry *pointer, entry_bits entry);
void native_set_pud(pud_entry *pointer, entry_bits entry);
void native_set_pgd(pgd_entry *pointer, entry_bits entry);
void native_pte_clear(struct memory_descriptor *mm, word address, pte_entry *pointer);
entry_bits native_ptep_modify_prot_start(struct memory_descriptor *mm, word address, pte_entry *pointer);
void native_ptep_modify_prot_commit(struct memory_descriptor *mm, word address, pte_entry *pointer, entry_bits entry);
void *native_set_fixmap(u32 index, entry_bits physical);

/* What plain hardware does nothing for. A kernel without paravirtualization does not even call it. */
#ifndef PARAVIRT
#define native_activate_mm(previous, next) ((void)(previous), (void)(next))
#define native_dup_mmap(old, copy) ((void)(old), (void)(copy))
#define native_exit_mmap(mm) ((void)(mm))
#define native_pgd_free(mm) ((void)(mm))
#define native_alloc_pt(mm, page) ((void)(mm), (void)(page))
#define native_alloc_pd(mm, page) ((void)(mm), (void)(page))
#define native_alloc_pud(mm, page) ((void)(mm), (void)(page))
#define native_alloc_pd_clone(page, from, start, count) ((void)(page), (void)(from), (void)(start), (void)(count))
#define native_release_pt(page) ((void)(page))
#define native_release_pd(page) ((void)(page))
#define native_release_pud(page) ((void)(page))
#define native_pte_update(mm, address, pointer) ((void)(mm), (void)(address), (void)(pointer))
#define native_set_lazy_mode(mode) ((void)(mode))
#define native_startup_ipi_hook(apic, rip, stack) ((void)(apic), (void)(rip), (void)(stack))
#endif
