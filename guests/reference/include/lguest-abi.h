#pragma once

/* lguest as Linux 2.6.30 to 3.0 has it (asm/lguest_hcall.h, linux/lguest.h), as far as this kernel uses it. */
#define BOOT_SUBARCH 0x23c
#define SUBARCH_LGUEST 1
#define LGUEST_VECTOR 0x1f

#define LGUEST_FLUSH_ASYNC 0
#define LGUEST_INIT 1
#define LGUEST_SHUTDOWN 2
#define LGUEST_NEW_PGTABLE 4
#define LGUEST_FLUSH_TLB 5
#define LGUEST_LOAD_IDT_ENTRY 6
#define LGUEST_SET_STACK 7
#define LGUEST_SET_CLOCKEVENT 9
#define LGUEST_HALT 10
#define LGUEST_SET_PMD 13
#define LGUEST_SET_PTE 14
#define LGUEST_SET_PGD 15
#define LGUEST_NOTIFY 17
#define LGUEST_LOAD_GDT_ENTRY 18
#define LGUEST_SEND_INTERRUPTS 19

#define LGUEST_POWER_OFF 1

/* In lguest_data, for assembly. */
#define LGUEST_IRQ_ENABLED 0x00
#define LGUEST_IRQ_PENDING 0x14
#define LGUEST_SLOTS 64
#define LGUEST_SLOT_FREE 0xff

#ifndef __ASSEMBLER__
#include "types.h"

struct lguest_data {
  volatile u32 irq_enabled;
  u32 blocked_interrupts;
  volatile u32 cr2;
  volatile u32 seconds, nanoseconds;
  volatile u32 irq_pending;
  volatile u8 slot_states[LGUEST_SLOTS];
  struct { u32 call, arguments[4]; } slots[LGUEST_SLOTS];
  u32 reserve_memory, tsc_khz;
  u32 pgdir;
  const void *noirq_start, *noirq_end;
  u32 kernel_address, system_call_vector;
};
_Static_assert(offsetof(struct lguest_data, irq_pending) == LGUEST_IRQ_PENDING, "assembly knows the place");
_Static_assert(offsetof(struct lguest_data, reserve_memory) == 0x558, "as hosts know it");
extern struct lguest_data lguest_data;
#endif
