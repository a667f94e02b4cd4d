#include "apic.h"
#include "console.h"
#include "hostile.h"
#include "ports.h"
#include "start.h"

/*
 * Hypercalls and registers of KVM's with arguments that are right as often as wrong, about pages that the kernel can do
 * without, or about what is no memory.
 */
#define MMU_OPERATIONS 2
#define RECORD_FLUSH 2
#define RECORD_RELEASE 3

static u8 buffer[2 * PAGE_SIZE] ALIGNED(PAGE_SIZE);

/* Registers: those of the interface, and their neighbours. */
static const u32 numbers[] = {0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04, 0x4b564d05};
static u32 number;
static u64 value;

static void write_register(void) {
  asm volatile("wrmsr" : : "c"(number), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}
static void read_register(void) {
  u32 low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number));
}

static u64 address(u32 alignment) {
  u64 inside = (u64)hostile_page() * PAGE_SIZE + hostile_random(PAGE_SIZE / alignment) * alignment;
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
  number = numbers[hostile_random(COUNT(numbers))];
  value = hostile_random(6) ? address(64) | hostile_random(2) : hostile_number() << 40;
  hostile_attempt(hostile_random(4) ? write_register : read_register);
}

static sword call(word which, word first, u64 second) {
  sword result;
  word low = (word)second, high = sizeof(word) == 8 ? 0 : (word)(second >> 32);
  asm volatile("vmcall" : "=a"(result) : "a"(which), "b"(first), "c"(low), "d"(high) : "memory");
  return result;
}

/* Records one behind the other: entries that are there, anything, and what is no record. */
static u32 fill_records(u8 *place) {
  u32 bytes = 0, count = 1 + (u32)hostile_random(hostile_random(8) ? 3 : 40);
  for (u32 index = 0; index < count; index++) {
    u64 type = 1 + hostile_random(hostile_random(8) ? 3 : 60);
    u64 target = hostile_random(3) ? physical(hostile_entry_pointer()) : address(8);
    u64 record[] = {type, target, hostile_random(4) ? hostile_entry() : hostile_number()};
    u32 size = type == RECORD_FLUSH ? 8 : type == RECORD_RELEASE ? 16 : 24;
    copy(place + bytes, record, size);
    bytes += size;
  }
  return bytes;
}

/* The host has seldom brought in that page, or the next one, where the call goes on behind a record that is right. */
static u64 end_of_free_page(void) {
  u64 *end = (u64 *)pool[POOL_PAGES - hostile_random(POOL_PAGES / 2)] - 1;
  if (hostile_random(2)) *end = RECORD_FLUSH;
  return physical(end);
}

static void try_records(void) {
  u32 offset = (u32)hostile_random(PAGE_SIZE / 8) * 8;
  u32 bytes = fill_records(buffer + offset);
  u64 start = hostile_random(8) ? physical(buffer) + offset : address(4);
  if (hostile_random(16) == 0) start = end_of_free_page();
  call(MMU_OPERATIONS, hostile_random(8) ? bytes : (word)hostile_number() & 0xfff, start);
}

static void try_call(void) {
  word which = (word)hostile_random(hostile_random(16) ? 16 : 1 << 20);
  if (which == MMU_OPERATIONS) hostile_program((u32)which);
  else call(which, (word)hostile_number(), address(8));
}

/* Interrupts come meanwhile, one of the processor's own among them. */
#define APIC_COMMAND 0x300
#define SELF 0x40000

static void let_interrupts_in(void) {
  if (hostile_random(2)) PV_CALL_2(apic, apic_write, APIC_COMMAND, SELF | VECTOR_FLUSH);
  if (hostile_random(2)) PV_CALL_2(apic, apic_write, APIC_COMMAND, SELF | VECTOR_TIMER);
  asm volatile("sti\n\tnop\n\tcli" : : : "memory");
}

/* The end of an interrupt is a bit in memory; the guest clears it, though the APIC has heard of that end too. */
#define END_OF_INTERRUPT 0x4b564d04

static void end_in_memory(void) {
  word page = hostile_page();
  number = END_OF_INTERRUPT, value = (u64)page * PAGE_SIZE | 1;
  write_register();
  let_interrupts_in();
  *(volatile u32 *)virtual(page * PAGE_SIZE) = 0;
}

/* The other processor, where there is one, waits for interrupts. */
#define OTHER (&cpus[1])
#define PREEMPTED 16

/* It is reset wherever it was, perhaps with the kernel's lock, and begins anew. */
static void restart_other(void) {
  if (cpu_count == 1 || hostile_random(64)) return;
  start_pc_cpu(OTHER, idle_stack_of(1));
  unlock_kernel();
}

/* It is told to flush before it runs, or that it runs already; then it is interrupted and gets its turn. */
static void ask_other(void) {
  if (cpu_count == 1) return;
  OTHER->kvm_steal_time[PREEMPTED] = (u8)hostile_random(4);
  send_flush_interrupt(OTHER);
  relax();
}

static void (*const attempts[])(void) = {
  try_register, try_register, try_records, try_records, try_call, hostile_touch, let_interrupts_in,
  end_in_memory, restart_other, ask_other,
};

void kvm_be_hostile(void) {
  hostile_space();
  start_cpus();
  for (;;) attempts[hostile_random(COUNT(attempts))]();
}
