#include "choices.h"
#include "xen-abi.h"
#include "console.h"
#include "paravirt-tables.h"
#include "start.h"

/* Interrupts and processors of a Xen guest: event channels, their masks in memory, and the timer that is one of them. */
#define TICK_NANOSECONDS 10000000

struct shared_info *xen_shared_info;
static u8 shared_page[PAGE_SIZE] ALIGNED(PAGE_SIZE);

static struct vcpu_info *own_info(void) { return (struct vcpu_info *)this_cpu()->xen_info; }

/* The processor's part of the shared page moves to where one instruction reaches it. */
static void register_info(struct cpu *cpu) {
  struct { u64 frame; u32 offset, unused; } place = {
    machine_frame(page_number(cpu)), (u32)((word)cpu->xen_info % PAGE_SIZE), 0};
  ((struct vcpu_info *)cpu->xen_info)->mask = 1;
  must("register_vcpu_info", hypercall(XEN_VCPU_OP, VCPU_REGISTER_INFO, cpu->number, (word)&place, 0));
}

static void set_timer(void) {
  u64 now = PV_CALL_0(time, sched_clock);
  xen_set_timer(now + TICK_NANOSECONDS);
}

static void unmask(u32 port) { __sync_fetch_and_and(&xen_shared_info->mask[port / WORD_BITS], ~((word)1 << port % WORD_BITS)); }

static void bind_timer(void) {
  struct cpu *cpu = this_cpu();
  struct { u32 virq, vcpu, port; } bind = {VIRQ_TIMER, cpu->number, 0};
  hypercall(XEN_VCPU_OP, VCPU_STOP_PERIODIC, cpu->number, 0, 0);
  must("bind_virq", hypercall(XEN_EVENT_CHANNEL_OP, EVENT_BIND_VIRQ, (word)&bind, 0, 0));
  cpu->timer_port = bind.port;
  unmask(bind.port);
  set_timer();
}

static void register_callback(u16 type, void (*entry)(void)) {
  struct { u16 type, flags; struct callback_address address; } callback = {
    type, CALLBACK_MASKS_EVENTS, CALLBACK_ADDRESS(entry)};
  must("callback_op", hypercall(XEN_CALLBACK_OP, CALLBACK_REGISTER, (word)&callback, 0, 0));
}

void (*xen_event_entry(void))(void) {
  const struct vector *vector = vectors;
  while (vector->number != VECTOR_XEN_EVENT) vector++;
  return vector->entry;
}

static void xen_init_irq(void) {
  if (this_cpu()->number > 0) return;
  register_callback(CALLBACK_EVENT, xen_event_entry());
  register_callback(CALLBACK_FAILSAFE, xen_failsafe_entry);
}

/*
 * The only port of this processor is its timer's. Others of the same word are another processor's, which would miss them
 * if they were cleared here.
 */
void xen_handle_events(void) {
  struct vcpu_info *info = own_info();
  struct cpu *cpu = this_cpu();
  u32 index = cpu->timer_port / WORD_BITS;
  word timer = (word)1 << cpu->timer_port % WORD_BITS;
  info->pending = 0;
  if (!(__sync_lock_test_and_set(&info->selector, 0) >> index & 1)) return;
  if (!(__sync_fetch_and_and(&xen_shared_info->pending[index], ~timer) & timer)) return;
  cpu->ticks++;
  set_timer();
}

static void xen_safe_halt(void) { hypercall(XEN_SCHED_OP, SCHED_BLOCK, 0, 0, 0); }

static void xen_no_clock(void) { bind_timer(); }

static void xen_apic_write(u32 number, u32 value) { (void)number, (void)value; }
static u32 xen_apic_read(u32 number) {
  (void)number;
  return 0;
}

/* A guest whose frames are translated chooses where the page stands: it has room behind its memory. */
static u64 place_shared_info(void) {
  if (!xen_translates) return xen_start_info->shared_info;
  word frame = xen_start_info->pages + SHARED_INFO_BEHIND;
  struct { u16 domain, size; u32 space; word index, frame; } place = {XEN_SELF, 0, SPACE_SHARED_INFO, 0, frame};
  must("add_to_physmap", hypercall(XEN_MEMORY_OP, MEMORY_ADD_TO_PHYSMAP, (word)&place, 0, 0));
  return (u64)frame * PAGE_SIZE;
}

CHOICES(xen_interrupts) = {
  CHOICE(ON_XEN, irq, save_fl, xen_save_fl),
  CHOICE(ON_XEN, irq, restore_fl, xen_restore_fl),
  CHOICE(ON_XEN, irq, irq_disable, xen_irq_disable),
  CHOICE(ON_XEN, irq, irq_enable, xen_irq_enable),
  CHOICE(ON_XEN, irq, init_irq, xen_init_irq),
  CHOICE(ON_XEN, irq, safe_halt, xen_safe_halt),
  CHOICE(ON_XEN, irq, halt, xen_safe_halt),
  CHOICE(ON_XEN, time, time_init, paravirt_nop),
  CHOICE(ON_XEN, apic, apic_write, xen_apic_write),
  CHOICE(ON_XEN, apic, apic_read, xen_apic_read),
  CHOICE(ON_XEN, apic, setup_boot_clock, xen_no_clock),
  CHOICE(ON_XEN, apic, setup_secondary_clock, xen_no_clock),
};

/* The byte in memory is as near as a function. */
TEMPLATES(xen_interrupts) = {{xen_irq_disable, xen_irq_disable, xen_irq_disable_end}};

void xen_begin_interrupts(void) {
  xen_shared_info = (struct shared_info *)shared_page;
  must("update_va_mapping of shared_info",
       xen_map((word)shared_page, place_shared_info() | PRESENT | WRITABLE | ACCESSED | DIRTY));
  __builtin_memset((void *)xen_shared_info->mask, 0xff, sizeof(xen_shared_info->mask));
  register_info(&cpus[0]);
}

/* Other processors begin with all of their state given at once. */
static struct vcpu_context context;

static void begin(struct cpu *cpu, word stack) {
  __builtin_memset(&context, 0, sizeof(context));
  context.flags = CONTEXT_IN_KERNEL;
  xen_describe_cpu(&context, cpu, stack);
  xen_fill_context(&context);
  context.gdt_frames[0] = machine_frame(page_number(gdt_pages[cpu->number]));
  context.gdt_entries = GDT_ENTRIES;
  context.kernel_ss = XEN_KERNEL_SS;
  context.kernel_sp = stack;
  register_info(cpu);
  must("initialise", hypercall(XEN_VCPU_OP, VCPU_INITIALISE, cpu->number, (word)&context, 0));
  must("up", hypercall(XEN_VCPU_OP, VCPU_UP, cpu->number, 0, 0));
}

void xen_start_cpus(void) {
  while (cpu_count < MOST_CPUS && hypercall(XEN_VCPU_OP, VCPU_IS_UP, cpu_count, 0, 0) >= 0) bring_up(0, begin);
}
