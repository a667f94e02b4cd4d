#pragma once
#include "types.h"

/* Xen's interface as guests of 64 bits have it: calls by SYSCALL, and flat segments that are the host's. */
#define WORD_BITS 64
#define XEN_KERNEL_SS 0xe02b
#define XEN_KERNEL_CS 0xe033
#define XEN_KERNEL_RING 3
/* In frames, which tell the kernel from its programs: they run in the same ring. */
#define XEN_FRAME_CS 0xe030
#define XEN_USER_SS 0xe02b
#define XEN_USER_CS 0xe033

struct trap_info {
  u8 vector, flags;
  u16 cs;
  word address;
};

struct callback_address {
  u64 address;
};
#define CALLBACK_ADDRESS(entry) {(u64)(entry)}

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

static inline s64 hypercall(u32 number, u64 a, u64 b, u64 c, u64 d) {
  s64 result;
  register u64 fourth asm("r10") = d;
  asm volatile("syscall"
               : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(fourth)
               : "a"(number)
               : "rcx", "r8", "r9", "r11", "memory", "cc");
  return result;
}

/* Arguments of update_va_mapping, which flushes that address; of update_descriptor; of set_timer. */
#define XEN_MAPPING(address, entry) address, entry, 2
static inline s64 xen_map(u64 address, u64 entry) {
  return hypercall(XEN_UPDATE_VA_MAPPING, address, entry, 2, 0);
}
static inline s64 xen_update_descriptor(u64 place, u64 low, u64 high) {
  (void)high;
  return hypercall(XEN_UPDATE_DESCRIPTOR, place, low, 0, 0);
}
static inline s64 xen_set_timer(u64 deadline) { return hypercall(XEN_SET_TIMER, deadline, 0, 0, 0); }
