#include "console.h"
#include "memory.h"
#include "native.h"
#include "paravirt-tables.h"
#include "pvclock.h"
#include "start.h"

/*
 * KVM (Documentation/virt/kvm/x86): hardware with a clock in memory, and with a word for each processor that says
 * whether it runs, so that one that does not need not be interrupted.
 */
#define SIGNATURE_LEAF 0x40000000
#define FEATURES_LEAF 0x40000001
#define FEATURE_NO_IO_DELAY (1u << 1)
#define FEATURE_CLOCK (1u << 3)
#define FEATURE_STEAL_TIME (1u << 5)
#define FEATURE_FLUSH (1u << 9)
#define MSR_CLOCK 0x4b564d01
#define MSR_STEAL_TIME 0x4b564d03
#define ENABLED 1
#define STEAL_PREEMPTED 16
#define NOT_RUNNING 1
#define FLUSH_FIRST 2

static u32 features;

/* The first thing that each processor does with its interrupts; by then GS is its own. */
static void kvm_init_irq(void) {
  struct cpu *cpu = this_cpu();
  if (features & FEATURE_CLOCK) native_write_msr(MSR_CLOCK, physical(cpu->kvm_clock) | ENABLED);
  if (features & FEATURE_STEAL_TIME) native_write_msr(MSR_STEAL_TIME, physical(cpu->kvm_steal_time) | ENABLED);
  native_init_irq();
}

static u64 kvm_sched_clock(void) { return pvclock_read(this_cpu()->kvm_clock); }

static u64 kvm_get_cpu_khz(void) { return pvclock_khz(this_cpu()->kvm_clock); }

/* A processor that does not run flushes before it does; the others are interrupted. */
static void kvm_flush_tlb_others(u64 targets, struct memory_descriptor *mm, u64 address) {
  for (u32 number = 0; number < cpu_count; number++) {
    u8 *state = &cpus[number].kvm_steal_time[STEAL_PREEMPTED];
    if (!(targets >> number & 1)) continue;
    if (*(volatile u8 *)state == NOT_RUNNING &&
        __sync_bool_compare_and_swap(state, NOT_RUNNING, NOT_RUNNING | FLUSH_FIRST)) targets &= ~(1UL << number);
  }
  native_flush_tlb_others(targets, mm, address);
}

void kvm_detect(void) {
  u32 leaf[4] = {SIGNATURE_LEAF, 0, 0, 0};
  native_cpuid(leaf);
  if (!same_bytes(&leaf[1], "KVMKVMKVM\0\0\0", 12)) return;
  pv_info.name = "KVM";
  leaf[0] = FEATURES_LEAF;
  native_cpuid(leaf);
  features = leaf[0];
  pv_irq_ops.init_irq = kvm_init_irq;
  if (features & FEATURE_CLOCK) {
    pv_time_ops.sched_clock = kvm_sched_clock;
    pv_time_ops.get_cpu_khz = kvm_get_cpu_khz;
  }
  if (features & FEATURE_NO_IO_DELAY) pv_cpu_ops.io_delay = paravirt_nop;
  if (features & FEATURE_STEAL_TIME && features & FEATURE_FLUSH) pv_mmu_ops.flush_tlb_others = kvm_flush_tlb_others;
}
