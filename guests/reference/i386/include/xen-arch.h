#pragma once
#include "types.h"

/* Xen's interface as guests of 32 bits have it: calls by INT 0x82, and a kernel in ring 1. */
#define WORD_BITS 32
#define XEN_KERNEL_SS 0xe021
#define XEN_KERNEL_CS 0xe019
#define XEN_KERNEL_RING 1
#define XEN_FRAME_CS XEN_KERNEL_CS
#define XEN_USER_SS 0xe033
#define XEN_USER_CS 0xe02b

struct trap_info {
  u8 vector, flags;
  u16 cs;
  word address;
};

struct callback_address {
  u32 cs, address;
};
#define CALLBACK_ADDRESS(entry) {XEN_KERNEL_CS, (u32)(entry)}

struct vcpu_context {
  u8 fpu[512];
  u32 flags;
  u32 ebx, ecx, edx, esi, edi, ebp, eax;
  u16 error, vector;
  u32 ip, cs, eflags, sp, ss, es, ds, fs, gs;
  struct trap_info traps[256];
  u32 ldt_base, ldt_entries, gdt_frames[16], gdt_entries, kernel_ss, kernel_sp, control[8], debug[8];
  struct callback_address event_callback, failsafe_callback;
  u32 assists;
};
_Static_assert(sizeof(struct vcpu_context) == 2800, "as public/arch-x86/xen.h has it");

static inline s32 hypercall(u32 number, u32 a, u32 b, u32 c, u32 d) {
  s32 result;
  asm volatile("int $0x82" : "=a"(result), "+b"(a), "+c"(b), "+d"(c), "+S"(d) : "a"(number) : "memory");
  return result;
}

/* Arguments of update_va_mapping, which flushes that address; of update_descriptor; of set_timer. */
#define XEN_MAPPING(address, entry) address, (u32)(entry), (u32)((entry) >> 32), 2
static inline s32 xen_map(u32 address, u64 entry) {
  return hypercall(XEN_UPDATE_VA_MAPPING, address, (u32)entry, (u32)(entry >> 32), 2);
}
static inline s32 xen_update_descriptor(u64 place, u32 low, u32 high) {
  return hypercall(XEN_UPDATE_DESCRIPTOR, (u32)place, (u32)(place >> 32), low, high);
}
static inline s32 xen_set_timer(u64 deadline) {
  return hypercall(XEN_SET_TIMER, (u32)deadline, (u32)(deadline >> 32), 0, 0);
}
