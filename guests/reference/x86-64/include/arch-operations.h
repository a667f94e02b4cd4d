#pragma once

/* Operations that only 64-bit kernels need. */
#define ARCH_IRQ_OPS(X) X(void, adjust_exception_frame, (void))
#define ARCH_CPU_OPS(X) X(void, swapgs, (void))
#define ARCH_SITES_IN_ASSEMBLY(X) X(irq, adjust_exception_frame) X(cpu, swapgs)

/* What they are on plain hardware. */
#define ARCH_IRQ_NATIVE .adjust_exception_frame = NATIVE(adjust_exception_frame),
#define ARCH_CPU_NATIVE .swapgs = NATIVE(swapgs),
