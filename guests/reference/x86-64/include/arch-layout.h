#pragma once

/*
 *   0000000000400000  a program: image, then what it maps; its stack ends below 2 GiB
 *   ffffffff80000000  physical page 0 and on: the kernel and all pages that it gives out are part of its image
 *   ffffffffc0000000  native only: pages of devices
 */
#define IMAGE_NAME "x86-64"
#define LEVELS 4
#define KERNEL_BASE 0xffffffff80000000
#define DEVICE_BASE 0xffffffffc0000000
/* In the highest table. */
#define KERNEL_SLOT 511
#define KERNEL_SLOTS 1
#define USER_SLOTS 256

/* Selectors. */
#define KERNEL_CODE 0x10
#define KERNEL_DATA 0x18
#define USER_DATA 0x2b
#define USER_CODE 0x33
#define TASK 0x40
#define GDT_ENTRIES 16

/* Below KERNEL_BASE, in a page table of the highest level that only Xen's notes name: see xen_notes in entry.S. */
#define XEN_FRAME_LIST 0x8000000000
#define XEN_MACHINE_TO_PHYSICAL 0xffff800000000000

#ifndef __ASSEMBLER__
_Static_assert(XEN_FRAME_LIST % (1UL << 39) == 0, "the frame list has an entry of the highest table for itself");
#endif
