#include "cpu.h"
#include "native.h"
#include "start.h"

/* Segments, the task and gates of protected mode (SDM vol. 3A, 3.4.5, 8.2.2 and 6.11). */
u64 gdt_pages[MOST_CPUS][PAGE_SIZE / 8] ALIGNED(PAGE_SIZE);

/* The upper words; a limit of 4 GiB for segments. */
#define FLAT_LIMIT 0xffff
#define CODE 0x00cf9b00
#define DATA 0x00cf9300
#define TASK_TYPE 0x8900
#define USER_RING (3 << 13)

static u32 interrupt_gates[256][2] ALIGNED(PAGE_SIZE);
#define GATE 0x8e00
#define GATE_USER 0xee00

static void fill_gates(void) {
  for (const struct vector *vector = vectors; vector < vectors_end; vector++) {
    u32 entry = (u32)vector->entry;
    interrupt_gates[vector->number][0] = (entry & 0xffff) | KERNEL_CODE << 16;
    interrupt_gates[vector->number][1] =
      (entry & 0xffff0000) | (vector->number == VECTOR_SYSTEM_CALL ? GATE_USER : GATE);
  }
}

static void write_descriptor(u64 *table, u32 entry, u32 base, u32 limit, u32 type) {
  PV_CALL_4(cpu, write_gdt_entry, table, entry, limit | base << 16, type | (base >> 16 & 0xff) | (base & 0xff000000));
}

/* Programs and the kernel have the same DS and ES, so that neither the way in nor the way out changes them. */
static void load_segments(void) {
  asm volatile("movl %0, %%ss\n\t"
               "movl %1, %%ds\n\tmovl %1, %%es\n\t"
               "pushl %2\n\tpushl $1f\n\tlret\n1:"
               : : "r"(KERNEL_DATA | pv_info.kernel_rpl), "r"(USER_DATA), "r"(KERNEL_CODE | pv_info.kernel_rpl)
               : "memory");
}

void setup_descriptors(struct cpu *cpu) {
  if (cpu->number == 0) fill_gates();
  u64 *gdt = gdt_pages[cpu->number];
  u32 ring = pv_info.kernel_rpl << 13;
  write_descriptor(gdt, KERNEL_CODE / 8, 0, FLAT_LIMIT, CODE | ring);
  write_descriptor(gdt, KERNEL_DATA / 8, 0, FLAT_LIMIT, DATA | ring);
  write_descriptor(gdt, USER_DATA / 8, 0, FLAT_LIMIT, DATA | USER_RING);
  write_descriptor(gdt, USER_CODE / 8, 0, FLAT_LIMIT, CODE | USER_RING);
  write_descriptor(gdt, TASK / 8, (u32)&cpu->task, sizeof(struct task_state) - 1, TASK_TYPE);
  write_descriptor(gdt, CPU_DATA / 8, (u32)cpu, FLAT_LIMIT, DATA | ring);
  cpu->task.stack_segment = KERNEL_DATA;
  cpu->task.io_map = sizeof(struct task_state);
  struct table_pointer pointer = {GDT_ENTRIES * 8 - 1, (u32)gdt};
  PV_CALL_1(cpu, load_gdt, &pointer);
  load_segments();
  set_this_cpu(cpu);
  pointer = (struct table_pointer){sizeof(interrupt_gates) - 1, (u32)interrupt_gates};
  PV_CALL_1(cpu, load_idt, &pointer);
  PV_CALL_0(cpu, load_tr_desc);
}

void native_load_gdt(const struct table_pointer *pointer) { asm volatile("lgdt %0" : : "m"(*pointer)); }

void native_load_idt(const struct table_pointer *pointer) { asm volatile("lidt %0" : : "m"(*pointer)); }

void native_load_tr_desc(void) { asm volatile("ltr %w0" : : "r"(TASK)); }

void native_write_gdt_entry(void *table, u32 entry, word low, word high) {
  u32 *halves = (u32 *)((u64 *)table + entry);
  halves[0] = (u32)low;
  halves[1] = (u32)high;
}

void native_load_sp0(word stack) { this_cpu()->task.stack = stack; }

/* The segment's base is in the table that the processor has, which is this processor's own. */
void set_this_cpu(struct cpu *cpu) {
  (void)cpu;
  asm volatile("movl %0, %%fs" : : "r"(CPU_DATA) : "memory");
}
