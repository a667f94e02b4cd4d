#pragma once
#include "cpu.h"
#include "memory.h"

/* Xen's paravirtual interface for 64-bit guests (public/xen.h and its neighbours). */
enum {
  XEN_SET_TRAP_TABLE = 0,
  XEN_MMU_UPDATE = 1,
  XEN_SET_GDT = 2,
  XEN_STACK_SWITCH = 3,
  XEN_UPDATE_DESCRIPTOR = 10,
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

#define XEN_SELF 0x7ff0UL
#define XEN_KERNEL_SS 0xe02b
#define XEN_KERNEL_CS 0xe033

enum { MMU_NORMAL = 0, MMU_PRESERVE_AD = 2 };
enum { MMUEXT_PIN_L1 = 0, MMUEXT_PIN_L4 = 3, MMUEXT_UNPIN = 4, MMUEXT_NEW_BASE = 5, MMUEXT_FLUSH_LOCAL = 6,
       MMUEXT_INVALIDATE_LOCAL = 7, MMUEXT_FLUSH_MULTI = 8, MMUEXT_INVALIDATE_MULTI = 9, MMUEXT_NEW_USER_BASE = 15, MMUEXT_COPY_PAGE = 17 };
struct mmuext_op { u32 command; u64 frame_or_address, argument; };

enum { VCPU_INITIALISE = 0, VCPU_UP = 1, VCPU_IS_UP = 3, VCPU_STOP_PERIODIC = 7, VCPU_REGISTER_INFO = 10 };
enum { SCHED_BLOCK = 1, SCHED_SHUTDOWN = 2 };
enum { SHUTDOWN_POWEROFF = 0, SHUTDOWN_CRASH = 3 };
enum { EVENT_BIND_VIRQ = 1, EVENT_SEND = 4 };
enum { VIRQ_TIMER = 0 };
enum { CALLBACK_REGISTER = 0 };
enum { CALLBACK_EVENT = 0, CALLBACK_FAILSAFE = 1 };
#define CALLBACK_MASKS_EVENTS 1
#define ASSIST_ENABLE 0
#define ASSIST_WRITABLE_TABLES 2

struct start_info {
  char magic[32];
  u64 pages, shared_info;
  u32 flags;
  u64 store_frame;
  u32 store_port;
  u64 console_frame;
  u32 console_port;
  u64 table_base, table_frames, frame_list, module_start, module_length;
  char command_line[1024];
};

struct vcpu_info {
  volatile u8 pending, mask;
  volatile u64 selector;
  u64 cr2, unused;
  u8 time[32];
};
_Static_assert(offsetof(struct vcpu_info, time) == 32, "where the clock is");

struct shared_info {
  struct vcpu_info vcpu[32];
  volatile u64 pending[64], mask[64];
};

struct console_ring {
  char in[1024], out[2048];
  volatile u32 in_consumed, in_produced, out_consumed, out_produced;
};

struct trap_info {
  u8 vector, flags;
  u16 cs;
  u64 address;
};
#define TRAP_MASKS_EVENTS 4
#define TRAP_USER 3

struct vcpu_context {
  u8 fpu[512];
  u64 flags;
  u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
  u32 error, vector;
  u64 rip, cs, rflags, rsp, ss, es, ds, fs, gs;
  struct trap_info traps[256];
  u64 ldt_base, ldt_entries, gdt_frames[16], gdt_entries, kernel_ss, kernel_sp, control[8], debug[8];
  u64 event_callback, failsafe_callback, syscall_callback, assists, fs_base, gs_base_kernel, gs_base_user;
};
_Static_assert(sizeof(struct vcpu_context) == 5168, "as public/arch-x86/xen.h has it");
#define CONTEXT_IN_KERNEL 4

static inline s64 hypercall(u32 number, u64 a, u64 b, u64 c, u64 d) {
  s64 result;
  register u64 fourth asm("r10") = d;
  asm volatile("syscall"
               : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(fourth)
               : "a"(number)
               : "rcx", "r8", "r9", "r11", "memory", "cc");
  return result;
}

/* A hypercall that can only fail when this kernel or the host is wrong. */
s64 must(const char *what, s64 result);

u64 machine_frame(u64 page);
u64 machine_address(const void *address);
u64 page_of_machine(u64 frame);

extern const struct start_info *xen_start_info;
extern struct shared_info *xen_shared_info;

/* Arguments of C functions behind operations with a convention of their own; xen/irq.S has those. */
u64 xen_entry_to_machine(u64 value);
u64 xen_entry_to_physical(u64 value);

void xen_install_mmu(void);
void xen_install_interrupts(void);
void xen_start_cpus(void);
void xen_flush_updates(void);
void xen_flush_calls(void);
void xen_fill_context(struct vcpu_context *context);
void xen_protect(void *page, u32 is_writable);
u32 xen_is_live(const void *pointer);

/* irq.S */
void xen_save_fl(void);
void xen_restore_fl(void);
void xen_irq_disable(void);
void xen_irq_disable_end(void);
void xen_irq_enable(void);
void xen_adjust_exception_frame(void);
void xen_iret(void);
void xen_failsafe_entry(void);
void xen_kept_to_machine(void);
void xen_kept_to_physical(void);
void xen_secondary_entry(void);
