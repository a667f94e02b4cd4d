#pragma once
#include "types.h"

/* The clock that Xen and KVM keep in memory for each processor. */
u64 pvclock_read(const void *area);
u64 pvclock_khz(const void *area);
