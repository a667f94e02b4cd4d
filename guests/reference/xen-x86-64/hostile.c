#include "hostile.h"
#include "xen-abi.h"
#include "console.h"
#include "start.h"

/*
 * Hypercalls with arguments that are right as often as wrong. They are about an arena of pages that the kernel can do
 * without, most of the time; what they do to the kernel itself ends it, and that is part of the attempt.
 */
#define ARENA_PAGES 24
#define FIRST_FREE_WORD 448

static u8 arena[ARENA_PAGES][PAGE_SIZE] ALIGNED(PAGE_SIZE);
static u64 words[PAGE_SIZE / 8] ALIGNED(PAGE_SIZE);
static u64 done;

static u64 arena_page(void) { return (u64)arena[hostile_random(ARENA_PAGES)]; }

/* Machine frames: of the arena, of any page that the kernel has, of tables in use, or of nothing. */
static u64 frame(void) {
  switch (hostile_random(12)) {
    case 0:
      return machine_frame(hostile_random(POOL_PAGES));
    case 1:
      return machine_frame(page_number(swapper_pg_dir));
    case 2:
      return machine_frame(page_number(gdt_pages[0]));
    case 3:
      return xen_start_info->shared_info / PAGE_SIZE;
    case 4:
      return hostile_number();
    default:
      return machine_frame(page_number((void *)arena_page()));
  }
}

static u64 entry(void) {
  u64 flags = hostile_random(16) ? hostile_random(0x80) & ~0x18UL : hostile_number() & 0xfff;
  if (hostile_random(8) == 0) flags &= ~PRESENT;
  return frame() * PAGE_SIZE | flags;
}

static u64 address(void) {
  switch (hostile_random(10)) {
    case 0:
      return hostile_number();
    case 1:
      return XEN_MACHINE_TO_PHYSICAL + hostile_number() * 8;
    case 2:
      return (u64)swapper_pg_dir;
    default:
      return arena_page();
  }
}

/* An argument that is to point at a structure: nearly always it does. */
static u64 pointer(u64 good) { return hostile_random(24) ? good : address() + hostile_random(9); }

static u64 domain(void) { return hostile_random(10) ? XEN_SELF : hostile_number(); }

/* A word of a structure of which no more is known. */
static u64 any_word(void) {
  switch (hostile_random(6)) {
    case 0:
      return frame();
    case 1:
      return hostile_random(8) << 32 | hostile_random(8);
    case 2:
      return XEN_SELF << (hostile_random(2) * 16);
    case 3:
      return (u64)&words[FIRST_FREE_WORD];
    default:
      return hostile_number();
  }
}

static void fill_any(u64 count) {
  for (u64 index = 0; index < count; index++) words[index] = any_word();
}

static s64 table_updates(void) {
  u64 count = 1 + hostile_random(4);
  for (u64 index = 0; index < count; index++) {
    words[2 * index] = frame() * PAGE_SIZE + hostile_random(512) * 8 + hostile_random(hostile_random(4) ? 3 : 8);
    words[2 * index + 1] = hostile_random(6) ? entry() : hostile_number();
  }
  return hypercall(XEN_MMU_UPDATE, pointer((u64)words), hostile_random(20) ? count : hostile_number(), pointer((u64)&done),
                   domain());
}

/* Mostly an arena page's own mapping: what may become a table must not be writable anywhere. */
static s64 mapping_update(void) {
  u64 page = address();
  u64 value = entry();
  u64 is_own = page >= (u64)arena && page < (u64)arena + sizeof(arena) && hostile_random(4);
  if (is_own) value = machine_address((void *)(page & -(u64)PAGE_SIZE)) | PRESENT | ACCESSED | (hostile_random(3) ? 0 : WRITABLE);
  return hypercall(XEN_UPDATE_VA_MAPPING, page, value, hostile_random(8) ? hostile_random(3) : hostile_number(), 0);
}

static s64 extended_operation(void) {
  words[0] = hostile_random(22);
  words[1] = words[0] == 7 || words[0] == 9 || words[0] == 13 ? address() : frame();
  words[2] = hostile_random(3) ? hostile_random(16) : pointer((u64)&words[FIRST_FREE_WORD]);
  if (words[0] == MMUEXT_COPY_PAGE) words[2] = frame();
  if (words[0] == MMUEXT_NEW_BASE && hostile_random(4)) words[1] = machine_frame(page_number(swapper_pg_dir));
  return hypercall(XEN_MMUEXT_OP, pointer((u64)words), hostile_random(20) ? 1 : hostile_number(), pointer((u64)&done), domain());
}

static s64 descriptors(void) {
  if (hostile_random(2)) return hypercall(XEN_UPDATE_DESCRIPTOR, frame() * PAGE_SIZE + hostile_random(514) * 8, any_word(), 0, 0);
  for (u64 index = 0; index < 16; index++) words[index] = hostile_random(4) ? machine_frame(page_number(gdt_pages[1])) : frame();
  return hypercall(XEN_SET_GDT, pointer((u64)words), hostile_random(4) ? hostile_random(600) : hostile_number(), 0, 0);
}

/* Reservations: pointer to frames, count, order, flags and domain. */
static s64 memory(void) {
  for (u64 index = 0; index < 4; index++) words[FIRST_FREE_WORD + index] = hostile_random(3) ? frame() : hostile_number();
  words[0] = pointer((u64)&words[FIRST_FREE_WORD]);
  words[1] = hostile_random(5);
  words[2] = hostile_random(6) ? 0 : hostile_number();
  words[3] = hostile_random(6) ? XEN_SELF : hostile_number();
  u64 command = hostile_random(13);
  if (command == 9) {
    words[0] = hostile_random(3);
    words[1] = pointer((u64)&words[FIRST_FREE_WORD]);
  }
  return hypercall(12, command, pointer((u64)words), 0, 0);
}

static s64 events(void) {
  words[0] = hostile_random(3) ? hostile_random(12) | hostile_random(12) << 32 : any_word();
  words[1] = any_word();
  words[2] = any_word();
  if (hostile_random(4) == 0) words[0] = XEN_SELF | XEN_SELF << 16;
  return hypercall(XEN_EVENT_CHANNEL_OP, hostile_random(15), pointer((u64)words), 0, 0);
}

static s64 grants(void) {
  fill_any(16);
  words[0] = XEN_SELF | hostile_random(4) << 32;
  words[2] = (u64)&words[FIRST_FREE_WORD];
  return hypercall(20, hostile_random(14), pointer((u64)words), hostile_random(8) ? hostile_random(3) : hostile_number(), 0);
}

/* Bringing up processors and taking this one down are left out: what they would run is nothing that comes back. */
static s64 processors(void) {
  static const u8 operations[] = {0, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 77};
  u64 operation = operations[hostile_random(sizeof(operations))];
  fill_any(8);
  words[0] = operation == 5 || operation == 13 ? (u64)&words[FIRST_FREE_WORD] : hostile_number() * 100000;
  if (operation == VCPU_INITIALISE) {
    words[0] = hostile_random(PAGE_SIZE);
    return hypercall(XEN_VCPU_OP, operation, 1 + hostile_random(4), pointer((u64)words), 0);
  }
  return hypercall(XEN_VCPU_OP, operation, hostile_random(4) ? 0 : hostile_random(4), pointer((u64)words), 0);
}

/* Blocking and shutting down are left out. */
static s64 scheduling(void) {
  static const u8 operations[] = {0, 3, 4, 5, 6, 7, 99};
  fill_any(4);
  words[2] = hostile_random(1000);
  return hypercall(XEN_SCHED_OP, operations[hostile_random(sizeof(operations))], pointer((u64)words), 0, 0);
}

static s64 version(void) {
  words[0] = hostile_random(2);
  return hypercall(XEN_VERSION, hostile_random(13), hostile_random(3) ? pointer((u64)words) : 0, 0, 0);
}

static s64 processor_state(void) {
  switch (hostile_random(7)) {
    case 0:
      return hypercall(XEN_STACK_SWITCH, hostile_number(), address(), 0, 0);
    case 1:
      return hypercall(5, hostile_random(2), 0, 0, 0);
    case 2:
      return hypercall(8, hostile_random(10), hostile_random(2) ? 0 : hostile_number(), 0, 0);
    case 3:
      return hypercall(9, hostile_random(10), 0, 0, 0);
    case 4:
      return hypercall(25, hostile_random(3) ? 0 : 1, hostile_random(2) ? address() : hostile_number(), 0, 0);
    case 5:
      return hypercall(XEN_VM_ASSIST, hostile_random(3), hostile_random(2) ? 4 : hostile_number(), 0, 0);
    default:
      words[0] = hostile_random(6);
      return hypercall(33, hostile_random(2) ? 6 + hostile_random(2) : hostile_random(30), pointer((u64)words), 0, 0);
  }
}

/* Types 0 and 1 keep their handlers: interrupts stay off, but the host may deliver what it likes. */
static s64 callbacks(void) {
  words[0] = (2 + hostile_random(8)) | hostile_random(2) << 16;
  words[1] = hostile_random(2) ? (u64)words : hostile_number();
  return hypercall(XEN_CALLBACK_OP, hostile_random(3), pointer((u64)words), 0, 0);
}

static s64 timers(void) { return hypercall(XEN_SET_TIMER, hostile_random(3) ? 0 : hostile_number(), 0, 0, 0); }

static s64 text(void) { return hypercall(18, 1 + hostile_random(3), hostile_random(64), pointer((u64)words), 0); }

static s64 batches(void) {
  struct multicall *calls = (struct multicall *)words;
  u64 count = hostile_random(5);
  for (u64 index = 0; index < count; index++) {
    calls[index] = (struct multicall){XEN_UPDATE_VA_MAPPING, 0, {arena_page(), entry(), hostile_random(3)}};
    if (hostile_random(3) == 0) calls[index] = (struct multicall){hostile_random(4) ? XEN_VERSION : XEN_MULTICALL, 0, {hostile_random(8)}};
  }
  return hypercall(XEN_MULTICALL, pointer((u64)words), count, 0, 0);
}

/* Numbers that nobody has given a meaning, and those that this kind of guest may not use. */
static s64 unknown(void) {
  static const u8 numbers[] = {6, 7, 11, 16, 19, 22, 27, 28, 31, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 48, 55, 63};
  u64 number = hostile_random(4) ? numbers[hostile_random(sizeof(numbers))] : 64 + hostile_number();
  return hypercall((u32)number, hostile_number(), pointer((u64)words), hostile_number(), 0);
}

static s64 (*const attempts[])(void) = {
  table_updates, table_updates, mapping_update, mapping_update, mapping_update, extended_operation, extended_operation,
  descriptors, memory, events, grants, processors, scheduling, version, processor_state, callbacks, timers, text, batches,
  unknown,
};

void xen_be_hostile(void) {
  xen_protect(gdt_pages[1], 0);
  for (;;) attempts[hostile_random(COUNT(attempts))]();
}
