#include "apic.h"
#include "console.h"
#include "hostile.h"
#include "process.h"

/* Everything that enters the kernel. Interrupts stay off until it is left, or a processor has nothing to do. */
#define FAULT_WRITE 2

void xen_handle_events(void);

static void tick(struct frame *frame) {
  this_cpu()->ticks++;
  if (!FROM_USER(frame)) return;
  lock_kernel();
  schedule();
  unlock_kernel();
}

static void page_fault(struct frame *frame) {
  word address = PV_INLINE_0(mmu, read_cr2);
#if LEVELS == 3
  pgd_entry *top = pgd_at(virtual(PV_INLINE_0(mmu, read_cr3)), address >> 30);
  if (!FROM_USER(frame)) print("*pdpt = %h\n", get_pgd(top).value);
#endif
  if (!FROM_USER(frame)) panic("page fault at %x, error %x, address %x", frame->ip, frame->error, address);
  lock_kernel();
  struct process *process = this_cpu()->current;
  if (!handle_fault(process->mm, address, frame->error & FAULT_WRITE)) {
    print("process %u ended: no right to %x at %x\n", process->number, address, frame->ip);
    end_process();
  }
  unlock_kernel();
}

void handle_trap(struct frame *frame) {
#ifdef PARAVIRT
  if (frame->vector < VECTOR_TIMER && recover(frame)) return;
#endif
  switch (frame->vector) {
    case VECTOR_PAGE_FAULT:
      return page_fault(frame);
    case VECTOR_SYSTEM_CALL:
      lock_kernel();
      system_call(frame);
      return unlock_kernel();
    case VECTOR_TIMER:
      end_interrupt();
      return tick(frame);
    case VECTOR_FLUSH:
      end_interrupt();
      return answer_flush();
#ifdef XEN
    case VECTOR_XEN_EVENT: {
      word ticks = this_cpu()->ticks;
      xen_handle_events();
      if (this_cpu()->ticks != ticks) tick(frame);
      return;
    }
#endif
    case 0xff:
      return;
  }
  if (!FROM_USER(frame)) panic("exception %u at %x, error %x", frame->vector, frame->ip, frame->error);
  lock_kernel();
  print("process %u ended: exception %u at %x\n", this_cpu()->current->number, frame->vector, frame->ip);
  end_process();
}
