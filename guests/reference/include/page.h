#pragma once
#include "layout.h"
#include "paravirt.h"
#include "native.h"

/*
 * Page tables, and the only ways to their entries. An entry in memory is an opaque type: it is read by get_pte and its
 * like, and written by an operation, so that a dereference by hand does not compile. PLAIN_ENTRIES takes the accessors
 * away; over plain memory the code is the same (a test builds both).
 */
#define PRESENT 0x001UL
#define WRITABLE 0x002UL
#define USER 0x004UL
#define WRITE_THROUGH 0x008UL
#define CACHE_DISABLE 0x010UL
#define ACCESSED 0x020UL
#define DIRTY 0x040UL
#define FRAME_MASK 0x000ffffffffff000UL
#define TABLE_FLAGS (PRESENT | WRITABLE | USER | ACCESSED | DIRTY)

#define ENTRIES 512

static inline u32 pgd_index(u64 address) { return address >> 39 & 511; }
static inline u32 pud_index(u64 address) { return address >> 30 & 511; }
static inline u32 pmd_index(u64 address) { return address >> 21 & 511; }
static inline u32 pte_index(u64 address) { return address >> 12 & 511; }

static inline u64 physical(const void *address) { return (u64)address - KERNEL_BASE; }
static inline void *virtual(u64 address) { return (void *)(address + KERNEL_BASE); }
static inline u64 page_number(const void *address) { return physical(address) / PAGE_SIZE; }

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

/* A paravirtual kernel records where it reads entries, so that `ring1 audit` can tell those places from others. */
#ifdef PARAVIRT
#define READ_ENTRY(type, pointer) \
  type read; \
  asm volatile("773:\tmovq %1, %0\n\t.pushsection .accessors, \"a\"\n\t.quad 773b\n\t.popsection" \
               : "=r"(read) : "m"(*(const type *)pointer)); \
  return read
#else
#define READ_ENTRY(type, pointer) return *(const type *)pointer
#endif

static inline pte_t get_pte(const pte_entry *pointer) { READ_ENTRY(pte_t, pointer); }
static inline pmd_t get_pmd(const pmd_entry *pointer) { READ_ENTRY(pmd_t, pointer); }
static inline pud_t get_pud(const pud_entry *pointer) { READ_ENTRY(pud_t, pointer); }
static inline pgd_t get_pgd(const pgd_entry *pointer) { READ_ENTRY(pgd_t, pointer); }
static inline pte_entry *pte_at(void *table, u32 index) { return (pte_entry *)((u64 *)table + index); }
static inline pmd_entry *pmd_at(void *table, u32 index) { return (pmd_entry *)((u64 *)table + index); }
static inline pud_entry *pud_at(void *table, u32 index) { return (pud_entry *)((u64 *)table + index); }
static inline pgd_entry *pgd_at(void *table, u32 index) { return (pgd_entry *)((u64 *)table + index); }

#endif

/* Entries as numbers, with the physical addresses that this kernel knows; what is stored may be something else. */
static inline u64 pte_val(pte_t entry) { return PV_CONVERT(pte_val, entry.value); }
static inline u64 pmd_val(pmd_t entry) { return PV_CONVERT(pmd_val, entry.value); }
static inline u64 pud_val(pud_t entry) { return PV_CONVERT(pud_val, entry.value); }
static inline u64 pgd_val(pgd_t entry) { return PV_CONVERT(pgd_val, entry.value); }
static inline pte_t make_pte(u64 value) { return (pte_t){PV_CONVERT(make_pte, value)}; }
static inline pmd_t make_pmd(u64 value) { return (pmd_t){PV_CONVERT(make_pmd, value)}; }
static inline pud_t make_pud(u64 value) { return (pud_t){PV_CONVERT(make_pud, value)}; }
static inline pgd_t make_pgd(u64 value) { return (pgd_t){PV_CONVERT(make_pgd, value)}; }

static inline void set_pte_at(struct memory_descriptor *mm, u64 address, pte_entry *pointer, pte_t entry) {
  PV_CALL_4(mmu, set_pte_at, mm, address, pointer, entry.value);
}
static inline void set_pmd(pmd_entry *pointer, pmd_t entry) { PV_CALL_2(mmu, set_pmd, pointer, entry.value); }
static inline void set_pud(pud_entry *pointer, pud_t entry) { PV_CALL_2(mmu, set_pud, pointer, entry.value); }
static inline void set_pgd(pgd_entry *pointer, pgd_t entry) { PV_CALL_2(mmu, set_pgd, pointer, entry.value); }
static inline void pte_clear(struct memory_descriptor *mm, u64 address, pte_entry *pointer) {
  PV_CALL_3(mmu, pte_clear, mm, address, pointer);
}
static inline pte_t modify_start(struct memory_descriptor *mm, u64 address, pte_entry *pointer) {
  return (pte_t){PV_CALL_3(mmu, ptep_modify_prot_start, mm, address, pointer)};
}
static inline void modify_commit(struct memory_descriptor *mm, u64 address, pte_entry *pointer, pte_t entry) {
  PV_CALL_4(mmu, ptep_modify_prot_commit, mm, address, pointer, entry.value);
}

/*
 * What a processor can change behind the kernel's back is changed in place by one instruction; whoever keeps tables of
 * their own is told behind it.
 */
static inline void pte_update(struct memory_descriptor *mm, u64 address, pte_entry *pointer) {
  PV_CALL_3(mmu, pte_update, mm, address, pointer);
}
static inline pte_t get_and_clear(struct memory_descriptor *mm, u64 address, pte_entry *pointer) {
  u64 old = 0;
  asm volatile("xchgq %0, %1" : "+r"(old), "+m"(*(u64 *)pointer) : : "memory");
  pte_update(mm, address, pointer);
  return (pte_t){old};
}
static inline void set_write_protected(struct memory_descriptor *mm, u64 address, pte_entry *pointer) {
  asm volatile("lock andb %1, %0" : "+m"(*(u8 *)pointer) : "i"((u8)~WRITABLE) : "memory", "cc");
  pte_update(mm, address, pointer);
}
static inline u32 test_and_clear_young(struct memory_descriptor *mm, u64 address, pte_entry *pointer) {
  u8 was_set;
  asm volatile("lock btrq $5, %0\n\tsetc %1" : "+m"(*(u64 *)pointer), "=q"(was_set) : : "memory", "cc");
  if (was_set) pte_update(mm, address, pointer);
  return was_set;
}
