#include "console.h"
#include "hostile.h"
#include "memory.h"
#include "ports.h"

/*
 * Hypercalls and registers of KVM's with arguments that are right as often as wrong, about an arena of pages that the
 * kernel can do without, or about what is no memory. It prints how often each was carried out and refused, and ends.
 */
#define ATTEMPTS 20000
#define ARENA_PAGES 4
#define CALLS 16
#define MMU_OPERATIONS 2

static u8 arena[ARENA_PAGES][PAGE_SIZE] ALIGNED(PAGE_SIZE);
static u8 buffer[PAGE_SIZE] ALIGNED(PAGE_SIZE);
static struct { word carried_out, refused; } calls[CALLS], records[4], registers[8];

static const u32 numbers[] = {0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04, 0x4b564d05};
_Static_assert(COUNT(numbers) == COUNT(registers), "a count for each register");

/* 1 when the processor refused; handle_trap goes on behind the instruction. */
extern u8 try_write_msr[];
static volatile u32 was_refused;

u32 recover(word ip) {
  if (ip != (word)try_write_msr) return 0;
  was_refused = 1;
  return 2; /* bytes of WRMSR */
}

static u32 write_register(u32 number, u64 value) {
  was_refused = 0;
  asm volatile(".globl try_write_msr\ntry_write_msr:\n\twrmsr"
               : : "c"(number), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
  return was_refused;
}

static u64 address(u32 alignment) {
  u64 inside = physical(arena[hostile_random(ARENA_PAGES)]) + hostile_random(PAGE_SIZE / alignment) * alignment;
  switch (hostile_random(8)) {
    case 0:
      return inside + hostile_random(alignment);
    case 1:
      return hostile_number() << 32;
    default:
      return inside;
  }
}

static void try_register(void) {
  u32 index = (u32)hostile_random(COUNT(numbers));
  u64 value = address(64) | hostile_random(2);
  if (write_register(numbers[index], hostile_random(6) ? value : hostile_number() << 40)) registers[index].refused++;
  else registers[index].carried_out++;
}

static sword call(word number, u64 first, u64 second, u64 third) {
  sword result;
  asm volatile("vmcall" : "=a"(result) : "a"(number), "b"((word)first), "c"((word)second), "d"((word)third) : "memory");
  return result;
}

static void note(word number, sword result) {
  if (number >= CALLS) return;
  if (result < 0) calls[number].refused++;
  else calls[number].carried_out++;
}

/* One record, so that its result is known. */
static void try_record(void) {
  u64 type = 1 + hostile_random(hostile_random(8) ? 3 : 60);
  u64 record[] = {type, address(8), hostile_number()};
  u64 start = hostile_random(8) ? physical(buffer) + hostile_random(256) * 8 : address(4);
  copy(buffer + (start - physical(buffer)) % (PAGE_SIZE - sizeof(record)), record, sizeof(record));
  sword result = call(MMU_OPERATIONS, hostile_random(8) ? 24 : hostile_number() & 0xfff, start, 0);
  note(MMU_OPERATIONS, result);
  if (type > 3) return;
  if (result < 0) records[type].refused++;
  else records[type].carried_out++;
}

static void try_call(void) {
  word number = (word)hostile_random(CALLS);
  if (number != MMU_OPERATIONS) note(number, call(number, hostile_number(), address(8), hostile_number()));
}

void kvm_be_hostile(void) {
  for (u32 attempt = 0; attempt < ATTEMPTS; attempt++) {
    switch (hostile_random(3)) {
      case 0:
        try_register();
        break;
      case 1:
        try_record();
        break;
      default:
        try_call();
    }
  }
  for (u32 number = 0; number < CALLS; number++)
    print("hypercall %u carried out %u refused %u\n", (word)number, calls[number].carried_out, calls[number].refused);
  for (u32 type = 1; type < COUNT(records); type++)
    print("record %u carried out %u refused %u\n", (word)type, records[type].carried_out, records[type].refused);
  for (u32 index = 0; index < COUNT(numbers); index++)
    print("register %x carried out %u refused %u\n", (word)numbers[index], registers[index].carried_out,
          registers[index].refused);
}
