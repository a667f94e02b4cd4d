#pragma once

/* There are none that only 32-bit kernels need. */
#define ARCH_IRQ_OPS(X)
#define ARCH_CPU_OPS(X)
#define ARCH_SITES_IN_ASSEMBLY(X)
#define ARCH_IRQ_NATIVE
#define ARCH_CPU_NATIVE
