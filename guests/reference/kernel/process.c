#include "process.h"
#include "console.h"
#include "start.h"

/* Processes, and which of them runs. The kernel's lock protects all of it. */
struct process processes[MOST_PROCESSES];
static struct process idle_processes[MOST_CPUS];
static u8 kernel_stacks[MOST_PROCESSES][KERNEL_STACK_SIZE] ALIGNED(16);

static word stack_top(struct process *process) { return (word)process->kernel_stack + KERNEL_STACK_SIZE; }

static struct process *create_process(word number, word parent) {
  for (u32 index = 0; index < MOST_PROCESSES; index++) {
    struct process *process = &processes[index];
    if (process->state != STATE_FREE) continue;
    *process = (struct process){.number = number, .parent = parent, .kernel_stack = kernel_stacks[index]};
    return process;
  }
  panic("no process is free");
}

/* The frame by which it will leave the kernel, below it the registers that switch_stacks takes. */
static struct frame *prepare_stack(struct process *process) {
  struct frame *frame = (struct frame *)stack_top(process) - 1;
  word *saved = (word *)frame;
  *--saved = (word)return_to_user;
  for (u32 count = 0; count < SAVED_REGISTERS; count++) *--saved = 0;
  process->stack = (word)saved;
  return frame;
}

#define INTERRUPTS_ON 0x202

static struct frame program_frame(word argument) {
  return (struct frame){
    .ip = USER_BASE, .cs = USER_CODE, .ss = USER_DATA, .flags = INTERRUPTS_ON, .sp = USER_STACK_TOP, .ARGUMENT = argument};
}

void start_first_process(word argument) {
  struct process *process = create_process(1, 0);
  process->mm = create_space();
  map_program(process->mm);
  PV_CALL_2(mmu, activate_mm, NULL, process->mm);
  *prepare_stack(process) = program_frame(argument);
  process->state = STATE_READY;
}

/* Numbers do not depend on who runs when: the n-th child of p is 4p + n. */
static word fork(struct frame *frame) {
  struct process *parent = this_cpu()->current;
  struct process *child = create_process(parent->number * 4 + ++parent->children, parent->number);
  child->mm = fork_space(parent->mm);
  struct frame *copied = prepare_stack(child);
  *copied = *frame;
  copied->ax = 0;
  child->state = STATE_READY;
  return child->number;
}

static void exec(struct frame *frame, word argument) {
  struct process *process = this_cpu()->current;
  struct memory_descriptor *old = process->mm, *mm = create_space();
  map_program(mm);
  PV_CALL_2(mmu, activate_mm, old, mm);
  process->mm = mm;
  switch_space(old, mm);
  destroy_space(old);
  word vector = frame->vector;
  *frame = program_frame(argument);
  frame->vector = vector;
}

static struct process *next_process(void) {
  static u32 last;
  for (u32 tried = 0; tried < MOST_PROCESSES; tried++) {
    last = (last + 1) % MOST_PROCESSES;
    if (processes[last].state == STATE_READY) return &processes[last];
  }
  return NULL;
}

/* Goes on with another process that is ready, or with this one if it still is, or with nothing. */
void schedule(void) {
  struct cpu *cpu = this_cpu();
  struct process *old = cpu->current;
  if (old->state == STATE_RUNNING) old->state = STATE_READY;
  struct process *next = next_process();
  if (!next) next = &idle_processes[cpu->number];
  next->state = next->mm ? STATE_RUNNING : STATE_WAITING;
  if (next == old) return;
  cpu->current = next;
  enter_lazy(LAZY_CPU);
  if (next->mm) PV_CALL_1(cpu, load_sp0, stack_top(next));
  switch_space(old->mm, next->mm);
  leave_lazy();
  switch_stacks(&old->stack, next->stack);
}

void become_idle(struct cpu *cpu) { cpu->current = &idle_processes[cpu->number]; }

static void idle_once(void) {
  lock_kernel();
  schedule();
  unlock_kernel();
  answer_stop();
  PV_INLINE_0(irq, safe_halt);
  disable_interrupts();
}

void idle(void) {
  disable_interrupts();
  for (;;) idle_once();
}

static u32 is_at_rest(struct process *process) {
  return process->state == STATE_FREE || process->state == STATE_PARKED;
}

void run_until_all_rest(void) {
  for (;;) {
    lock_kernel();
    u32 resting = 0;
    for (u32 index = 0; index < MOST_PROCESSES; index++) resting += is_at_rest(&processes[index]);
    unlock_kernel();
    if (resting == MOST_PROCESSES) return;
    idle_once();
  }
}

/* Wakes a parent that waits for a process. */
static void tell_parent(struct process *process) {
  for (u32 index = 0; index < MOST_PROCESSES; index++) {
    struct process *parent = &processes[index];
    if (parent->state == STATE_WAITING && parent->waits_for == process->number) parent->state = STATE_READY;
  }
}

static void rest(enum state state) {
  struct process *process = this_cpu()->current;
  process->state = state;
  tell_parent(process);
  schedule();
}

void end_process(void) {
  struct process *process = this_cpu()->current;
  struct memory_descriptor *mm = process->mm;
  process->mm = NULL;
  switch_space(mm, NULL);
  destroy_space(mm);
  rest(STATE_FREE);
  panic("an ended process goes on");
}

static void wait_for(word number) {
  struct process *self = this_cpu()->current;
  for (u32 index = 0; index < MOST_PROCESSES; index++) {
    if (processes[index].number != number || is_at_rest(&processes[index])) continue;
    self->waits_for = number;
    self->state = STATE_WAITING;
    schedule();
    return;
  }
}

/* What programs ask for, by number; the arguments are in DI, SI and DX. */
enum { CALL_EXIT, CALL_FORK, CALL_EXEC, CALL_MAP, CALL_UNMAP, CALL_PROTECT, CALL_MOVE, CALL_WAIT, CALL_PARK, CALL_SWAP, CALL_YIELD };

void system_call(struct frame *frame) {
  struct process *process = this_cpu()->current;
  struct memory_descriptor *mm = process->mm;
  word result = 0;
  switch (frame->ax) {
    case CALL_EXIT:
      end_process();
    case CALL_FORK:
      result = fork(frame);
      break;
    case CALL_EXEC:
      return exec(frame, frame->di);
    case CALL_MAP:
      result = map_area(mm, 0, frame->di, 1);
      break;
    case CALL_UNMAP:
      unmap_range(mm, frame->di, frame->di + frame->si);
      break;
    case CALL_PROTECT:
      protect_range(mm, frame->di, frame->di + frame->si, frame->dx != 0);
      break;
    case CALL_MOVE:
      result = move_area(mm, frame->di, frame->si, frame->dx);
      break;
    case CALL_WAIT:
      wait_for(frame->di);
      break;
    case CALL_PARK:
      rest(STATE_PARKED);
      break;
    case CALL_SWAP:
      swap_out((u32)frame->di);
      break;
    case CALL_YIELD:
      schedule();
      break;
  }
  frame->ax = result;
}

u32 processes_alive(void) {
  u32 count = 0;
  for (u32 index = 0; index < MOST_PROCESSES; index++) count += processes[index].state != STATE_FREE;
  return count;
}

/* In the order of their numbers. */
u64 hash_processes(void) {
  u64 hash = 0;
  word last = 0;
  for (;;) {
    struct process *next = NULL;
    for (u32 index = 0; index < MOST_PROCESSES; index++) {
      struct process *process = &processes[index];
      if (process->state == STATE_FREE || process->number <= last) continue;
      if (!next || process->number < next->number) next = process;
    }
    if (!next) return hash;
    hash = hash_space(hash, next->number, next->mm);
    last = next->number;
  }
}

void end_all_processes(void) {
  for (u32 index = 0; index < MOST_PROCESSES; index++) {
    if (processes[index].state == STATE_FREE) continue;
    destroy_space(processes[index].mm);
    processes[index].state = STATE_FREE;
  }
}
