#pragma once
#include "types.h"

/* What an exception, an interrupt or a system call leaves on the kernel's stack; vectors.S pushes the upper part. */
struct frame {
  u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
  u64 vector, error, ip, cs, flags, sp, ss;
};
#define FROM_USER(frame) (((frame)->cs & 3) != 0)
/* Where a program finds what it is started with. */
#define ARGUMENT di
/* By push_kept_registers. */
#define SAVED_REGISTERS 6

#define CPU_SEGMENT "gs"

struct task_state {
  u32 unused;
  u64 stacks[3];
  u64 more[11];
  u16 unused2, io_map;
} __attribute__((packed));

struct table_pointer {
  u16 limit;
  u64 base;
} __attribute__((packed));
