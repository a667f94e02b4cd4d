#pragma once
#include "layout.h"
#include "paravirt.h"
#include "registers.h"

struct process;

struct mmu_update { u64 pointer, value; };
struct multicall { word op; sword result; word arguments[6]; };
#define BATCH 32

/* One processor; a segment register points to its own while the kernel runs. The host writes into some of the parts. */
struct cpu {
  struct cpu *self;
  struct process *current;
  u32 number, apic;
  u32 is_online, is_stopped;
  volatile u32 flush_requested;
  volatile word ticks;
  word root; /* Xen: the table that it runs on */
  u8 xen_info[64] ALIGNED(64); /* CPU_XEN_INFO */
  u8 kvm_steal_time[64];
  u8 kvm_clock[64];
  struct task_state task ALIGNED(16);
  u32 lazy_mode;
  /* What Xen has not been told of yet. */
  u32 updates, calls;
  struct mmu_update update[BATCH];
  struct multicall call[BATCH];
  u32 timer_port;
} ALIGNED(PAGE_SIZE);

extern struct cpu cpus[MOST_CPUS];
extern u32 cpu_count;
extern u64 gdt_pages[MOST_CPUS][PAGE_SIZE / 8];

static inline struct cpu *this_cpu(void) {
  struct cpu *self;
  asm volatile("mov %%" CPU_SEGMENT ":0, %0" : "=r"(self));
  return self;
}

/* Makes it what this_cpu returns, until setup_descriptors does that too. */
void set_this_cpu(struct cpu *cpu);

/* Turns of a loop that waits for another processor. */
static inline void relax(void) { asm volatile("pause" ::: "memory"); }

static inline word save_flags(void) {
  word flags = 0;
  PV_KEEP(irq, save_fl, SITE, flags);
  return flags;
}
static inline void restore_flags(word flags) { PV_KEEP(irq, restore_fl, SITE, flags); }
static inline void disable_interrupts(void) {
  word none = 0;
  PV_KEEP(irq, irq_disable, SITE_PADDED, none);
}

word idle_stack_of(u32 number);
void bring_up(u32 apic, void (*begin)(struct cpu *cpu, word stack));
void secondary_main(u32 number) NORETURN;
void stop_others(void);
void resume_others(void);
void answer_stop(void);
void answer_flush(void);
void lock_kernel(void);
void unlock_kernel(void);
NORETURN void panic(const char *format, ...);
