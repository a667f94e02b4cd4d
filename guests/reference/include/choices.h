#pragma once
#include "operations.h"

/*
 * What interfaces put into the operation tables, and which functions are short enough to stand at call sites themselves:
 * records, so that a loader can read them too, and patch the sites before the kernel runs.
 */
enum interface_number { ON_XEN = 1, ON_KVM, ON_VMI, ON_LGUEST };

struct choice {
  /* NULL: the code that VMI's ROM has for `needs`. */
  const void *function;
  /* Bits that KVM must offer, the call that VMI's ROM must have code for, or what Xen must have (xen-abi.h). */
  u32 needs;
  u8 interface;
  u8 type;
  /* The kernel puts something else there later. */
  u8 changes;
};
extern const struct choice choices[], choices_end[];

#define CHOICES(name) \
  USED static const struct choice name##_choices[] ALIGNED(sizeof(word)) __attribute__((section(".choices")))
#define CHOICE_IF(which, group, op, target, condition) \
  {.function = (const void *)target, .needs = condition, .interface = which, .type = PV_TYPE(group, op)}
#define CHOICE(which, group, op, target) CHOICE_IF(which, group, op, target, 0)
#define FIRST_CHOICE(which, group, op, target) \
  {.function = (const void *)target, .interface = which, .type = PV_TYPE(group, op), .changes = 1}

/* Gives each operation that an interface chooses for what `resolve` answers, unless that is NULL. */
void install_operations(enum interface_number interface, const void *(*resolve)(const struct choice *));
const void *as_chosen(const struct choice *);

/* The instructions that can take the place of a call of a function. */
struct code_template {
  const void *function, *begin, *end;
};
extern const struct code_template templates[], templates_end[];

#define TEMPLATES(name) \
  USED static const struct code_template name##_templates[] ALIGNED(sizeof(word)) __attribute__((section(".templates")))

/* The operation tables, in the order of the numbers of operations. */
struct operation_group {
  void **operations;
  u32 first, count;
  /* The first of them keep all registers but their result. */
  u32 kept;
};
extern const struct operation_group operation_groups[];
extern const u32 operation_group_count;

/* Set by a loader that has patched the call sites. */
extern volatile u32 sites_are_patched;
