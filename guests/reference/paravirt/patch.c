#include "choices.h"
#include "console.h"
#include "native.h"
#include "paravirt-tables.h"
#include "site.h"

/*
 * Patching of call sites. A site begins as an indirect call through one of the pv_*_ops; here it becomes a direct call of
 * what stands there at this moment, or that function's instructions themselves, with no-ops behind.
 */

/* The operation tables as they are when this is called: they may have changed since the last time. */
static void *operation_of(u32 type) {
  struct paravirt_template current = {
#define CURRENT(group, list) .group = pv_##group##_ops,
    PV_GROUPS(CURRENT)
  };
  return ((void **)&current)[type];
}

/* Functions of operations with a convention of their own change nothing but their result. */
static u32 clobbers_of(u32 type) {
  for (u32 index = 0; index < operation_group_count; index++) {
    const struct operation_group *group = &operation_groups[index];
    if (type >= group->first && type < group->first + group->kept) return CLOBBERS_RESULT;
  }
  return CLOBBERS_ANY;
}

#define DECLARE_END(group, op) extern u8 native_##op##_end[];
NATIVE_INSTRUCTIONS(DECLARE_END)

/* A native function that is an instruction or two takes its place; most others are called. */
#define NATIVE_TEMPLATE(group, op) {(void *)native_##op, (void *)native_##op, native_##op##_end},
TEMPLATES(native) = { NATIVE_INSTRUCTIONS(NATIVE_TEMPLATE) };

static const struct code_template *template_of(const void *function) {
  for (const struct code_template *template = templates; template < templates_end; template++)
    if (template->function == function) return template;
  return NULL;
}

static u32 patch_branch(u8 *buffer, u8 opcode, void *target, word site, u32 length) {
  if (length < 5) return length;
  s32 distance = (s32)((word)target - (site + 5));
  buffer[0] = opcode;
  copy(buffer + 1, &distance, 4);
  return 5;
}

u32 patch_site(u32 type, u32 clobbers, u8 *buffer, word site, u32 length) {
  void *target = operation_of(type);
  if (!target) {
    buffer[0] = 0x0f; /* ud2 */
    buffer[1] = 0x0b;
    return 2;
  }
  if (target == (void *)paravirt_nop) return 0;
  const struct code_template *template = template_of(target);
  u32 bytes = template ? (u32)((word)template->end - (word)template->begin) : 0;
  if (template && bytes <= length) {
    copy(buffer, template->begin, bytes);
    return bytes;
  }
  if (type == PV_TYPE(cpu, iret)) return patch_branch(buffer, 0xe9, target, site, length);
  /* Assembly says that it destroys nothing, and calls only what is made for it. */
  if (clobbers != 0 && (clobbers_of(type) & ~clobbers) != 0) return length;
  return patch_branch(buffer, 0xe8, target, site, length);
}

/* The longest no-ops that the manual recommends (SDM vol. 2B, NOP). */
static void fill_with_no_ops(u8 *at, u32 count) {
  static const u8 no_ops[8][8] = {
    {0x90},
    {0x66, 0x90},
    {0x0f, 0x1f, 0x00},
    {0x0f, 0x1f, 0x40, 0x00},
    {0x0f, 0x1f, 0x44, 0x00, 0x00},
    {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00},
    {0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00},
    {0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
  };
  while (count > 0) {
    u32 bytes = count < 8 ? count : 8;
    copy(at, no_ops[bytes - 1], bytes);
    at += bytes;
    count -= bytes;
  }
}

static u32 is_branch(const u8 *code) { return code[0] == 0xe8 || code[0] == 0xe9; }

/* No other processor may execute kernel code meanwhile but the loop of answer_stop. */
struct patch_counts apply_paravirt(void) {
  struct patch_counts counts = {0, 0, 0, 0};
  u8 buffer[32];
  for (const struct site *site = sites; site < sites_end; site++) {
    void *code = (void *)site->address;
    counts.sites++;
    copy(buffer, code, site->length);
    u32 used = pv_init_ops.patch(site->type, site->clobbers, buffer, site->address, site->length);
    if (used == site->length && !same_bytes(buffer, code, used)) counts.inlined++;
    else if (used == site->length) counts.left++;
    else if (used > 0 && is_branch(buffer)) counts.called++;
    else counts.inlined++;
    fill_with_no_ops(buffer + used, site->length - used);
    copy(code, buffer, site->length);
  }
  u32 serialize[4] = {0, 0, 0, 0};
  pv_cpu_ops.cpuid(serialize);
  return counts;
}
