#include "xen-abi.h"
#include "choices.h"
#include "console.h"
#include "native.h"
#include "paravirt-tables.h"
#include "ports.h"
#include "pvclock.h"
#include "start.h"

/* A Xen guest: what it begins with, its console, and the operations of processor and clock. */
const struct start_info *xen_start_info;
u32 xen_translates;
static struct console_ring *ring;

sword must(const char *what, sword result) {
  if (result < 0) panic("Xen refused %s: -%u", what, (word)-result);
  return result;
}

static void xen_console_write(const char *bytes, u32 count) {
  for (u32 index = 0; index < count; index++) {
    while (ring->out_produced - ring->out_consumed == sizeof(ring->out)) hypercall(XEN_SCHED_OP, 0, 0, 0, 0);
    ring->out[ring->out_produced % sizeof(ring->out)] = bytes[index];
    asm volatile("" ::: "memory");
    ring->out_produced++;
  }
  u32 port = xen_start_info->console_port;
  hypercall(XEN_EVENT_CHANNEL_OP, EVENT_SEND, (word)&port, 0, 0);
}

static void shut_down(u32 reason) {
  hypercall(XEN_SCHED_OP, SCHED_SHUTDOWN, (word)&reason, 0, 0);
}
static void xen_end(void) { shut_down(SHUTDOWN_POWEROFF); }
static void xen_crash(void) { shut_down(SHUTDOWN_CRASH); }

/* Descriptors. Xen reads the table itself, and wants nobody to write to it. */
static void xen_load_gdt(const struct table_pointer *pointer) {
  word frame = machine_frame(page_number((void *)pointer->base));
  xen_protect((void *)pointer->base, 0);
  must("set_gdt", hypercall(XEN_SET_GDT, (word)&frame, GDT_ENTRIES, 0, 0));
}

/* It has task states of its own. The table of another processor is loaded when that begins to run. */
static void xen_write_gdt_entry(void *table, u32 entry, word low, word high) {
  if (entry == TASK / 8) return;
  if (!xen_is_live(table)) return native_write_gdt_entry(table, entry, low, high);
  must("update_descriptor", xen_update_descriptor(machine_address((u64 *)table + entry), low, high));
}

static struct trap_info traps[48];

static void fill_traps(void) {
  struct trap_info *trap = traps;
  for (const struct vector *vector = vectors; vector < vectors_end; vector++) {
    if (vector->number >= 0x20 && vector->number != VECTOR_SYSTEM_CALL) continue;
    u8 user = vector->number == VECTOR_SYSTEM_CALL ? TRAP_USER : 0;
    *trap++ = (struct trap_info){(u8)vector->number, user | TRAP_MASKS_EVENTS, XEN_KERNEL_CS, (word)vector->entry};
  }
}

static void xen_load_idt(const struct table_pointer *pointer) {
  (void)pointer;
  must("set_trap_table", hypercall(XEN_SET_TRAP_TABLE, (word)traps, 0, 0, 0));
}

/* By number, for processors that are still to be started. */
void xen_fill_context(struct vcpu_context *context) {
  for (struct trap_info *trap = traps; trap->address; trap++) context->traps[trap->vector] = *trap;
}

static void xen_load_sp0(word stack) {
  struct cpu *cpu = this_cpu();
  if (cpu->lazy_mode != LAZY_CPU) {
    hypercall(XEN_STACK_SWITCH, XEN_KERNEL_SS, stack, 0, 0);
    return;
  }
  cpu->call[cpu->calls++] = (struct multicall){XEN_STACK_SWITCH, 0, {XEN_KERNEL_SS, stack}};
}

static u64 xen_sched_clock(void) { return pvclock_read(((struct vcpu_info *)this_cpu()->xen_info)->time); }

static u64 xen_get_cpu_khz(void) { return pvclock_khz(((struct vcpu_info *)this_cpu()->xen_info)->time); }

static void xen_arch_setup(void) {
  hypercall(XEN_VM_ASSIST, ASSIST_ENABLE, ASSIST_WRITABLE_TABLES, 0, 0);
}

static const char *xen_memory_setup(void) { return "start_info"; }

static void xen_banner(void) {
  sword version = hypercall(XEN_VERSION, VERSION_NUMBER, 0, 0, 0);
  print("Xen %u.%u%s\n", (word)version >> 16, (word)version & 0xffff, xen_translates ? ", which translates frames" : "");
}

CHOICES(xen_cpu) = {
  CHOICE(ON_XEN, init, arch_setup, xen_arch_setup),
  CHOICE(ON_XEN, init, memory_setup, xen_memory_setup),
  CHOICE(ON_XEN, init, banner, xen_banner),
  CHOICE(ON_XEN, cpu, load_gdt, xen_load_gdt),
  CHOICE(ON_XEN, cpu, load_idt, xen_load_idt),
  CHOICE(ON_XEN, cpu, load_tr_desc, paravirt_nop),
  CHOICE(ON_XEN, cpu, write_gdt_entry, xen_write_gdt_entry),
  CHOICE(ON_XEN, cpu, load_sp0, xen_load_sp0),
  CHOICE(ON_XEN, cpu, io_delay, paravirt_nop),
  CHOICE(ON_XEN, cpu, iret, xen_iret),
  CHOICE(ON_XEN, time, sched_clock, xen_sched_clock),
  CHOICE(ON_XEN, time, get_cpu_khz, xen_get_cpu_khz),
};

/* Where frames are translated, entries hold what the kernel means. */
static const void *if_needed(const struct choice *choice) {
  return choice->needs == XEN_HAS_MACHINE_FRAMES && xen_translates ? NULL : choice->function;
}

static u32 features(void) {
  struct { u32 index, set; } asked = {0, 0};
  must("get_features", hypercall(XEN_VERSION, VERSION_FEATURES, (word)&asked, 0, 0));
  return asked.set;
}

void xen_start(const struct start_info *info) {
  xen_start_info = info;
  xen_translates = (features() & FEATURE_TRANSLATED) != 0;
  command_line = info->command_line;
  ring = virtual(page_of_machine(info->console_frame) * PAGE_SIZE);
  console_write = xen_console_write;
  end_machine = xen_end;
  crash_machine = xen_crash;
  start_cpus = xen_start_cpus;
  cpus[0].self = &cpus[0];
  pv_info.name = "Xen";
  pv_info.kernel_rpl = XEN_KERNEL_RING;
  install_operations(ON_XEN, if_needed);
  xen_read_frames();
  xen_begin_cpu(&cpus[0]);
  xen_begin_interrupts();
  fill_traps();
  start_kernel();
}
