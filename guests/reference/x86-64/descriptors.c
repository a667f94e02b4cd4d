#include "cpu.h"
#include "native.h"
#include "ports.h"
#include "start.h"

/* Segments, the task and gates of long mode (SDM vol. 3A, 3.4.5, 8.2.3 and 6.14.1). */
u64 gdt_pages[MOST_CPUS][PAGE_SIZE / 8] ALIGNED(PAGE_SIZE);

#define CODE_64 0x00af9b000000ffff
#define DATA 0x00cf93000000ffff
#define USER_RING (3UL << 45)
#define TASK_TYPE 0x89UL

static u64 interrupt_gates[256][2] ALIGNED(PAGE_SIZE);
#define GATE 0x8eUL
#define GATE_USER 0xeeUL

static void fill_gates(void) {
  for (const struct vector *vector = vectors; vector < vectors_end; vector++) {
    u64 entry = (u64)vector->entry;
    u64 type = vector->number == VECTOR_SYSTEM_CALL ? GATE_USER : GATE;
    interrupt_gates[vector->number][0] =
      (entry & 0xffff) | (u64)KERNEL_CODE << 16 | type << 40 | (entry >> 16 & 0xffff) << 48;
    interrupt_gates[vector->number][1] = entry >> 32;
  }
}

static void write_descriptor(u64 *table, u32 entry, u64 low, u64 high) {
  PV_CALL_4(cpu, write_gdt_entry, table, entry, low, high);
}

void setup_descriptors(struct cpu *cpu) {
  if (cpu->number == 0) fill_gates();
  u64 *gdt = gdt_pages[cpu->number];
  u64 task = (u64)&cpu->task;
  write_descriptor(gdt, KERNEL_CODE / 8, CODE_64, 0);
  write_descriptor(gdt, KERNEL_DATA / 8, DATA, 0);
  write_descriptor(gdt, USER_DATA / 8, DATA | USER_RING, 0);
  write_descriptor(gdt, USER_CODE / 8, CODE_64 | USER_RING, 0);
  write_descriptor(gdt, TASK / 8,
                   (sizeof(struct task_state) - 1) | (task & 0xffffff) << 16 | TASK_TYPE << 40 | (task >> 24 & 0xff) << 56,
                   task >> 32);
  cpu->task.io_map = sizeof(struct task_state);
  struct table_pointer pointer = {GDT_ENTRIES * 8 - 1, (u64)gdt};
  PV_CALL_1(cpu, load_gdt, &pointer);
  /* Loading selectors has taken the base away. */
  set_this_cpu(cpu);
  pointer = (struct table_pointer){sizeof(interrupt_gates) - 1, (u64)interrupt_gates};
  PV_CALL_1(cpu, load_idt, &pointer);
  PV_CALL_0(cpu, load_tr_desc);
}

void native_load_gdt(const struct table_pointer *pointer) {
  asm volatile("lgdt %0\n\t"
               "movl %1, %%eax\n\t"
               "movl %%eax, %%ds\n\tmovl %%eax, %%es\n\tmovl %%eax, %%ss\n\t"
               "pushq %2\n\t"
               "leaq 1f(%%rip), %%rax\n\tpushq %%rax\n\tlretq\n1:"
               : : "m"(*pointer), "i"(KERNEL_DATA), "i"(KERNEL_CODE) : "rax", "memory");
}

void native_load_idt(const struct table_pointer *pointer) { asm volatile("lidt %0" : : "m"(*pointer)); }

void native_load_tr_desc(void) { asm volatile("ltr %w0" : : "r"(TASK)); }

void native_write_gdt_entry(void *table, u32 entry, u64 low, u64 high) {
  u64 *descriptors = table;
  descriptors[entry] = low;
  if (entry == TASK / 8) descriptors[entry + 1] = high;
}

void native_load_sp0(u64 stack) { this_cpu()->task.stacks[0] = stack; }

void set_this_cpu(struct cpu *cpu) {
  PV_CALL_3(cpu, write_msr, MSR_GS_BASE, (u32)(u64)cpu, (u32)((u64)cpu >> 32));
}
