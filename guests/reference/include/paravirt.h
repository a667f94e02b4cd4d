#pragma once
#include "arch-registers.h"
#include "native-instructions.h"
#include "operations.h"
#include "site.h"

/*
 * How the kernel calls operations. With PARAVIRT a site is an indirect call that can be patched. Without, it is what plain
 * hardware has there, recorded in .nativeinstructions so that a test can compare the two.
 *
 * PV_CALL_n has n arguments, each a word; the last of PV_CALL_ENTRY_n is an entry of a page table, which may be wider.
 */
#define PV_OPERANDS(group, op, registers) \
  [type] "i"(PV_TYPE(group, op)), [clobbers] "i"(registers)

#ifdef PARAVIRT

#define PV_SLOT(group, op) [slot] "i"(&pv_##group##_ops.op)

#include "arch-calls.h"

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
#define PV_CALL_ENTRY_4(group, op, a, b, c, entry) native_##op(a, b, c, entry)
#define PV_CALL_ENTRY_2(group, op, a, entry) native_##op(a, entry)
#define PV_CALL_0(group, op) native_##op()
#define PV_INLINE_1(group, op, a) \
  ({ \
    RESULT result; \
    asm volatile(NATIVE_SITE(op) SITE_RECORD(".nativeinstructions") \
                 : IN_RESULT(result) : IN_FIRST((word)(a)), PV_OPERANDS(group, op, CLOBBERS_ANY) : "memory", "cc"); \
    result; \
  })
#define PV_INLINE_0(group, op) \
  ({ \
    RESULT result; \
    asm volatile(NATIVE_SITE(op) SITE_RECORD(".nativeinstructions") \
                 : IN_RESULT(result) : PV_OPERANDS(group, op, CLOBBERS_ANY) : RESULT_CLOBBERS "memory", "cc"); \
    result; \
  })
#endif
