#pragma once
#include "cpu.h"
#include "lguest-abi.h"

/* irq.S */
void lguest_save_fl(void);
void lguest_irq_disable(void);
void lguest_irq_enable(void);
void lguest_restore_fl(void);
void lguest_iret(void);
extern const u8 lguest_save_fl_end[], lguest_irq_disable_end[], lguest_noirq_start[], lguest_noirq_end[];

void lguest_call(u32 call, u32 first, u32 second, u32 third, u32 fourth);
/* In a lazy section it waits in the ring. */
void lguest_call_lazily(u32 call, u32 first, u32 second, u32 third, u32 fourth);
void lguest_set_lazy_mode(u32 mode);
void lguest_begin_tables(void);
