#include "lguest.h"
#include "paravirt-tables.h"

/* Hypercalls: the number and up to four arguments. None has a result. Some may wait in a ring until another is made. */
void lguest_call(u32 call, u32 first, u32 second, u32 third, u32 fourth) {
  asm volatile("int %5" : : "a"(call), "b"(first), "c"(second), "d"(third), "S"(fourth), "i"(LGUEST_VECTOR) : "memory");
}

static u32 next_slot, waiting;

void lguest_call_lazily(u32 call, u32 first, u32 second, u32 third, u32 fourth) {
  u32 slot = next_slot;
  if (this_cpu()->lazy_mode == LAZY_NONE || lguest_data.slot_states[slot] != LGUEST_SLOT_FREE)
    return lguest_call(call, first, second, third, fourth);
  lguest_data.slots[slot].call = call;
  lguest_data.slots[slot].arguments[0] = first;
  lguest_data.slots[slot].arguments[1] = second;
  lguest_data.slots[slot].arguments[2] = third;
  lguest_data.slots[slot].arguments[3] = fourth;
  /* The host may look at any time from here on. */
  asm volatile("" ::: "memory");
  lguest_data.slot_states[slot] = 0;
  next_slot = (slot + 1) % LGUEST_SLOTS;
  waiting++;
}

void lguest_set_lazy_mode(u32 mode) {
  if (mode != LAZY_NONE || waiting == 0) return;
  if (this_cpu()->lazy_mode == LAZY_MMU) {
    lazy_batches++;
    lazy_updates += waiting;
  }
  waiting = 0;
  lguest_call(LGUEST_FLUSH_ASYNC, 0, 0, 0, 0);
}
