#include "start.h"
#include "bench.h"
#include "console.h"
#include "hostile.h"
#include "native.h"
#include "paravirt-tables.h"
#include "ports.h"
#include "process.h"

/* What the kernel does from its first line to its last, whatever it runs on. */
void (*end_machine)(void);
void (*crash_machine)(void);

struct cpu cpus[MOST_CPUS];
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
  PV_CALL_2(cpu, write_msr, MSR_GS_BASE, (u64)cpu);
  pointer = (struct table_pointer){sizeof(interrupt_gates) - 1, (u64)interrupt_gates};
  PV_CALL_1(cpu, load_idt, &pointer);
  PV_CALL_0(cpu, load_tr_desc);
}

#ifdef PARAVIRT
/* Until the host ends it, or it has ended itself. */
static void be_hostile(void) {
  print("hostile %u\n", hostile_seed());
  if (same_text(pv_info.name, "Xen")) xen_be_hostile();
  if (same_text(pv_info.name, "KVM")) kvm_be_hostile();
  end_machine();
}

static const char *round_title = "through the tables, counted";

static void patch_kernel(void) {
  stop_others();
  struct patch_counts counts = apply_paravirt();
  resume_others();
  print("sites %u called %u inlined %u left %u\n", counts.sites, counts.called, counts.inlined, counts.left);
}
#else
static const char *round_title = "without paravirtualization";
#endif

/* The same work as in every other round, on whatever the operations are at the moment. */
static u64 play_round(void) {
  u32 free = free_pages();
  u64 start = PV_CALL_0(time, sched_clock);
  lock_kernel();
  start_first_process(0);
  unlock_kernel();
  run_until_all_rest();
  u64 time = PV_CALL_0(time, sched_clock) - start;
  lock_kernel();
  u64 hash = hash_processes();
  print("round %s: processes %u hash %h\n", round_title, (u64)processes_alive(), hash);
  if (has_word("time")) print("time %u us\n", time / 1000);
  end_all_processes();
  if (free_pages() != free) panic("%u pages are lost", (u64)free - free_pages());
  unlock_kernel();
  return hash;
}

void start_kernel(void) {
  print("\nring1 reference guest, x86-64\ninterface %s\n", pv_info.name);
#ifdef PARAVIRT
  pv_init_ops.arch_setup();
  print("memory %s\n", pv_init_ops.memory_setup());
  pv_init_ops.banner();
#endif
  fill_gates();
  cpus[0].is_online = 1;
  setup_descriptors(&cpus[0]);
  setup_paging();
  become_idle(&cpus[0]);
#ifdef PARAVIRT
  pv_init_ops.post_allocator_init();
#endif
  PV_CALL_0(irq, init_irq);
  PV_CALL_0(time, time_init);
  PV_CALL_0(apic, setup_boot_clock);
#ifdef PARAVIRT
  if (word_value("hostile=")) be_hostile();
#endif
  start_cpus();
  print("processors %u\n", (u64)cpu_count);
#ifdef PARAVIRT
  if (run_bench()) end_machine();
  count_operations();
  u64 first = play_round();
  stop_counting();
  print_counts();
  print("lazy sections %u batches %u updates %u\n", lazy_sections(), lazy_batches, lazy_updates);
  if (has_word("nopatch")) {
    round_title = "through the tables";
  } else {
    patch_kernel();
    round_title = "patched";
  }
  if (play_round() != first) panic("the rounds differ");
#else
  play_round();
#endif
  if (has_word("sites")) print_sites();
  print("done\n");
  end_machine();
  for (;;) PV_INLINE_0(irq, halt);
}

void panic(const char *format, ...) {
  extern void print_list(const char *format, __builtin_va_list arguments);
  __builtin_va_list arguments;
  __builtin_va_start(arguments, format);
  print("panic: ");
  print_list(format, arguments);
  print("\n");
  crash_machine();
  for (;;) relax();
}
