#include "start.h"
#include "bench.h"
#include "choices.h"
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
#ifdef PARAVIRT
/* Until the host ends it, or it has ended itself. */
static void be_hostile(void) {
  print("hostile %u\n", (word)hostile_seed());
  PV_CALL_0(apic, setup_boot_clock);
  if (same_text(pv_info.name, "KVM")) kvm_be_hostile();
#ifdef XEN
  if (same_text(pv_info.name, "Xen")) xen_be_hostile();
#endif
#ifdef VMI
  if (same_text(pv_info.name, "VMI")) vmi_be_hostile();
#endif
#ifdef LGUEST
  if (same_text(pv_info.name, "lguest")) lguest_be_hostile();
#endif
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
  print("round %s: processes %u hash %h\n", round_title, (word)processes_alive(), hash);
  if (has_word("time")) print("time %u us\n", (word)(time / 1000));
  end_all_processes();
  if (free_pages() != free) panic("%u pages are lost", (word)free - free_pages());
  unlock_kernel();
  return hash;
}

#ifdef PARAVIRT
static u64 play_counted_round(void) {
  count_operations();
  u64 hash = play_round();
  stop_counting();
  print_counts();
  print("lazy sections %u batches %u updates %u\n", lazy_sections(), lazy_batches, lazy_updates);
  return hash;
}

/* Sites that a loader has patched do not call through the tables, where operations could be counted. */
static u64 play_loaded_round(void) {
  round_title = "patched by the loader";
  return play_round();
}
#endif

void start_kernel(void) {
  print("\nring1 reference guest, " IMAGE_NAME "\ninterface %s\n", pv_info.name);
#ifdef PARAVIRT
  pv_init_ops.arch_setup();
  print("memory %s\n", pv_init_ops.memory_setup());
  pv_init_ops.banner();
#endif
  cpus[0].is_online = 1;
  setup_descriptors(&cpus[0]);
  setup_paging();
  become_idle(&cpus[0]);
#ifdef PARAVIRT
  pv_init_ops.post_allocator_init();
#endif
  PV_CALL_0(irq, init_irq);
  PV_CALL_0(time, time_init);
#ifdef PARAVIRT
  if (word_value("hostile=")) be_hostile();
  if (has_word("chatter")) chatter();
#endif
  PV_CALL_0(apic, setup_boot_clock);
  start_cpus();
  print("processors %u\n", (word)cpu_count);
#ifdef PARAVIRT
  if (run_bench()) end_machine();
  u64 first = sites_are_patched ? play_loaded_round() : play_counted_round();
  if (sites_are_patched) {
    round_title = "patched by the loader, again";
  } else if (has_word("nopatch")) {
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
