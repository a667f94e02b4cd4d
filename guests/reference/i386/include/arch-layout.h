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
#define XEN_MACHINE_TO_PHYSICAL 0xf5800000
#else
#define IMAGE_NAME "i386"
#define LEVELS 2
#define KERNEL_SLOT 768
#define KERNEL_SLOTS 256
#define USER_SLOTS 512
#endif

/* Selectors. Hosts that run the kernel in another ring than 0 know those of the kernel, as Linux has them. */
#define KERNEL_CODE 0x60
#define KERNEL_DATA 0x68
#define USER_CODE 0x73
#define USER_DATA 0x7b
#define TASK 0x80
/* Its base is the processor's struct cpu. */
#define CPU_DATA 0xd8
#define GDT_ENTRIES 32
