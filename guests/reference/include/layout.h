#pragma once
#include "arch-layout.h"

/* Where things are, for C, assembly and the linker script alike; arch-layout.h has what differs between images. */
#define KERNEL_PHYSICAL 0x100000
#define USER_BASE 0x400000
#define USER_MAPPINGS 0x10000000
#define USER_STACK_TOP 0x7fff0000
#define USER_STACK_PAGES 4

/* Where a secondary processor of a PC begins, in real mode. */
#define TRAMPOLINE 0x8000

#define PAGE_SIZE 4096
#define KERNEL_STACK_SIZE 8192
#define MOST_CPUS 8

#define VECTOR_PAGE_FAULT 14
#define VECTOR_TIMER 0x20
#define VECTOR_FLUSH 0x21
#define VECTOR_XEN_EVENT 0x22
#define VECTOR_SYSTEM_CALL 0x80

/* In struct cpu, for assembly. */
#define CPU_XEN_INFO 64
