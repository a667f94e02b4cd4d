#pragma once

/*
 * Call sites of operations that can be patched: see paravirt.h. Arguments are in eax, edx, ecx and on the stack, as the
 * compiler has them with -mregparm=3.
 */
#define SITE "771:\tcall *%c[slot]\n"
/* Room for more than a call: 10 bytes, as sites of the interrupt flag had when they saved their registers themselves. */
#define SITE_PADDED "771:\tcall *%c[slot]\n\t.byte 0x0f, 0x1f, 0x40, 0\n"

/* Argument and result in eax. */
#define PV_KEEP(group, op, site, value) \
  asm volatile(site SITE_RECORD(".parainstructions") \
               : "+a"(value) : PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_RESULT) : "memory", "cc")

/* A conversion: nothing but its argument matters. */
#if LEVELS == 3
#define IN_ENTRY(value) "+A"(value)
#else
#define IN_ENTRY(value) "+a"(value)
#endif
#define PV_CONVERT(op, value) \
  ({ \
    entry_bits converted = (value); \
    asm(SITE SITE_RECORD(".parainstructions") \
        : IN_ENTRY(converted) : PV_SLOT(mmu, op), PV_OPERANDS(mmu, op, CLOBBERS_RESULT) : "cc"); \
    converted; \
  })

/* Reads an entry of a page table. */
#define READ_RECORD \
  "\n\t.pushsection .accessors, \"a\"\n\t.long 771b, 771b + 3, 771b + 4, 772b - 1\n\t.popsection"
#define PV_READ(op, pointer) \
  ({ \
    entry_bits read; \
    asm volatile(SITE SITE_RECORD(".parainstructions") READ_RECORD \
                 : "=A"(read) \
                 : "a"((word)(pointer)), PV_SLOT(mmu, op), PV_OPERANDS(mmu, op, CLOBBERS_ANY) \
                 : "ecx", "memory", "cc"); \
    read; \
  })

#define PV_CALL_4(group, op, a, b, c, d) \
  ({ \
    u64 result; \
    word third = (word)(c); \
    asm volatile("pushl %[fourth]\n\t" SITE SITE_RECORD(".parainstructions") "\n\taddl $4, %%esp" \
                 : "=A"(result), "+c"(third) \
                 : "a"((word)(a)), "d"((word)(b)), [fourth] "ri"((word)(d)), \
                   PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_ANY) \
                 : "memory", "cc"); \
    result; \
  })
#define PV_CALL_3(group, op, a, b, c) \
  ({ \
    u64 result; \
    word third = (word)(c); \
    asm volatile(SITE SITE_RECORD(".parainstructions") \
                 : "=A"(result), "+c"(third) \
                 : "a"((word)(a)), "d"((word)(b)), PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_ANY) \
                 : "memory", "cc"); \
    result; \
  })
#define PV_CALL_2(group, op, a, b) \
  ({ \
    u64 result; \
    asm volatile(SITE SITE_RECORD(".parainstructions") \
                 : "=A"(result) \
                 : "a"((word)(a)), "d"((word)(b)), PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_ANY) \
                 : "ecx", "memory", "cc"); \
    result; \
  })
#define PV_CALL_1(group, op, first) \
  ({ \
    u64 result; \
    asm volatile(SITE SITE_RECORD(".parainstructions") \
                 : "=A"(result) \
                 : "a"((word)(first)), PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_ANY) \
                 : "ecx", "memory", "cc"); \
    result; \
  })
#define PV_CALL_0(group, op) \
  ({ \
    u64 result; \
    asm volatile(SITE SITE_RECORD(".parainstructions") \
                 : "=A"(result) \
                 : PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_ANY) \
                 : "ecx", "memory", "cc"); \
    result; \
  })

#if LEVELS == 3
#define PV_CALL_ENTRY_4(group, op, a, b, c, entry) \
  ({ \
    u64 result, fourth = (entry); \
    word third = (word)(c); \
    asm volatile("pushl %[high]\n\tpushl %[low]\n\t" SITE SITE_RECORD(".parainstructions") "\n\taddl $8, %%esp" \
                 : "=A"(result), "+c"(third) \
                 : "a"((word)(a)), "d"((word)(b)), [low] "ri"((u32)fourth), [high] "ri"((u32)(fourth >> 32)), \
                   PV_SLOT(group, op), PV_OPERANDS(group, op, CLOBBERS_ANY) \
                 : "memory", "cc"); \
    result; \
  })
#define PV_CALL_ENTRY_2(group, op, a, entry) \
  ({ \
    u64 second = (entry); \
    PV_CALL_3(group, op, a, (u32)second, (u32)(second >> 32)); \
  })
#else
#define PV_CALL_ENTRY_4 PV_CALL_4
#define PV_CALL_ENTRY_2 PV_CALL_2
#endif
