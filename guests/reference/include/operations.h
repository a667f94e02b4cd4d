#pragma once
#include "arch-operations.h"
#include "layout.h"
#include "types.h"

/*
 * The operations in which interfaces differ: the pv_*_ops that the one paravirt_ops was split into in 2007, as far as this
 * kernel uses them. docs/operations.md is their contract; the names are those of the catalogue in another spelling.
 *
 * A row is: result, name, parameters. Operations of PV_*_KEEP lists have a calling convention of their own: argument and
 * result in one register (or a pair), all other registers kept, so that where nothing is to be done a site is nothing but no-ops.
 */
struct memory_descriptor;
struct table_pointer;
/* An entry of a page table as a number. */
#if LEVELS == 3
typedef u64 entry_bits;
#else
typedef word entry_bits;
#endif
typedef struct { entry_bits value; } pte_t;
typedef struct { entry_bits value; } pmd_t;
typedef struct { entry_bits value; } pud_t;
typedef struct { entry_bits value; } pgd_t;
typedef struct pte_entry pte_entry;
typedef struct pmd_entry pmd_entry;
typedef struct pud_entry pud_entry;
typedef struct pgd_entry pgd_entry;

#define PV_INIT_OPS(X) \
  X(u32, patch, (u32 type, u32 clobbers, u8 *buffer, word site, u32 length)) \
  X(void, arch_setup, (void)) \
  X(const char *, memory_setup, (void)) \
  X(void, post_allocator_init, (void)) \
  X(void, banner, (void))

#define PV_TIME_OPS(X) \
  X(void, time_init, (void)) \
  X(u64, sched_clock, (void)) \
  X(u64, get_cpu_khz, (void))

#define PV_IRQ_KEEP_OPS(X) \
  X(word, save_fl, (void)) \
  X(void, restore_fl, (word flags)) \
  X(void, irq_disable, (void)) \
  X(void, irq_enable, (void))

#define PV_IRQ_OPS(X) \
  PV_IRQ_KEEP_OPS(X) \
  X(void, init_irq, (void)) \
  X(void, safe_halt, (void)) \
  X(void, halt, (void)) \
  ARCH_IRQ_OPS(X)

#define PV_CPU_OPS(X) \
  X(void, load_gdt, (const struct table_pointer *)) \
  X(void, load_idt, (const struct table_pointer *)) \
  X(void, load_tr_desc, (void)) \
  X(void, write_gdt_entry, (void *table, u32 entry, word low, word high)) \
  X(void, load_sp0, (word stack)) \
  X(void, cpuid, (u32 *registers)) \
  X(u64, read_msr, (u32 number)) \
  X(void, write_msr, (u32 number, u32 low, u32 high)) \
  X(u64, read_tsc, (void)) \
  X(void, io_delay, (void)) \
  ARCH_CPU_OPS(X) \
  X(void, iret, (void))

#define PV_APIC_OPS(X) \
  X(void, apic_write, (u32 number, u32 value)) \
  X(u32, apic_read, (u32 number)) \
  X(void, setup_boot_clock, (void)) \
  X(void, setup_secondary_clock, (void)) \
  X(void, startup_ipi_hook, (u32 apic, word rip, word stack))

#define PV_MISC_OPS(X) X(void, set_lazy_mode, (u32 mode))

/* Where VMI's host may translate what is read; the other tables are read as memory. */
#if LEVELS == 3
#define READS_BY_OPERATION 1
#define PV_READ_OPS(X) \
  X(entry_bits, get_pte, (const pte_entry *)) \
  X(entry_bits, get_pmd, (const pmd_entry *)) \
  X(entry_bits, get_pgd, (const pgd_entry *))
#else
#define READS_BY_OPERATION 0
#define PV_READ_OPS(X)
#endif

/* What there is for each level between the lowest and the highest. */
#if LEVELS >= 3
#define PV_PMD_KEEP_OPS(X) X(entry_bits, pmd_val, (entry_bits)) X(entry_bits, make_pmd, (entry_bits))
#define PV_PMD_OPS(X) \
  X(void, alloc_pd, (struct memory_descriptor *, word page)) \
  X(void, release_pd, (word page)) \
  X(void, set_pmd, (pmd_entry *, entry_bits entry))
#else
#define PV_PMD_KEEP_OPS(X)
#define PV_PMD_OPS(X)
#endif
#if LEVELS >= 4
#define PV_PUD_KEEP_OPS(X) X(entry_bits, pud_val, (entry_bits)) X(entry_bits, make_pud, (entry_bits))
#define PV_PUD_OPS(X) \
  X(void, alloc_pud, (struct memory_descriptor *, word page)) \
  X(void, release_pud, (word page)) \
  X(void, set_pud, (pud_entry *, entry_bits entry))
#else
#define PV_PUD_KEEP_OPS(X)
#define PV_PUD_OPS(X)
#endif

#define PV_MMU_KEEP_OPS(X) \
  X(entry_bits, pte_val, (entry_bits)) \
  X(entry_bits, pgd_val, (entry_bits)) \
  X(entry_bits, make_pte, (entry_bits)) \
  X(entry_bits, make_pgd, (entry_bits)) \
  PV_PMD_KEEP_OPS(X) \
  PV_PUD_KEEP_OPS(X)

#define PV_MMU_OPS(X) \
  PV_MMU_KEEP_OPS(X) \
  X(void, pagetable_setup_start, (pgd_entry *base)) \
  X(void, pagetable_setup_done, (pgd_entry *base)) \
  X(word, read_cr2, (void)) \
  X(word, read_cr3, (void)) \
  X(void, write_cr3, (word root)) \
  X(u32, pgd_alloc, (struct memory_descriptor *)) \
  X(void, pgd_free, (struct memory_descriptor *)) \
  X(void, activate_mm, (struct memory_descriptor *previous, struct memory_descriptor *next)) \
  X(void, dup_mmap, (struct memory_descriptor *old, struct memory_descriptor *copy)) \
  X(void, exit_mmap, (struct memory_descriptor *)) \
  X(void, flush_tlb_user, (void)) \
  X(void, flush_tlb_single, (word address)) \
  X(void, flush_tlb_others, (word cpus, struct memory_descriptor *, word address)) \
  X(void, alloc_pt, (struct memory_descriptor *, word page)) \
  X(void, alloc_pd_clone, (word page, word from, u32 start, u32 count)) \
  X(void, release_pt, (word page)) \
  PV_PMD_OPS(X) \
  PV_PUD_OPS(X) \
  PV_READ_OPS(X) \
  X(void, set_pte_at, (struct memory_descriptor *, word address, pte_entry *, entry_bits entry)) \
  X(void, set_pgd, (pgd_entry *, entry_bits entry)) \
  X(void, pte_clear, (struct memory_descriptor *, word address, pte_entry *)) \
  X(void, pte_update, (struct memory_descriptor *, word address, pte_entry *)) \
  X(entry_bits, ptep_modify_prot_start, (struct memory_descriptor *, word address, pte_entry *)) \
  X(void, ptep_modify_prot_commit, (struct memory_descriptor *, word address, pte_entry *, entry_bits entry)) \
  X(void *, set_fixmap, (u32 index, entry_bits physical))

#define PV_GROUPS(G) \
  G(init, PV_INIT_OPS) G(time, PV_TIME_OPS) G(irq, PV_IRQ_OPS) G(cpu, PV_CPU_OPS) \
  G(apic, PV_APIC_OPS) G(misc, PV_MISC_OPS) G(mmu, PV_MMU_OPS)

#define PV_FIELD(result, name, parameters) result(*name) parameters;
#define PV_STRUCTURE(group, list) struct pv_##group##_ops { list(PV_FIELD) };
PV_GROUPS(PV_STRUCTURE)

/* What a kernel knows about its hypervisor before it calls anything. */
struct pv_info {
  const char *name;
  u32 kernel_rpl;
  /* Whether spaces may have the tables below the kernel's entries of the highest table in common. */
  u32 shares_kernel_tables;
};
extern struct pv_info pv_info;

#define PV_DECLARE(group, list) extern struct pv_##group##_ops pv_##group##_ops;
PV_GROUPS(PV_DECLARE)

/* Only numbers the operations; the structures above are what is called. */
struct paravirt_template {
#define PV_MEMBER(group, list) struct pv_##group##_ops group;
  PV_GROUPS(PV_MEMBER)
};
#define PV_TYPE(group, name) (offsetof(struct paravirt_template, group.name) / sizeof(void *))
#define PV_OPERATIONS (sizeof(struct paravirt_template) / sizeof(void *))

/* Operations that assembly asks for. */
#define SITES_IN_ASSEMBLY(X) ARCH_SITES_IN_ASSEMBLY(X) X(cpu, iret)

enum lazy_mode { LAZY_NONE, LAZY_MMU, LAZY_CPU };
