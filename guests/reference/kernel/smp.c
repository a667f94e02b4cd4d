#include "acpi.h"
#include "apic.h"
#include "console.h"
#include "memory.h"
#include "ports.h"
#include "process.h"
#include "start.h"

/* More than one processor: how the others begin, the lock of the whole kernel, and how all but one are stopped. */
u32 cpu_count = 1;
void (*start_cpus)(void);

static u8 stacks[MOST_CPUS][KERNEL_STACK_SIZE] ALIGNED(16);
static volatile u32 kernel_lock;
static volatile u32 stop_requested;

word idle_stack_of(u32 number) { return (word)stacks[number] + KERNEL_STACK_SIZE; }

/* While it waits, a processor does what others ask of it: it takes no interrupts. */
void lock_kernel(void) {
  while (__sync_lock_test_and_set(&kernel_lock, 1)) {
    answer_flush();
    answer_stop();
    relax();
  }
}

void unlock_kernel(void) { __sync_lock_release(&kernel_lock); }

/* Stays here while another processor changes the kernel's code. The loop itself has no call sites. */
void answer_stop(void) {
  struct cpu *cpu = this_cpu();
  if (!stop_requested) return;
  cpu->is_stopped = 1;
  while (*(volatile u32 *)&stop_requested) relax();
  *(volatile u32 *)&cpu->is_stopped = 0;
}

void stop_others(void) {
  stop_requested = 1;
  for (u32 number = 0; number < cpu_count; number++) {
    struct cpu *cpu = &cpus[number];
    while (cpu != this_cpu() && !*(volatile u32 *)&cpu->is_stopped) relax();
  }
}

void resume_others(void) { stop_requested = 0; }

static void wait_for(struct cpu *cpu) {
  while (!*(volatile u32 *)&cpu->is_online) relax();
}

/* Makes a processor's number the next and waits until it runs. @param begin makes it run */
void bring_up(u32 apic, void (*begin)(struct cpu *cpu, word stack)) {
  struct cpu *cpu = &cpus[cpu_count];
  cpu->self = cpu;
  cpu->number = cpu_count;
  cpu->apic = apic;
  begin(cpu, idle_stack_of(cpu->number));
  wait_for(cpu);
  cpu_count++;
}

void start_pc_cpus(void) {
  cpus[0].apic = pc_apics[0];
  for (u32 index = 1; index < pc_cpus; index++) bring_up(pc_apics[index], start_pc_cpu);
}

void secondary_main(u32 number) {
  struct cpu *cpu = &cpus[number];
  set_this_cpu(cpu);
  PV_INLINE_1(mmu, write_cr3, physical(swapper_pg_dir));
  setup_descriptors(cpu);
  become_idle(cpu);
  PV_CALL_0(irq, init_irq);
  PV_CALL_0(apic, setup_secondary_clock);
  *(volatile u32 *)&cpu->is_online = 1;
  idle();
}
