#pragma once
#include "types.h"

/* Calls that no sound kernel makes: `hostile=SEED` on the command line instead of any work. */
u64 hostile_seed(void);
u64 hostile_random(u64 below);
u64 hostile_number(void);
void xen_be_hostile(void);
void kvm_be_hostile(void);
/* Bytes to go on behind, when an exception at an instruction was expected; else 0. */
u32 recover(word ip);
