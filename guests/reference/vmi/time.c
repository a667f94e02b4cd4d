#include "choices.h"
#include "native.h"
#include "paravirt-tables.h"
#include "vmi.h"

/* Time: cycles that the ROM counts, and an alarm at the local interrupt controller's timer. */
#define APIC_TIMER 0x320
#define TICKS_PER_SECOND 100
#define NANOSECONDS 1000000000

static u64 (*get_frequency)(void);
static u64 (*get_cycles)(u32 counter);
static void (*set_alarm)(u32 flags, u64 expiry, u64 period);

static u64 vmi_get_cpu_khz(void) { return get_frequency() / 1000; }

/* Cycles that this guest had. */
static u64 vmi_sched_clock(void) {
  u64 frequency = get_frequency(), cycles = get_cycles(CYCLES_AVAILABLE);
  return cycles / frequency * NANOSECONDS + cycles % frequency * NANOSECONDS / frequency;
}

static void vmi_setup_clock(void) {
  u64 period = get_frequency() / TICKS_PER_SECOND;
  PV_CALL_2(apic, apic_write, APIC_TIMER, VECTOR_TIMER);
  set_alarm(ALARM_LOCAL_TIMER | ALARM_PERIODIC | CYCLES_AVAILABLE, get_cycles(CYCLES_AVAILABLE) + period, period);
}

CHOICES(vmi_time) = {
  CHOICE_IF(ON_VMI, time, get_cpu_khz, vmi_get_cpu_khz, VMI_GET_CYCLE_FREQUENCY),
  CHOICE_IF(ON_VMI, time, sched_clock, vmi_sched_clock, VMI_GET_CYCLE_COUNTER),
  CHOICE_IF(ON_VMI, apic, setup_boot_clock, vmi_setup_clock, VMI_SET_ALARM),
  CHOICE_IF(ON_VMI, apic, setup_secondary_clock, vmi_setup_clock, VMI_SET_ALARM),
};

void vmi_begin_time(void) {
  get_frequency = vmi_code(VMI_GET_CYCLE_FREQUENCY);
  get_cycles = vmi_code(VMI_GET_CYCLE_COUNTER);
  set_alarm = vmi_code(VMI_SET_ALARM);
}
