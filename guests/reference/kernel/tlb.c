#include "console.h"
#include "memory.h"
#include "process.h"

/* Translations that must go when an entry has changed, and the sections in which changes may be put off. */
#define EVERYTHING (~(word)0)

static word others_of(struct memory_descriptor *mm) { return mm->cpus & ~((word)1 << this_cpu()->number); }

static u32 is_loaded(struct memory_descriptor *mm) { return mm->cpus >> this_cpu()->number & 1; }

/* The word `noflush`: a guest that is wrong on purpose, whose contract a check finds broken. */
static u32 is_flush_forgotten = 2;

static u32 flush_forgotten(void) {
  if (is_flush_forgotten == 2) is_flush_forgotten = has_word("noflush");
  return is_flush_forgotten;
}

void flush_page(struct memory_descriptor *mm, word address) {
  if (flush_forgotten()) return;
  if (is_loaded(mm)) PV_INLINE_1(mmu, flush_tlb_single, address);
  if (others_of(mm)) PV_CALL_3(mmu, flush_tlb_others, others_of(mm), mm, address);
}

void flush_space(struct memory_descriptor *mm) {
  if (flush_forgotten()) return;
  if (is_loaded(mm)) PV_CALL_0(mmu, flush_tlb_user);
  if (others_of(mm)) PV_CALL_3(mmu, flush_tlb_others, others_of(mm), mm, EVERYTHING);
}

/* Asked for by another processor. */
void answer_flush(void) {
  struct cpu *cpu = this_cpu();
  if (!cpu->flush_requested) return;
  PV_CALL_0(mmu, flush_tlb_user);
  cpu->flush_requested = 0;
}

/* NULL stands for the kernel alone. */
void switch_space(struct memory_descriptor *from, struct memory_descriptor *to) {
  word bit = (word)1 << this_cpu()->number;
  if (from == to) return;
  if (to) __sync_fetch_and_or(&to->cpus, bit);
  PV_INLINE_1(mmu, write_cr3, physical(to ? to->pgd : swapper_pg_dir));
  if (from) __sync_fetch_and_and(&from->cpus, ~bit);
}

static u32 is_lazy_forbidden = 2;

static u32 lazy_forbidden(void) {
  if (is_lazy_forbidden == 2) is_lazy_forbidden = has_word("nolazy");
  return is_lazy_forbidden;
}

void enter_lazy(enum lazy_mode mode) {
  if (lazy_forbidden()) return;
  if (this_cpu()->lazy_mode != LAZY_NONE) panic("a lazy section inside another");
  this_cpu()->lazy_mode = mode;
  PV_CALL_1(misc, set_lazy_mode, mode);
}

void leave_lazy(void) {
  if (lazy_forbidden()) return;
  PV_CALL_1(misc, set_lazy_mode, LAZY_NONE);
  this_cpu()->lazy_mode = LAZY_NONE;
}
