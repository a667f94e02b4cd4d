#include "choices.h"
#include "native.h"
#include "paravirt-tables.h"

/* The operations as they are until an interface changes some: those of plain hardware. */

#define NATIVE(op) (void *)native_##op
#define NOTHING (void *)paravirt_nop

struct pv_init_ops pv_init_ops = {
  .patch = patch_site,
  .arch_setup = NOTHING,
  .memory_setup = native_memory_setup,
  .post_allocator_init = NOTHING,
  .banner = default_banner,
};

struct pv_time_ops pv_time_ops = {
  .time_init = NATIVE(time_init),
  .sched_clock = NATIVE(sched_clock),
  .get_cpu_khz = NATIVE(get_cpu_khz),
};

struct pv_irq_ops pv_irq_ops = {
  .save_fl = NATIVE(save_fl),
  .restore_fl = NATIVE(restore_fl),
  .irq_disable = NATIVE(irq_disable),
  .irq_enable = NATIVE(irq_enable),
  .init_irq = NATIVE(init_irq),
  .safe_halt = NATIVE(safe_halt),
  .halt = NATIVE(halt),
  ARCH_IRQ_NATIVE
};

struct pv_cpu_ops pv_cpu_ops = {
  .load_gdt = NATIVE(load_gdt),
  .load_idt = NATIVE(load_idt),
  .load_tr_desc = NATIVE(load_tr_desc),
  .write_gdt_entry = NATIVE(write_gdt_entry),
  .load_sp0 = NATIVE(load_sp0),
  .cpuid = NATIVE(cpuid),
  .read_msr = NATIVE(read_msr),
  .write_msr = NATIVE(write_msr),
  .read_tsc = NATIVE(read_tsc),
  .io_delay = NATIVE(io_delay),
  ARCH_CPU_NATIVE
  .iret = NATIVE(iret),
};

struct pv_apic_ops pv_apic_ops = {
  .apic_write = NATIVE(apic_write),
  .apic_read = NATIVE(apic_read),
  .setup_boot_clock = NATIVE(setup_boot_clock),
  .setup_secondary_clock = NATIVE(setup_secondary_clock),
  .startup_ipi_hook = NOTHING,
};

struct pv_misc_ops pv_misc_ops = {.set_lazy_mode = NOTHING};

struct pv_mmu_ops pv_mmu_ops = {
  .pte_val = NATIVE(pte_val),
  .pgd_val = NATIVE(pgd_val),
  .make_pte = NATIVE(make_pte),
  .make_pgd = NATIVE(make_pgd),
  .pagetable_setup_start = NATIVE(pagetable_setup_start),
  .pagetable_setup_done = NATIVE(pagetable_setup_done),
  .read_cr2 = NATIVE(read_cr2),
  .read_cr3 = NATIVE(read_cr3),
  .write_cr3 = NATIVE(write_cr3),
  .pgd_alloc = NATIVE(pgd_alloc),
  .pgd_free = NOTHING,
  .activate_mm = NOTHING,
  .dup_mmap = NOTHING,
  .exit_mmap = NOTHING,
  .flush_tlb_user = NATIVE(flush_tlb_user),
  .flush_tlb_single = NATIVE(flush_tlb_single),
  .flush_tlb_others = NATIVE(flush_tlb_others),
  .alloc_pt = NOTHING,
  .alloc_pd_clone = NOTHING,
  .release_pt = NOTHING,
  .set_pte_at = NATIVE(set_pte_at),
  .set_pgd = NATIVE(set_pgd),
  .pte_clear = NATIVE(pte_clear),
  .pte_update = NOTHING,
  .ptep_modify_prot_start = NATIVE(ptep_modify_prot_start),
  .ptep_modify_prot_commit = NATIVE(ptep_modify_prot_commit),
  .set_fixmap = NATIVE(set_fixmap),
#if LEVELS >= 3
  .pmd_val = NATIVE(pmd_val),
  .make_pmd = NATIVE(make_pmd),
  .alloc_pd = NOTHING,
  .release_pd = NOTHING,
  .set_pmd = NATIVE(set_pmd),
#endif
#if READS_BY_OPERATION
  .get_pte = NATIVE(get_pte),
  .get_pmd = NATIVE(get_pmd),
  .get_pgd = NATIVE(get_pgd),
#endif
#if LEVELS >= 4
  .pud_val = NATIVE(pud_val),
  .make_pud = NATIVE(make_pud),
  .alloc_pud = NOTHING,
  .release_pud = NOTHING,
  .set_pud = NATIVE(set_pud),
#endif
};

void paravirt_nop(void) {}

void default_banner(void) {}

#define ONE_MORE(result, name, parameters) +1
#define KEPT_init 0
#define KEPT_time 0
#define KEPT_irq (PV_IRQ_KEEP_OPS(ONE_MORE))
#define KEPT_cpu 0
#define KEPT_apic 0
#define KEPT_misc 0
#define KEPT_mmu (PV_MMU_KEEP_OPS(ONE_MORE))

const struct operation_group operation_groups[] = {
#define GROUP(group, list) \
  {(void **)&pv_##group##_ops, offsetof(struct paravirt_template, group) / sizeof(void *), \
   sizeof(struct pv_##group##_ops) / sizeof(void *), KEPT_##group},
  PV_GROUPS(GROUP)
};
const u32 operation_group_count = COUNT(operation_groups);

static void **slot_of(u32 type) {
  const struct operation_group *group = operation_groups;
  while (type >= group->first + group->count) group++;
  return group->operations + (type - group->first);
}

void install_operations(enum interface_number interface, const void *(*resolve)(const struct choice *)) {
  for (const struct choice *choice = choices; choice < choices_end; choice++) {
    if (choice->interface != interface) continue;
    const void *function = resolve(choice);
    if (function) *slot_of(choice->type) = (void *)function;
  }
}

const void *as_chosen(const struct choice *choice) { return choice->function; }

volatile u32 sites_are_patched __attribute__((section(".data"))) = 0;

/* What sites in assembly call through. */
#define EXPORT_SLOT(group, op) \
  asm volatile(".globl slot_" #group "_" #op "\n\t.set slot_" #group "_" #op ", pv_" #group "_ops + %c0" \
               : : "i"(offsetof(struct pv_##group##_ops, op)));

USED static void export_slots(void) { SITES_IN_ASSEMBLY(EXPORT_SLOT) }
