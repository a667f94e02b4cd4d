#include "choices.h"
#include "console.h"
#include "paravirt-tables.h"

/* Counts of operations: for a while, each is replaced by a stand-in of count.S. */
#define MOST_OPERATIONS 128
#define STAND_IN_BYTES 32

extern u8 counting[];
extern word operation_counts[MOST_OPERATIONS];
extern void *counted_operations[MOST_OPERATIONS];
_Static_assert(PV_OPERATIONS <= MOST_OPERATIONS, "a stand-in for each operation");

void count_operations(void) {
  for (u32 group = 0; group < operation_group_count; group++) {
    for (u32 index = 0; index < operation_groups[group].count; index++) {
      u32 type = operation_groups[group].first + index;
      counted_operations[type] = operation_groups[group].operations[index];
      operation_groups[group].operations[index] = counting + type * STAND_IN_BYTES;
    }
  }
}

void stop_counting(void) {
  for (u32 group = 0; group < operation_group_count; group++) {
    for (u32 index = 0; index < operation_groups[group].count; index++) {
      operation_groups[group].operations[index] = counted_operations[operation_groups[group].first + index];
    }
  }
}

void print_counts(void) {
  for (u32 type = 0; type < PV_OPERATIONS; type++) {
    word count = operation_counts[type];
    if (count > 0) print("operation %s.%s %u\n", group_of(type), operation_names[type], count);
  }
}

word lazy_batches, lazy_updates;

word lazy_sections(void) { return operation_counts[PV_TYPE(misc, set_lazy_mode)] / 2; }
