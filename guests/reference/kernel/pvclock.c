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

/* The version is odd while the host writes, and another when it has written meanwhile. */
u64 pvclock_read(const void *area) {
  const struct pvclock *clock = area;
  for (;;) {
    u32 version = clock->version;
    asm volatile("" ::: "memory");
    u64 delta = PV_INLINE_0(cpu, read_tsc) - clock->counter;
    delta = clock->shift < 0 ? delta >> -clock->shift : delta << clock->shift;
    u64 now = clock->nanoseconds + (u64)((unsigned __int128)delta * clock->multiplier >> 32);
    asm volatile("" ::: "memory");
    if (!(version & 1) && version == clock->version) return now;
  }
}

u64 pvclock_khz(const void *area) {
  const struct pvclock *clock = area;
  u64 khz = (1000000UL << 32) / clock->multiplier;
  return clock->shift < 0 ? khz << -clock->shift : khz >> clock->shift;
}
