#include "hostile.h"
#include "lguest.h"

/*
 * Calls of lguest with arguments that are right most of the time: whatever the host cannot carry out ends the guest. Some
 * wait in the ring, and other words of the shared data change under the host's eyes.
 */
#define TASK_SWITCHED 8
#define LOAD_GDT 3
#define LOAD_TLS 16
#define CALLS 22
#define RARELY 512
#define TICK 100000
#define BUS_PAGES 64

static u64 arena[PAGE_SIZE / 8] ALIGNED(PAGE_SIZE);

struct arguments { u32 word[4]; };

static u32 chance(u32 one_in) { return hostile_random(one_in) == 0; }

static u32 any_address(void) {
  switch (hostile_random(4)) {
    case 0:
      return (u32)hostile_number();
    case 1:
      return (u32)hostile_page() * PAGE_SIZE + (u32)hostile_random(PAGE_SIZE);
    default:
      return physical(arena) + (u32)hostile_random(PAGE_SIZE - 256);
  }
}

static struct arguments any_arguments(void) {
  struct arguments result;
  for (u32 index = 0; index < COUNT(result.word); index++)
    result.word[index] = hostile_random(2) ? (u32)hostile_number() : any_address();
  return result;
}

/* A descriptor of a program's or the kernel's ring, which nothing uses. */
static u32 spare_descriptor(void) {
  static const u8 spare[] = {0, 1, 6, 7, 8, 10, 11, 16, 17, 25, 26, 31};
  return spare[hostile_random(COUNT(spare))];
}

static struct arguments sound_arguments(u32 call) {
  void *pointer = hostile_entry_pointer();
  u32 table = physical(pointer) & -(u32)PAGE_SIZE, index = physical(pointer) % PAGE_SIZE / sizeof(entry_bits);
  entry_bits entry = *(entry_bits *)pointer;
  u32 root = physical(hostile_mm->pgd), address = (u32)hostile_address();
  switch (call) {
    case LGUEST_NEW_PGTABLE: return (struct arguments){{root}};
    case LGUEST_FLUSH_TLB: case TASK_SWITCHED: return (struct arguments){{(u32)hostile_random(2)}};
    case LGUEST_LOAD_IDT_ENTRY:
      return (struct arguments){{0x30 + (u32)hostile_random(0x40), address & 0xffff,
                                 (address & 0xffff0000) | (chance(4) ? 0x0e00 : chance(RARELY) ? 0x8500 : 0x8e00) | (u32)hostile_random(2) << 8}};
    case LGUEST_SET_STACK: return (struct arguments){{KERNEL_DATA | 1, physical(arena), (u32)hostile_random(3)}};
    case LGUEST_SET_CLOCKEVENT: return (struct arguments){{TICK + (u32)hostile_random(TICK)}};
    case LGUEST_SET_PMD: return (struct arguments){{table, index}};
    case LGUEST_SET_PTE: return (struct arguments){{root, address, (u32)entry, (u32)((u64)entry >> 32)}};
    case LGUEST_SET_PGD: return (struct arguments){{root, (u32)hostile_random(4)}};
    case LOAD_TLS: return (struct arguments){{physical(arena) + (u32)hostile_random(64) * 8}};
    case LGUEST_NOTIFY: return (struct arguments){{any_address() % physical(arena + COUNT(arena))}};
    case LGUEST_LOAD_GDT_ENTRY: return (struct arguments){{spare_descriptor(), (u32)hostile_number(), 0x00cf9200 | (u32)hostile_random(8) << 12}};
    default: return (struct arguments){{0}};
  }
}

/* Calls that always end the guest, or can hardly do else. */
static u32 is_deadly(u32 call) {
  return call == LGUEST_INIT || call == LGUEST_SHUTDOWN || call == LOAD_GDT || call == 11 || call == 12 || call > LGUEST_SEND_INTERRUPTS;
}

static u32 any_call(void) {
  u32 call = (u32)hostile_random(CALLS);
  return is_deadly(call) && hostile_random(RARELY) ? LGUEST_SET_PTE : call;
}

/* Those whose wrong arguments hurt nobody but the table that they are about. */
static u32 is_harmless(u32 call) {
  return call == LGUEST_SET_PMD || call == LGUEST_SET_PTE || call == LGUEST_SET_PGD || call == LGUEST_FLUSH_TLB ||
         call == LGUEST_SET_CLOCKEVENT || call == TASK_SWITCHED;
}

static struct arguments arguments_of(u32 call) {
  return hostile_random(is_harmless(call) ? 2 : RARELY) ? sound_arguments(call) : any_arguments();
}

static const char *const texts[] = {"Power down", "panic", "Power down and more", ""};

static void try_call(void) {
  u32 call = any_call();
  struct arguments made = arguments_of(call);
  if (call == LGUEST_SHUTDOWN) {
    made.word[0] = hostile_random(4) ? physical(texts[hostile_random(COUNT(texts))]) : (u32)hostile_number();
    made.word[1] = (u32)hostile_random(4);
  }
  if (call == LGUEST_HALT) lguest_call(LGUEST_SET_CLOCKEVENT, TICK, 0, 0, 0), lguest_data.irq_enabled = 0x200;
  lguest_call(call, made.word[0], made.word[1], made.word[2], made.word[3]);
  lguest_data.irq_enabled = 0;
}

/* A slot of the ring, mostly one that the host comes to soon. */
static void fill_slot(void) {
  u32 slot = (u32)hostile_random(LGUEST_SLOTS), call = any_call();
  struct arguments made = arguments_of(call);
  if (call == LGUEST_HALT) return;
  lguest_data.slots[slot].call = call;
  for (u32 index = 0; index < COUNT(made.word); index++) lguest_data.slots[slot].arguments[index] = made.word[index];
  lguest_data.slot_states[slot] = (u8)hostile_random(2);
}

static void change_data(void) {
  switch (hostile_random(6)) {
    case 0: lguest_data.blocked_interrupts = (u32)hostile_number() & ~1u; break;
    case 1: lguest_data.noirq_end = (const void *)(word)hostile_number(); break;
    case 2: lguest_data.noirq_end = lguest_noirq_end; break;
    case 3: lguest_data.irq_pending = (u32)hostile_number(); break;
    case 4: lguest_data.slot_states[hostile_random(LGUEST_SLOTS)] = LGUEST_SLOT_FREE; break;
    default: arena[hostile_random(COUNT(arena))] = hostile_number(); break;
  }
}

static void store_entry(void) { *(entry_bits *)hostile_entry_pointer() = hostile_entry(); }

/* Devices: the pages of the bus are behind the memory that a guest is told of. */
static void notify_device(void) {
  if (hostile_random(RARELY)) return;
  lguest_call(LGUEST_NOTIFY, (u32)(4096 - hostile_random(BUS_PAGES)) * PAGE_SIZE, 0, 0, 0);
}

/* Behind the end of a turn, when the clock is looked at. */
#define TURN (1 << 17)

/* One is waiting, and the host says so. */
static void keep_interrupts_out(void) {
  if (hostile_random(64)) return;
  lguest_data.irq_pending = 0;
  lguest_call(LGUEST_SET_CLOCKEVENT, 1, 0, 0, 0);
  for (u32 step = 0; step < TURN && !lguest_data.irq_pending; step++) relax();
}

/* What a program does by the host's vector is an exception of its own. */
static void let_interrupts_in(void) {
  lguest_call(LGUEST_SET_CLOCKEVENT, 1, 0, 0, 0);
  lguest_data.irq_enabled = 0x200;
  lguest_call(LGUEST_SEND_INTERRUPTS, 0, 0, 0, 0);
  for (u32 turn = 0; turn < 64; turn++) relax();
  lguest_data.irq_enabled = 0;
}

/* Gates by which programs could come in, and selectors that there are not. */
static u32 selector;
static void interrupt(void) { asm volatile("int $0x31"); }
static void load_selector(void) { asm volatile("mov %0, %%es" : : "r"(selector)); }

static void use_tables(void) {
  selector = (u32)hostile_random(64) << 3 | (u32)hostile_random(8);
  hostile_attempt(load_selector);
  asm volatile("mov %0, %%es" : : "r"(USER_DATA));
  if (chance(64)) hostile_attempt(interrupt);
}

static void (*const attempts[])(void) = {
  try_call, try_call, try_call, try_call, fill_slot, fill_slot, change_data, store_entry, store_entry, hostile_touch, hostile_touch,
  notify_device, let_interrupts_in, keep_interrupts_out, use_tables,
};

void lguest_be_hostile(void) {
  hostile_space();
  for (;;) attempts[hostile_random(COUNT(attempts))]();
}
