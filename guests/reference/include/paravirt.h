#pragma once
#include "native-instructions.h"
#include "operations.h"
#include "site.h"

/*
 * How the kernel calls operations. With PARAVIRT a site is an indirect call that can be patched. Without, it is what plain
 * hardware has there, recorded in .nativeinstructions so that a test can compare the two.
 */
#define PV_OPERANDS(group, op, registers) \
  [type] "i"(PV_TYPE(group, op)), [clobbers] "i"(registers)

#ifdef PARAVIRT

#define SITE "771:\tcall *%c[slot]\n"
/* Room for more than a call: 10 bytes, as sites of the interrupt flag had when they saved their registers themselves. */
#define SITE_PADDED "771:\tcall *%c[slot]\n\tnopl (%%rax)\n"
#define PV_SLOT(group, op) [slot] "i"(&pv_##group##_ops.op)

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
/* The same, where plain hardware has an instruction. */
#define PV_INLINE_1 PV_CALL_1
#define PV_INLINE_0 PV_CALL_0

#else

#define NATIVE_SITE(op) "771:\t" NATIVE_##op "\n"
#define SITE ""
#define SITE_PADDED ""
#define PV_KEEP(group, op, site, value) \
  asm volatile(NATIVE_SITE(op) SITE_RECORD(".nativeinstructions") \
               : "+a"(value) : PV_OPERANDS(group, op, CLOBBERS_RESULT) : "memory", "cc")
#define PV_CONVERT(op, value) (value)
#define PV_CALL_4(group, op, a, b, c, d) native_##op(a, b, c, d)
#define PV_CALL_3(group, op, a, b, c) native_##op(a, b, c)
#define PV_CALL_2(group, op, a, b) native_##op(a, b)
#define PV_CALL_1(group, op, a) native_##op(a)
#define PV_CALL_0(group, op) native_##op()
#define PV_INLINE_1(group, op, a) \
  ({ \
    u64 result, first = (u64)(a); \
    asm volatile(NATIVE_SITE(op) SITE_RECORD(".nativeinstructions") \
                 : "=a"(result) : "D"(first), PV_OPERANDS(group, op, CLOBBERS_ANY) : "memory", "cc"); \
    result; \
  })
#define PV_INLINE_0(group, op) \
  ({ \
    u64 result; \
    asm volatile(NATIVE_SITE(op) SITE_RECORD(".nativeinstructions") \
                 : "=a"(result) : PV_OPERANDS(group, op, CLOBBERS_ANY) : "rdx", "memory", "cc"); \
    result; \
  })
#endif
