#include "paravirt-tables.h"

/* What the kernel runs on, and what its operations are called, by name and by number. */
struct pv_info pv_info = {.name = "bare hardware", .kernel_rpl = 0, .shares_kernel_tables = 1};

const char *const operation_names[] = {
#define FIELD_NAME(result, name, parameters) STRING(name),
#define GROUP_NAMES(group, list) list(FIELD_NAME)
  PV_GROUPS(GROUP_NAMES)
};
_Static_assert(COUNT(operation_names) == PV_OPERATIONS, "every operation has a name");

const char *group_of(u32 type) {
#define GROUP_END(group, list) \
  if (type < (offsetof(struct paravirt_template, group) + sizeof(struct pv_##group##_ops)) / sizeof(void *)) \
    return STRING(group);
  PV_GROUPS(GROUP_END)
  return "unknown";
}

/* Numbers of operations for sites in assembly. */
#define EXPORT_TYPE(group, op) \
  asm volatile(".globl type_" #group "_" #op "\n\t.set type_" #group "_" #op ", %c0" : : "i"(PV_TYPE(group, op)));

USED static void export_types(void) { SITES_IN_ASSEMBLY(EXPORT_TYPE) }
