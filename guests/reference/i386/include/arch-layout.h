#pragma once

/*
 *   00400000  a program: image, then what it maps; its stack ends below 2 GiB
 *   c0000000  physical page 0 and on: the kernel and all pages that it gives out are part of its image
 *   f0000000  pages of devices; what is behind them is left to hypervisors
 */
#define KERNEL_BASE 0xc0000000
#define DEVICE_BASE 0xf0000000
/* Slots of the highest table. */
#ifdef PAE
#define IMAGE_NAME "i386 PAE"
#define LEVELS 3
#define KERNEL_SLOT 3
#define KERNEL_SLOTS 1
#define USER_SLOTS 2
#else
#define IMAGE_NAME "i386"
#define LEVELS 2
#define KERNEL_SLOT 768
#define KERNEL_SLOTS 256
#define USER_SLOTS 512
#endif

/* Its base is the processor's struct cpu. */
#define CPU_DATA 0x48
