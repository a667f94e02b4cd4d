#include "choices.h"
#include "console.h"
#include "lguest.h"
#include "memory.h"
#include "native.h"
#include "paravirt-tables.h"
#include "start.h"

/*
 * lguest: the kernel is in ring 1 and entered by its 32-bit entry, with paging on. It tells its host of what privileged
 * instructions would do by calls, and has one processor, one timer and a console to begin with.
 */
#define BOOT_COMMAND_LINE 0x228
#define KERNEL_RING 1
#define APIC_END 0x0b0
#define TICK_NANOSECONDS 10000000
#define TIMER_LINE 0
/* Bytes of a text that the host prints at a time. */
#define CONSOLE_BYTES 16

struct lguest_data lguest_data = {
  .slot_states = {[0 ... LGUEST_SLOTS - 1] = LGUEST_SLOT_FREE},
  .blocked_interrupts = ~(1u << TIMER_LINE),
  .noirq_start = lguest_noirq_start,
  .noirq_end = lguest_noirq_end,
  .kernel_address = KERNEL_BASE,
  .system_call_vector = VECTOR_SYSTEM_CALL,
};

static void console(const char *bytes, u32 count) {
  static char text[CONSOLE_BYTES];
  for (u32 done = 0; done < count;) {
    u32 part = count - done < CONSOLE_BYTES - 1 ? count - done : CONSOLE_BYTES - 1;
    copy(text, bytes + done, part);
    text[part] = 0;
    lguest_call(LGUEST_NOTIFY, physical(text), 0, 0, 0);
    done += part;
  }
}

static void power_off(void) { lguest_call(LGUEST_SHUTDOWN, physical("Power down"), LGUEST_POWER_OFF, 0, 0); }
static void crash(void) { lguest_call(LGUEST_SHUTDOWN, physical("panic"), LGUEST_POWER_OFF, 0, 0); }

static void load_entry(u32 entry, const u32 *descriptor) {
  lguest_call(LGUEST_LOAD_GDT_ENTRY, entry, descriptor[0], descriptor[1], 0);
}
static void lguest_write_gdt_entry(void *table, u32 entry, word low, word high) {
  native_write_gdt_entry(table, entry, low, high);
  load_entry(entry, (const u32 *)((const u64 *)table + entry));
}
/* The host has one table for good, and was told of all that is written to it. */
static void lguest_load_gdt(const struct table_pointer *pointer) { (void)pointer; }

static void lguest_load_idt(const struct table_pointer *pointer) {
  const u32 *gates = (const u32 *)pointer->base;
  for (u32 vector = 0; vector < (pointer->limit + 1u) / 8; vector++)
    lguest_call(LGUEST_LOAD_IDT_ENTRY, vector, gates[vector * 2], gates[vector * 2 + 1], 0);
}

static void lguest_load_sp0(word stack) {
  lguest_call_lazily(LGUEST_SET_STACK, KERNEL_DATA | KERNEL_RING, stack, KERNEL_STACK_SIZE / PAGE_SIZE, 0);
}

static void lguest_halt(void) { lguest_call(LGUEST_HALT, 0, 0, 0, 0); }

static void lguest_setup_clock(void) { lguest_call(LGUEST_SET_CLOCKEVENT, TICK_NANOSECONDS, 0, 0, 0); }

/* There is none; but an interrupt is the timer's, which comes once for each time that it is set. */
static void lguest_apic_write(u32 number, u32 value) {
  (void)value;
  if (number == APIC_END) lguest_setup_clock();
}

static u64 lguest_get_cpu_khz(void) { return lguest_data.tsc_khz; }
static const char *lguest_memory_setup(void) { return "LGUEST"; }

/* Two operations on the word are short enough for their sites. */
TEMPLATES(lguest) = {
  {lguest_save_fl, lguest_save_fl, lguest_save_fl_end},
  {lguest_irq_disable, lguest_irq_disable, lguest_irq_disable_end},
};

CHOICES(lguest) = {
  CHOICE(ON_LGUEST, init, memory_setup, lguest_memory_setup),
  CHOICE(ON_LGUEST, time, get_cpu_khz, lguest_get_cpu_khz),
  CHOICE(ON_LGUEST, irq, save_fl, lguest_save_fl),
  CHOICE(ON_LGUEST, irq, restore_fl, lguest_restore_fl),
  CHOICE(ON_LGUEST, irq, irq_disable, lguest_irq_disable),
  CHOICE(ON_LGUEST, irq, irq_enable, lguest_irq_enable),
  CHOICE(ON_LGUEST, irq, init_irq, paravirt_nop),
  CHOICE(ON_LGUEST, irq, safe_halt, lguest_halt),
  CHOICE(ON_LGUEST, irq, halt, lguest_halt),
  CHOICE(ON_LGUEST, cpu, load_gdt, lguest_load_gdt),
  CHOICE(ON_LGUEST, cpu, load_idt, lguest_load_idt),
  CHOICE(ON_LGUEST, cpu, load_tr_desc, paravirt_nop),
  CHOICE(ON_LGUEST, cpu, write_gdt_entry, lguest_write_gdt_entry),
  CHOICE(ON_LGUEST, cpu, load_sp0, lguest_load_sp0),
  CHOICE(ON_LGUEST, cpu, io_delay, paravirt_nop),
  CHOICE(ON_LGUEST, cpu, iret, lguest_iret),
  CHOICE(ON_LGUEST, apic, apic_write, lguest_apic_write),
  CHOICE(ON_LGUEST, apic, setup_boot_clock, lguest_setup_clock),
  CHOICE(ON_LGUEST, misc, set_lazy_mode, lguest_set_lazy_mode),
};

static void only_this_cpu(void) {}

/* @param boot_parameters their physical address */
void lguest_start(word boot_parameters) {
  const u32 base = (u32)&cpus[0];
  const u32 cpu_data[] = {0xffff | base << 16, 0x00cf9300 | (base >> 16 & 0xff) | (base & 0xff000000)};
  load_entry(CPU_DATA / 8, cpu_data);
  set_this_cpu(&cpus[0]);
  cpus[0].self = &cpus[0];
  pv_info.name = "lguest";
  pv_info.kernel_rpl = KERNEL_RING;
  install_operations(ON_LGUEST, as_chosen);
  lguest_begin_tables();
  console_write = console;
  end_machine = power_off;
  crash_machine = crash;
  start_cpus = only_this_cpu;
  u32 line = *(const u32 *)((const u8 *)virtual(boot_parameters) + BOOT_COMMAND_LINE);
  command_line = line ? virtual(line) : "";
  start_kernel();
}
