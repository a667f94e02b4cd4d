#pragma once
#include "layout.h"
#include "paravirt.h"

struct process;

/* What an exception, an interrupt or a system call leaves on the kernel's stack; vectors.S pushes the upper part. */
struct frame {
  u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
  u64 vector, error, rip, cs, rflags, rsp, ss;
};
#define FROM_USER(frame) (((frame)->cs & 3) != 0)

struct task_state {
  u32 unused;
  u64 stacks[3];
  u64 more[11];
  u16 unused2, io_map;
} __attribute__((packed));

struct table_pointer {
  u16 limit;
  u64 base;
} __attribute__((packed));

struct mmu_update { u64 pointer, value; };
struct multicall { u64 op; s64 result; u64 arguments[6]; };
#define BATCH 32

/* One processor; GS points to its own while the kernel runs. The host writes into some of the parts. */
struct cpu {
  struct cpu *self;
  struct process *current;
  u32 number, apic;
  u32 is_online, is_stopped;
  volatile u32 flush_requested;
  volatile u64 ticks;
  u64 root; /* Xen: the table that it runs on */
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
  asm volatile("movq %%gs:0, %0" : "=r"(self));
  return self;
}

/* Turns of a loop that waits for another processor. */
static inline void relax(void) { asm volatile("pause" ::: "memory"); }

static inline u64 save_flags(void) {
  u64 flags = 0;
  PV_KEEP(irq, save_fl, SITE, flags);
  return flags;
}
static inline void restore_flags(u64 flags) { PV_KEEP(irq, restore_fl, SITE, flags); }
static inline void disable_interrupts(void) {
  u64 none = 0;
  PV_KEEP(irq, irq_disable, SITE_PADDED, none);
}

u64 idle_stack_of(u32 number);
void bring_up(u32 apic, void (*begin)(struct cpu *cpu, u64 stack));
void secondary_main(u32 number) NORETURN;
void stop_others(void);
void resume_others(void);
void answer_stop(void);
void answer_flush(void);
void lock_kernel(void);
void unlock_kernel(void);
NORETURN void panic(const char *format, ...);
