#pragma once
#include "cpu.h"
#include "memory.h"

/*
 * Xen's paravirtual interface (public/xen.h and its neighbours). Its words are the guest's; the rest of what differs
 * between guests of 64 and of 32 bits is in xen-arch.h.
 */
enum {
  XEN_SET_TRAP_TABLE = 0,
  XEN_MMU_UPDATE = 1,
  XEN_SET_GDT = 2,
  XEN_STACK_SWITCH = 3,
  XEN_UPDATE_DESCRIPTOR = 10,
  XEN_MEMORY_OP = 12,
  XEN_MULTICALL = 13,
  XEN_UPDATE_VA_MAPPING = 14,
  XEN_SET_TIMER = 15,
  XEN_VERSION = 17,
  XEN_VM_ASSIST = 21,
  XEN_VCPU_OP = 24,
  XEN_MMUEXT_OP = 26,
  XEN_SCHED_OP = 29,
  XEN_CALLBACK_OP = 30,
  XEN_EVENT_CHANNEL_OP = 32,
};

#include "xen-arch.h"

#define XEN_SELF 0x7ff0UL

enum { MMU_NORMAL = 0, MMU_PRESERVE_AD = 2 };
enum { MMUEXT_PIN_L1 = 0, MMUEXT_PIN_L3 = 2, MMUEXT_PIN_L4 = 3, MMUEXT_UNPIN = 4, MMUEXT_NEW_BASE = 5, MMUEXT_FLUSH_LOCAL = 6,
       MMUEXT_INVALIDATE_LOCAL = 7, MMUEXT_FLUSH_MULTI = 8, MMUEXT_INVALIDATE_MULTI = 9, MMUEXT_SET_LDT = 13,
       MMUEXT_NEW_USER_BASE = 15, MMUEXT_COPY_PAGE = 17 };
struct mmuext_op { u32 command; word frame_or_address, argument; };

enum { VCPU_INITIALISE = 0, VCPU_UP = 1, VCPU_IS_UP = 3, VCPU_STOP_PERIODIC = 7, VCPU_REGISTER_INFO = 10 };
enum { SCHED_BLOCK = 1, SCHED_SHUTDOWN = 2 };
enum { SHUTDOWN_POWEROFF = 0, SHUTDOWN_CRASH = 3 };
enum { EVENT_BIND_VIRQ = 1, EVENT_SEND = 4 };
enum { VIRQ_TIMER = 0 };
enum { CALLBACK_REGISTER = 0 };
enum { CALLBACK_EVENT = 0, CALLBACK_FAILSAFE = 1 };
#define CALLBACK_MASKS_EVENTS 1
enum { VERSION_NUMBER = 0, VERSION_FEATURES = 6 };
#define FEATURE_TRANSLATED 4
enum { MEMORY_ADD_TO_PHYSMAP = 7 };
enum { SPACE_SHARED_INFO = 0 };
/* Of a guest whose frames are translated: where it puts that page, from the end of its memory. */
#define SHARED_INFO_BEHIND 0x100
#define ASSIST_ENABLE 0
#define ASSIST_WRITABLE_TABLES 2

struct start_info {
  char magic[32];
  word pages, shared_info;
  u32 flags;
  word store_frame;
  u32 store_port;
  word console_frame;
  u32 console_port;
  word table_base, table_frames, frame_list, module_start, module_length;
  char command_line[1024];
};

struct vcpu_info {
  volatile u8 pending, mask;
  volatile word selector;
  word cr2, unused[32 / sizeof(word) - 3];
  u8 time[32];
};
_Static_assert(offsetof(struct vcpu_info, time) == 32, "where the clock is");

struct shared_info {
  struct vcpu_info vcpu[32];
  volatile word pending[WORD_BITS], mask[WORD_BITS];
};

struct console_ring {
  char in[1024], out[2048];
  volatile u32 in_consumed, in_produced, out_consumed, out_produced;
};

#define TRAP_MASKS_EVENTS 4
#define TRAP_USER 3

#define CONTEXT_IN_KERNEL 4

/* A hypercall that can only fail when this kernel or the host is wrong. */
sword must(const char *what, sword result);

/* Whether frames are translated for this guest: the machine's are its own then, and nobody examines its tables. */
extern u32 xen_translates;
/* What choices for Xen can need. */
#define XEN_HAS_MACHINE_FRAMES 1
word machine_frame(word page);
u64 machine_address(const void *address);
word page_of_machine(word frame);

extern const struct start_info *xen_start_info;
extern struct shared_info *xen_shared_info;

/* Arguments of C functions behind operations with a convention of their own; irq.S has those. */
u64 xen_entry_to_machine(u64 value);
u64 xen_entry_to_physical(u64 value);

/* What differs between guests of 64 and of 32 bits. */
void xen_begin_cpu(struct cpu *cpu);
void xen_describe_cpu(struct vcpu_context *context, struct cpu *cpu, word stack);

void xen_pin(struct memory_descriptor *mm);

/* mmu.c */
void xen_read_frames(void);
void xen_set_entry(void *pointer, u64 entry);
void xen_extended(struct mmuext_op *operations, u32 count);
void xen_extended_one(u32 command, word frame_or_address, word argument);
void xen_freeze(void *table, u32 level);
void xen_thaw(void *table, u32 level);
void xen_freeze_here(const void *page);
void xen_alloc_pt(struct memory_descriptor *mm, word page);
void xen_begin_interrupts(void);
void xen_start_cpus(void);
void xen_flush_updates(void);
void xen_flush_calls(void);
void (*xen_event_entry(void))(void);
void xen_fill_context(struct vcpu_context *context);
void xen_protect(void *page, u32 is_writable);
void xen_pin_tables(struct mmuext_op *operations, u32 count);
void xen_pin_table(u32 command, const void *table);
u32 xen_is_live(const void *pointer);

/* irq.S */
void xen_save_fl(void);
void xen_restore_fl(void);
void xen_irq_disable(void);
void xen_irq_disable_end(void);
void xen_irq_enable(void);
void xen_iret(void);
void xen_failsafe_entry(void);
void xen_kept_to_machine(void);
void xen_kept_to_physical(void);
void xen_secondary_entry(void);
