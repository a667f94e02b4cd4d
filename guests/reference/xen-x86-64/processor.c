#include "choices.h"
#include "native.h"
#include "paravirt-tables.h"
#include "xen-abi.h"

/* What a processor of a 64-bit guest begins with, and its operations. */
extern u8 xen_adjust_template[], xen_adjust_template_end[];
void xen_adjust_exception_frame(void);

void xen_begin_cpu(struct cpu *cpu) { set_this_cpu(cpu); }

CHOICES(xen_processor) = {
  CHOICE(ON_XEN, irq, adjust_exception_frame, xen_adjust_exception_frame),
  CHOICE(ON_XEN, cpu, swapgs, paravirt_nop),
};

TEMPLATES(xen_processor) = {{xen_adjust_exception_frame, xen_adjust_template, xen_adjust_template_end}};

void xen_describe_cpu(struct vcpu_context *context, struct cpu *cpu, word stack) {
  context->rip = (word)xen_secondary_entry;
  context->rsp = stack;
  context->rdi = cpu->number;
  context->cs = XEN_KERNEL_CS;
  context->ss = context->ds = context->es = XEN_KERNEL_SS;
  xen_protect(gdt_pages[cpu->number], 0);
  context->control[3] = machine_frame(page_number(swapper_pg_dir)) * PAGE_SIZE;
  context->event_callback = (word)xen_event_entry();
  context->failsafe_callback = (word)xen_failsafe_entry;
  context->gs_base_kernel = (word)cpu;
}
