#include "native.h"
#include "paravirt-tables.h"
#include "xen-abi.h"

/* What a processor of a 32-bit guest begins with: its own segment, in a table that the host has examined. */
#define CPU_SEGMENT_LOW(base) (0xffff | (base) << 16)
#define CPU_SEGMENT_HIGH(base) (0x00cfb300 | ((base) >> 16 & 0xff) | ((base) & 0xff000000))

static void describe_segment(struct cpu *cpu) {
  u64 *gdt = gdt_pages[cpu->number];
  u32 base = (u32)cpu;
  native_write_gdt_entry(gdt, CPU_DATA / 8, CPU_SEGMENT_LOW(base), CPU_SEGMENT_HIGH(base));
  xen_protect(gdt, 0);
}

void xen_begin_cpu(struct cpu *cpu) {
  pv_info.shares_kernel_tables = 0;
  describe_segment(cpu);
  word frame = machine_frame(page_number(gdt_pages[cpu->number]));
  must("set_gdt", hypercall(XEN_SET_GDT, (word)&frame, GDT_ENTRIES, 0, 0));
  set_this_cpu(cpu);
}

/* CR3 is a number of a frame turned, so that it reaches beyond 4 GiB. */
static u32 cr3_of(u32 frame) { return frame << 12 | frame >> 20; }

void xen_describe_cpu(struct vcpu_context *context, struct cpu *cpu, word stack) {
  describe_segment(cpu);
  context->ip = (word)xen_secondary_entry;
  context->sp = stack;
  context->eax = cpu->number;
  context->cs = XEN_KERNEL_CS;
  context->ss = context->ds = context->es = XEN_KERNEL_SS;
  context->fs = CPU_DATA | XEN_KERNEL_RING;
  context->control[3] = cr3_of(machine_frame(page_number(swapper_pg_dir)));
  context->event_callback = (struct callback_address)CALLBACK_ADDRESS(xen_event_entry());
  context->failsafe_callback = (struct callback_address)CALLBACK_ADDRESS(xen_failsafe_entry);
}
