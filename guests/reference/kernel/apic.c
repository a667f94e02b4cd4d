#include "console.h"
#include "native.h"
#include "memory.h"
#include "ports.h"
#include "start.h"

/* The local interrupt controller (SDM vol. 3A, chapter 11) and its timer; clocks of plain hardware. */
#define APIC_PHYSICAL 0xfee00000
#define APIC_END 0x0b0
#define APIC_SPURIOUS 0x0f0
#define APIC_COMMAND 0x300
#define APIC_COMMAND_TARGET 0x310
#define APIC_TIMER 0x320
#define APIC_TIMER_INITIAL 0x380
#define APIC_TIMER_CURRENT 0x390
#define APIC_TIMER_DIVIDE 0x3e0
#define APIC_ENABLE 0x1ff
#define TIMER_PERIODIC 0x20000
#define DIVIDE_BY_16 3
#define COMMAND_INIT 0x4500
#define COMMAND_STARTUP 0x4600
#define COMMAND_PENDING 0x1000
#define TICKS_PER_SECOND 100
#define CLOCK_LEAF 0x15
#define FREQUENCY_LEAF 0x16

static volatile u8 *apic;
static u64 khz;
static u32 timer_count;

void apic_write(u32 number, u32 value) { PV_CALL_2(apic, apic_write, number, value); }
u32 apic_read(u32 number) { return (u32)PV_CALL_1(apic, apic_read, number); }
static u64 read_counter(void) { return PV_INLINE_0(cpu, read_tsc); }

void native_apic_write(u32 number, u32 value) { *(volatile u32 *)(apic + number) = value; }
u32 native_apic_read(u32 number) { return *(volatile u32 *)(apic + number); }

void end_interrupt(void) { apic_write(APIC_END, 0); }

/* A PC's older controller would send its interrupts by numbers that are exceptions'. */
static void silence_old_controller(void) {
  out_byte(0x21, 0xff);
  out_byte(0xa1, 0xff);
}

void native_init_irq(void) {
  silence_old_controller();
  if (!apic) apic = (volatile u8 *)(word)PV_CALL_ENTRY_2(mmu, set_fixmap, 0, APIC_PHYSICAL);
  apic_write(APIC_SPURIOUS, APIC_ENABLE);
}

/* The processor may tell (SDM vol. 2A, CPUID); otherwise the numbers only have to be plausible. */
u64 native_get_cpu_khz(void) {
  u32 highest[4] = {0, 0, 0, 0}, clock[4] = {CLOCK_LEAF, 0, 0, 0}, frequency[4] = {FREQUENCY_LEAF, 0, 0, 0};
  native_cpuid(highest);
  if (highest[0] >= CLOCK_LEAF) {
    native_cpuid(clock);
    if (clock[0] && clock[1] && clock[2]) return (u64)clock[2] * clock[1] / clock[0] / 1000;
  }
  if (highest[0] >= FREQUENCY_LEAF) {
    native_cpuid(frequency);
    if (frequency[0]) return (u64)frequency[0] * 1000;
  }
  return 1000000;
}

u64 native_sched_clock(void) { return khz ? read_counter() / (khz / 1000) * 1000 : 0; }

void native_time_init(void) { khz = PV_CALL_0(time, get_cpu_khz); }

/* Counts of the APIC's timer are measured against the time-stamp counter, once. */
void native_setup_boot_clock(void) {
  apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_16);
  apic_write(APIC_TIMER, VECTOR_TIMER | 0x10000);
  apic_write(APIC_TIMER_INITIAL, 0xffffffff);
  u64 start = read_counter();
  while (read_counter() - start < khz) relax();
  u32 per_millisecond = 0xffffffff - apic_read(APIC_TIMER_CURRENT);
  timer_count = per_millisecond * (1000 / TICKS_PER_SECOND);
  native_setup_secondary_clock();
}

void native_setup_secondary_clock(void) {
  apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_16);
  apic_write(APIC_TIMER, VECTOR_TIMER | TIMER_PERIODIC);
  apic_write(APIC_TIMER_INITIAL, timer_count ? timer_count : 1);
}

static void command(u32 target, u32 value) {
  apic_write(APIC_COMMAND_TARGET, target << 24);
  apic_write(APIC_COMMAND, value);
  while (apic_read(APIC_COMMAND) & COMMAND_PENDING) relax();
}

void send_flush_interrupt(struct cpu *target) { command(target->apic, VECTOR_FLUSH); }

/* Other processors of a PC: INIT, then the page that they begin at (SDM vol. 3A, 9.4.4). */
word secondary_stack;
u32 secondary_number;

void start_pc_cpu(struct cpu *cpu, word stack) {
  copy(virtual(TRAMPOLINE), trampoline_begin, (word)(trampoline_end - trampoline_begin));
  secondary_stack = stack;
  secondary_number = cpu->number;
  PV_CALL_3(apic, startup_ipi_hook, cpu->apic, secondary_high, stack);
  command(cpu->apic, COMMAND_INIT);
  command(cpu->apic, COMMAND_STARTUP | TRAMPOLINE / PAGE_SIZE);
}
