#include "pvclock.h"
#include "cpu.h"

struct pvclock {
  volatile u32 version;
  u32 unused;
  u64 counter, nanoseconds;
  u32 multiplier;
  signed char shift;
  u8 flags, unused2[2];
};

/* Of the product, all but the lowest 32 bits. */
static u64 multiply_high(u64 value, u32 multiplier) {
  return (value >> 32) * multiplier + ((value & 0xffffffff) * multiplier >> 32);
}

/* The version is odd while the host writes, and another when it has written meanwhile. */
u64 pvclock_read(const void *area) {
  const struct pvclock *clock = area;
  for (;;) {
    u32 version = clock->version;
    asm volatile("" ::: "memory");
    u64 delta = PV_INLINE_0(cpu, read_tsc) - clock->counter;
    delta = clock->shift < 0 ? delta >> -clock->shift : delta << clock->shift;
    u64 now = clock->nanoseconds + multiply_high(delta, clock->multiplier);
    asm volatile("" ::: "memory");
    if (!(version & 1) && version == clock->version) return now;
  }
}

u64 pvclock_khz(const void *area) {
  const struct pvclock *clock = area;
  u64 khz = ((u64)1000000 << 32) / clock->multiplier;
  return clock->shift < 0 ? khz << -clock->shift : khz >> clock->shift;
}
