#pragma once

/* What a program's argument says when it is to do one thing many times. */
#define BENCH_ARGUMENT 0x80000000
#define BENCH_ITEM_SHIFT 28
#define BENCH_ITEM_MASK 7
#define BENCH_TIMES_MASK 0xfffffff
#define BENCH_MAPPED_PAGES 16
#define BENCH_MOST_FAULTS 256

#ifndef __ASSEMBLER__
#include "types.h"
/* Whether the command line asked for it. */
u32 run_bench(void);
#endif
