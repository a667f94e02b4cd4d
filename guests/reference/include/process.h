#pragma once
#include "cpu.h"
#include "memory.h"

#define MOST_PROCESSES 24

enum state { STATE_FREE, STATE_READY, STATE_RUNNING, STATE_WAITING, STATE_PARKED };

struct process {
  word stack; /* where it left off; vectors.S */
  enum state state;
  word number, parent, children, waits_for;
  struct memory_descriptor *mm;
  u8 *kernel_stack;
};

extern struct process processes[MOST_PROCESSES];

void schedule(void);
void run_until_all_rest(void);
void start_first_process(word argument);
void end_all_processes(void);
void become_idle(struct cpu *cpu);
void idle(void) NORETURN;
void system_call(struct frame *frame);
void end_process(void) NORETURN;
u64 hash_processes(void);
u32 processes_alive(void);

/* vectors.S */
void switch_stacks(word *save, word load);
void return_to_user(void);
