#include "bench.h"
#include "console.h"
#include "paravirt-tables.h"
#include "process.h"

/*
 * `bench=ITEM times=N` instead of other work: one thing that programs have done to their memory, N times over, with a
 * count of the operations that it took. bench/reference.ts subtracts what N = 0 takes.
 */
static const char *const items[] = {"fork", "exec", "mmap", "fault", "switch"};

static word number_after(const char *name) {
  word number = 0;
  for (const char *digits = word_value(name); digits && *digits >= '0' && *digits <= '9'; digits++)
    number = number * 10 + (word)(*digits - '0');
  return number;
}

u32 run_bench(void) {
  for (word item = 0; item < COUNT(items); item++) {
    const char *wanted = word_value("bench=");
    if (!wanted || !same_bytes(wanted, items[item], 4)) continue;
    word times = number_after("times=");
    count_operations();
    lock_kernel();
    start_first_process(BENCH_ARGUMENT | item << BENCH_ITEM_SHIFT | (times & BENCH_TIMES_MASK));
    unlock_kernel();
    run_until_all_rest();
    stop_counting();
    lock_kernel();
    end_all_processes();
    unlock_kernel();
    print_counts();
    print("lazy batches %u updates %u\n", lazy_batches, lazy_updates);
    return 1;
  }
  return 0;
}
