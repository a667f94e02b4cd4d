#include "console.h"
#include "paravirt-tables.h"

/* Counts of operations: for a while, each is replaced by a stand-in of count.S. */
#define MOST_OPERATIONS 128
#define STAND_IN_BYTES 32

extern u8 counting[];
extern word operation_counts[MOST_OPERATIONS];
extern void *counted_operations[MOST_OPERATIONS];
_Static_assert(PV_OPERATIONS <= MOST_OPERATIONS, "a stand-in for each operation");

static const struct { void **operations; u32 first, count; } groups[] = {
#define GROUP(group, list) \
  {(void **)&pv_##group##_ops, offsetof(struct paravirt_template, group) / sizeof(void *), \
   sizeof(struct pv_##group##_ops) / sizeof(void *)},
  PV_GROUPS(GROUP)
};

void count_operations(void) {
  for (u32 group = 0; group < COUNT(groups); group++) {
    for (u32 index = 0; index < groups[group].count; index++) {
      u32 type = groups[group].first + index;
      counted_operations[type] = groups[group].operations[index];
      groups[group].operations[index] = counting + type * STAND_IN_BYTES;
    }
  }
}

void stop_counting(void) {
  for (u32 group = 0; group < COUNT(groups); group++) {
    for (u32 index = 0; index < groups[group].count; index++) {
      groups[group].operations[index] = counted_operations[groups[group].first + index];
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
