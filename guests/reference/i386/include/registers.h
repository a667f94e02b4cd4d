#pragma once
#include "types.h"

/*
 * What an exception, an interrupt or a system call leaves on the kernel's stack; vectors.S pushes the upper part. The last
 * two are there when it came out of a program.
 */
struct frame {
  u32 bp, bx, ax, cx, dx, si, di;
  u32 vector, error, ip, cs, flags, sp, ss;
};
#define FROM_USER(frame) (((frame)->cs & 3) == 3)
/* Where a program finds what it is started with. */
#define ARGUMENT ax
/* By push_kept_registers. */
#define SAVED_REGISTERS 4

#define CPU_SEGMENT "fs"

struct task_state {
  u32 link;
  u32 stack, stack_segment;
  u32 more[22];
  u16 trap, io_map;
} __attribute__((packed));

struct table_pointer {
  u16 limit;
  u32 base;
} __attribute__((packed));
