#pragma once
#include "layout.h"
#include "paravirt.h"
#include "native.h"

/*
 * Page tables, and the only ways to their entries. An entry in memory is an opaque type: it is read by get_pte and its
 * like, and written by an operation, so that a dereference by hand does not compile. PLAIN_ENTRIES takes the accessors
 * away; over plain memory the code is the same (a test builds both).
 */
#define PRESENT ((entry_bits)0x001)
#define WRITABLE ((entry_bits)0x002)
#define USER ((entry_bits)0x004)
#define WRITE_THROUGH ((entry_bits)0x008)
#define CACHE_DISABLE ((entry_bits)0x010)
#define ACCESSED ((entry_bits)0x020)
#define DIRTY ((entry_bits)0x040)
#define FRAME_MASK ((entry_bits)0x000ffffffffff000)
#define TABLE_FLAGS (PRESENT | WRITABLE | USER | ACCESSED | DIRTY)
/* PAE's top table has no other flags, and processors read it when they load CR3 (SDM vol. 3A, 4.4.1). */
#if LEVELS == 3
#define TOP_TABLE_FLAGS PRESENT
#define TOP_TABLE_IS_CACHED 1
#else
#define TOP_TABLE_FLAGS TABLE_FLAGS
#define TOP_TABLE_IS_CACHED 0
#endif

#define ENTRIES (PAGE_SIZE / sizeof(entry_bits))
#define ENTRY_SHIFT (sizeof(entry_bits) == 8 ? 9 : 10)

static inline u32 pte_index(word address) { return address / PAGE_SIZE % ENTRIES; }

static inline word physical(const void *address) { return (word)address - KERNEL_BASE; }
static inline void *virtual(word address) { return (void *)(address + KERNEL_BASE); }
static inline word page_number(const void *address) { return physical(address) / PAGE_SIZE; }

#ifdef PLAIN_ENTRIES

struct pte_entry { pte_t entry; };
struct pmd_entry { pmd_t entry; };
struct pud_entry { pud_t entry; };
struct pgd_entry { pgd_t entry; };
#define get_pte(pointer) ((pointer)->entry)
#define get_pmd(pointer) ((pointer)->entry)
#define get_pud(pointer) ((pointer)->entry)
#define get_pgd(pointer) ((pointer)->entry)
#define pte_at(table, index) (&((pte_entry *)(table))[index])
#define pmd_at(table, index) (&((pmd_entry *)(table))[index])
#define pud_at(table, index) (&((pud_entry *)(table))[index])
#define pgd_at(table, index) (&((pgd_entry *)(table))[index])

#else

/*
 * A paravirtual kernel records where it reads entries, so that `ring1 audit` can tell those places from others. Where reading
 * is an operation, these are the loads of a patched site, and the last byte of a call: directly, or through the table.
 */
#ifdef PARAVIRT
#if READS_BY_OPERATION
#define READ_ENTRY(type, op, pointer) return (type){PV_READ(op, pointer)}
#else
#define READ_WORD(into, from) \
  asm volatile("773:\tmov %1, %0\n\t.pushsection .accessors, \"a\"\n\t" STRING(WORD_DATA) " 773b\n\t.popsection" \
               : "=r"(into) : "m"(from))
#define READ_ENTRY(type, op, pointer) \
  word read; \
  READ_WORD(read, *(const word *)pointer); \
  return (type){read}
#endif
#else
#define READ_ENTRY(type, op, pointer) return *(const type *)pointer
#endif

static inline pte_t get_pte(const pte_entry *pointer) { READ_ENTRY(pte_t, get_pte, pointer); }
static inline pgd_t get_pgd(const pgd_entry *pointer) { READ_ENTRY(pgd_t, get_pgd, pointer); }
#if LEVELS >= 3
static inline pmd_t get_pmd(const pmd_entry *pointer) { READ_ENTRY(pmd_t, get_pmd, pointer); }
#endif
#if LEVELS >= 4
static inline pud_t get_pud(const pud_entry *pointer) { READ_ENTRY(pud_t, get_pud, pointer); }
#endif
static inline pte_entry *pte_at(void *table, u32 index) { return (pte_entry *)((entry_bits *)table + index); }
static inline pmd_entry *pmd_at(void *table, u32 index) { return (pmd_entry *)((entry_bits *)table + index); }
static inline pud_entry *pud_at(void *table, u32 index) { return (pud_entry *)((entry_bits *)table + index); }
static inline pgd_entry *pgd_at(void *table, u32 index) { return (pgd_entry *)((entry_bits *)table + index); }

#endif

/* Entries as numbers, with the physical addresses that this kernel knows; what is stored may be something else. */
static inline entry_bits pte_val(pte_t entry) { return PV_CONVERT(pte_val, entry.value); }
static inline entry_bits pgd_val(pgd_t entry) { return PV_CONVERT(pgd_val, entry.value); }
static inline pte_t make_pte(entry_bits value) { return (pte_t){PV_CONVERT(make_pte, value)}; }
static inline pgd_t make_pgd(entry_bits value) { return (pgd_t){PV_CONVERT(make_pgd, value)}; }

static inline void set_pte_at(struct memory_descriptor *mm, word address, pte_entry *pointer, pte_t entry) {
  PV_CALL_ENTRY_4(mmu, set_pte_at, mm, address, pointer, entry.value);
}
static inline void set_pgd(pgd_entry *pointer, pgd_t entry) { PV_CALL_ENTRY_2(mmu, set_pgd, pointer, entry.value); }
#if LEVELS >= 3
static inline entry_bits pmd_val(pmd_t entry) { return PV_CONVERT(pmd_val, entry.value); }
static inline pmd_t make_pmd(entry_bits value) { return (pmd_t){PV_CONVERT(make_pmd, value)}; }
static inline void set_pmd(pmd_entry *pointer, pmd_t entry) { PV_CALL_ENTRY_2(mmu, set_pmd, pointer, entry.value); }
#endif
#if LEVELS >= 4
static inline entry_bits pud_val(pud_t entry) { return PV_CONVERT(pud_val, entry.value); }
static inline pud_t make_pud(entry_bits value) { return (pud_t){PV_CONVERT(make_pud, value)}; }
static inline void set_pud(pud_entry *pointer, pud_t entry) { PV_CALL_ENTRY_2(mmu, set_pud, pointer, entry.value); }
#endif
static inline void pte_clear(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  PV_CALL_3(mmu, pte_clear, mm, address, pointer);
}
static inline pte_t modify_start(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  return (pte_t){(entry_bits)PV_CALL_3(mmu, ptep_modify_prot_start, mm, address, pointer)};
}
static inline void modify_commit(struct memory_descriptor *mm, word address, pte_entry *pointer, pte_t entry) {
  PV_CALL_ENTRY_4(mmu, ptep_modify_prot_commit, mm, address, pointer, entry.value);
}

/*
 * What a processor can change behind the kernel's back is changed in place by one instruction; whoever keeps tables of
 * their own is told behind it.
 */
static inline void pte_update(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  PV_CALL_3(mmu, pte_update, mm, address, pointer);
}
static inline word exchange(word *at, word value) {
  asm volatile("xchg %0, %1" : "+r"(value), "+m"(*at) : : "memory");
  return value;
}
static inline pte_t get_and_clear(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  entry_bits entry = exchange((word *)pointer, 0);
#if LEVELS == 3
  /* Nobody walks what is not present, and no processor changes the upper half. */
  entry |= (u64)exchange((word *)pointer + 1, 0) << 32;
#endif
  pte_update(mm, address, pointer);
  return (pte_t){entry};
}
static inline void set_write_protected(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  asm volatile("lock andb %1, %0" : "+m"(*(u8 *)pointer) : "i"((u8)~WRITABLE) : "memory", "cc");
  pte_update(mm, address, pointer);
}
static inline u32 test_and_clear_young(struct memory_descriptor *mm, word address, pte_entry *pointer) {
  u8 was_set;
  asm volatile("lock btrl $5, %0\n\tsetc %1" : "+m"(*(u32 *)pointer), "=q"(was_set) : : "memory", "cc");
  if (was_set) pte_update(mm, address, pointer);
  return was_set;
}
