#pragma once

/* Call sites of operations that can be patched: see paravirt.h. */
#define SITE "771:\tcall *%c[slot]\n"
/* Room for more than a call: 10 bytes, as sites of the interrupt flag had when they saved their registers themselves. */
#define SITE_PADDED "771:\tcall *%c[slot]\n\tnopl (%%rax)\n"

/* Argument and result in rax. */
#define PV_KEEP(group, op, site, value) \
  asm volatile(site SITE_RECORD(".parainstructions") \
               : "+a"(value) : PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_RESULT) : "memory", "cc")

/* A conversion: nothing but its argument matters. */
#define PV_CONVERT(op, value) \
  ({ \
    u64 converted = (value); \
    asm(SITE SITE_RECORD(".parainstructions") \
        : "+a"(converted) : PV_SLOT(mmu, op), PV_OPERANDS(mmu, op, CLOBBERS_RESULT) : "cc"); \
    converted; \
  })

#define PV_SCRATCH "r8", "r9", "r10", "r11", "memory", "cc"
#define PV_CALL_4(group, op, a, b, c, d) \
  ({ \
    u64 result, first = (u64)(a), second = (u64)(b), third = (u64)(c), fourth = (u64)(d); \
    asm volatile(SITE SITE_RECORD(".parainstructions") \
                 : "=a"(result), "+D"(first), "+S"(second), "+d"(third), "+c"(fourth) \
                 : PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_ANY) \
                 : PV_SCRATCH); \
    result; \
  })
#define PV_CALL_3(group, op, a, b, c) \
  ({ \
    u64 result, first = (u64)(a), second = (u64)(b), third = (u64)(c); \
    asm volatile(SITE SITE_RECORD(".parainstructions") \
                 : "=a"(result), "+D"(first), "+S"(second), "+d"(third) \
                 : PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_ANY) \
                 : "rcx", PV_SCRATCH); \
    result; \
  })
#define PV_CALL_2(group, op, a, b) \
  ({ \
    u64 result, first = (u64)(a), second = (u64)(b); \
    asm volatile(SITE SITE_RECORD(".parainstructions") \
                 : "=a"(result), "+D"(first), "+S"(second) \
                 : PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_ANY) \
                 : "rdx", "rcx", PV_SCRATCH); \
    result; \
  })
#define PV_CALL_1(group, op, a) \
  ({ \
    u64 result, first = (u64)(a); \
    asm volatile(SITE SITE_RECORD(".parainstructions") \
                 : "=a"(result), "+D"(first) \
                 : PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_ANY) \
                 : "rsi", "rdx", "rcx", PV_SCRATCH); \
    result; \
  })
#define PV_CALL_0(group, op) \
  ({ \
    u64 result; \
    asm volatile(SITE SITE_RECORD(".parainstructions") \
                 : "=a"(result) \
                 : PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_ANY) \
                 : "rdi", "rsi", "rdx", "rcx", PV_SCRATCH); \
    result; \
  })
#define PV_CALL_ENTRY_4 PV_CALL_4
#define PV_CALL_ENTRY_2 PV_CALL_2
