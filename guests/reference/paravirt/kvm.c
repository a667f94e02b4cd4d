#include "choices.h"
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
#define FEATURE_MMU_OP (1u << 2)
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
  if (features & FEATURE_CLOCK) native_write_msr(MSR_CLOCK, (u32)physical(cpu->kvm_clock) | ENABLED, 0);
  if (features & FEATURE_STEAL_TIME) native_write_msr(MSR_STEAL_TIME, (u32)physical(cpu->kvm_steal_time) | ENABLED, 0);
  native_init_irq();
}

static u64 kvm_sched_clock(void) { return pvclock_read(this_cpu()->kvm_clock); }

static u64 kvm_get_cpu_khz(void) { return pvclock_khz(this_cpu()->kvm_clock); }

/* A processor that does not run flushes before it does; the others are interrupted. */
static void kvm_flush_tlb_others(word targets, struct memory_descriptor *mm, word address) {
  for (u32 number = 0; number < cpu_count; number++) {
    u8 *state = &cpus[number].kvm_steal_time[STEAL_PREEMPTED];
    if (!(targets >> number & 1)) continue;
    if (*(volatile u8 *)state == NOT_RUNNING &&
        __sync_bool_compare_and_swap(state, NOT_RUNNING, NOT_RUNNING | FLUSH_FIRST)) targets &= ~((word)1 << number);
  }
  native_flush_tlb_others(targets, mm, address);
}

/*
 * Changes of page tables by hypercall, as hosts without nested paging offered them in 2008: records in a buffer, so that
 * a host that keeps shadows hears of a whole section at once.
 */
#define HYPERCALL_MMU_OP 2
#define RECORD_WRITE 1
#define RECORD_FLUSH 2
#define RECORD_RELEASE 3

static struct cpu_queue {
  u32 bytes;
  u8 buffer[1024] ALIGNED(8);
} queues[MOST_CPUS];

static sword mmu_operations(word bytes, word address) {
  sword result;
  asm volatile("vmcall" : "=a"(result) : "a"(HYPERCALL_MMU_OP), "b"(bytes), "c"(address), "d"(0) : "memory");
  return result;
}

/* The host may stop after each record and says how far it came. */
static void flush_queue(void) {
  struct cpu_queue *queue = &queues[this_cpu()->number];
  if (queue->bytes == 0) return;
  if (this_cpu()->lazy_mode == LAZY_MMU) lazy_batches++;
  for (word done = 0; done < queue->bytes;) {
    sword result = mmu_operations(queue->bytes - done, physical(queue->buffer) + done);
    if (result <= 0) panic("KVM refused to change a page table: -%u", (word)-result);
    done += (word)result;
  }
  queue->bytes = 0;
}

/* In a lazy section it waits there for the others. */
static void add_record(const void *record, u32 bytes) {
  struct cpu_queue *queue = &queues[this_cpu()->number];
  if (queue->bytes + bytes > sizeof(queue->buffer)) flush_queue();
  copy(queue->buffer + queue->bytes, record, bytes);
  queue->bytes += bytes;
  if (this_cpu()->lazy_mode == LAZY_MMU) lazy_updates++;
  else flush_queue();
}

static void write_entry(const void *pointer, entry_bits entry) {
  u64 record[] = {RECORD_WRITE, physical(pointer), entry};
  add_record(record, sizeof(record));
}

static void kvm_set_pte_at(struct memory_descriptor *mm, word address, pte_entry *pointer, entry_bits entry) {
  (void)mm, (void)address;
  write_entry(pointer, entry);
}
static void kvm_pte_clear(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  (void)mm, (void)address;
  write_entry(pointer, 0);
}
static void kvm_set_pgd(pgd_entry *pointer, entry_bits entry) { write_entry(pointer, entry); }
#if LEVELS >= 3
static void kvm_set_pmd(pmd_entry *pointer, entry_bits entry) { write_entry(pointer, entry); }
#endif
#if LEVELS >= 4
static void kvm_set_pud(pud_entry *pointer, entry_bits entry) { write_entry(pointer, entry); }
#endif

static void kvm_flush_tlb_user(void) {
  u64 record = RECORD_FLUSH;
  add_record(&record, sizeof(record));
}

static void kvm_release_pt(word page) {
  u64 record[] = {RECORD_RELEASE, page * PAGE_SIZE};
  add_record(record, sizeof(record));
}

static void kvm_set_lazy_mode(u32 mode) {
  if (mode == LAZY_NONE) flush_queue();
}

CHOICES(kvm) = {
  CHOICE(ON_KVM, irq, init_irq, kvm_init_irq),
  CHOICE_IF(ON_KVM, time, sched_clock, kvm_sched_clock, FEATURE_CLOCK),
  CHOICE_IF(ON_KVM, time, get_cpu_khz, kvm_get_cpu_khz, FEATURE_CLOCK),
  CHOICE_IF(ON_KVM, cpu, io_delay, paravirt_nop, FEATURE_NO_IO_DELAY),
  CHOICE_IF(ON_KVM, mmu, flush_tlb_others, kvm_flush_tlb_others, FEATURE_STEAL_TIME | FEATURE_FLUSH),
  CHOICE_IF(ON_KVM, mmu, set_pte_at, kvm_set_pte_at, FEATURE_MMU_OP),
  CHOICE_IF(ON_KVM, mmu, pte_clear, kvm_pte_clear, FEATURE_MMU_OP),
  CHOICE_IF(ON_KVM, mmu, set_pgd, kvm_set_pgd, FEATURE_MMU_OP),
  CHOICE_IF(ON_KVM, mmu, flush_tlb_user, kvm_flush_tlb_user, FEATURE_MMU_OP),
  CHOICE_IF(ON_KVM, mmu, release_pt, kvm_release_pt, FEATURE_MMU_OP),
#if LEVELS >= 3
  CHOICE_IF(ON_KVM, mmu, set_pmd, kvm_set_pmd, FEATURE_MMU_OP),
  CHOICE_IF(ON_KVM, mmu, release_pd, kvm_release_pt, FEATURE_MMU_OP),
#endif
#if LEVELS >= 4
  CHOICE_IF(ON_KVM, mmu, set_pud, kvm_set_pud, FEATURE_MMU_OP),
  CHOICE_IF(ON_KVM, mmu, release_pud, kvm_release_pt, FEATURE_MMU_OP),
#endif
  CHOICE_IF(ON_KVM, misc, set_lazy_mode, kvm_set_lazy_mode, FEATURE_MMU_OP),
};

static const void *if_offered(const struct choice *choice) {
  return (features & choice->needs) == choice->needs ? choice->function : NULL;
}

void kvm_detect(void) {
  u32 leaf[4] = {SIGNATURE_LEAF, 0, 0, 0};
  native_cpuid(leaf);
  if (!same_bytes(&leaf[1], "KVMKVMKVM\0\0\0", 12)) return;
  pv_info.name = "KVM";
  leaf[0] = FEATURES_LEAF;
  native_cpuid(leaf);
  features = leaf[0];
  install_operations(ON_KVM, if_offered);
}
