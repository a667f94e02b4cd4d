#include "hostile.h"
#include "console.h"
#include "cpu.h"
#ifdef XEN
#include "xen-abi.h"
#endif

/* What hostile calls of all interfaces have in common. */
static u64 state;

u64 hostile_seed(void) {
  const char *digits = word_value("hostile=");
  u64 seed = 0;
  for (; digits && *digits >= '0' && *digits <= '9'; digits++) seed = seed * 10 + (u64)(*digits - '0');
  state = seed * 0x9e3779b97f4a7c15 + 1;
  return seed;
}

/* Small limits do without a division of 64 bits, for which 32-bit compilers want a library. */
u64 hostile_random(u64 below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (u32)(state >> 16) % (u32)below;
}

/* Small, at an edge, or anything. */
u64 hostile_number(void) {
  static const u64 edges[] = {0, 1, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, ~(u64)0, (u64)1 << 63};
  switch (hostile_random(8)) {
    case 0:
      return edges[hostile_random(COUNT(edges))];
    case 1:
      return state;
    default:
      return hostile_random(40);
  }
}

void chatter(void) {
  for (word line = 0;; line++) print("line %u of as many as anybody wants to read, and of some that nobody does\n", line);
}

/* Exceptions. */
extern u8 hostile_landing[];
volatile u32 hostile_is_expected, hostile_exception;
word hostile_stack;

u32 recover(struct frame *frame) {
  if (!hostile_is_expected) return 0;
  hostile_is_expected = 0;
  hostile_exception = ((u32)frame->vector + 1) | (FROM_USER(frame) ? HOSTILE_IN_PROGRAM : 0);
  frame->ip = (word)hostile_landing;
#if LEVELS == 4
  frame->sp = hostile_stack;
#endif
  /* A kernel of ring 0, or of Xen's, may have gone to a program; others are where they were. */
#ifdef XEN
  if (pv_info.kernel_rpl > 0 && FROM_USER(frame)) {
    frame->cs = XEN_FRAME_CS;
    frame->flags = 2;
#if LEVELS == 4
    frame->ss = XEN_KERNEL_SS;
#endif
  }
#endif
  if (pv_info.kernel_rpl > 0) return 1;
  frame->cs = KERNEL_CODE;
  frame->flags = 2;
#if LEVELS == 4
  frame->ss = KERNEL_DATA;
#endif
  return 1;
}

/* The space. Its first page is a program's code. */
#define MOV_EAX 0xb8
#define MOV_EBX 0xbb

struct memory_descriptor *hostile_mm;
static word pages[HOSTILE_PAGES];
static u8 program_stack[KERNEL_STACK_SIZE] ALIGNED(PAGE_SIZE);

void hostile_space(void) {
  hostile_mm = create_space();
  map_area(hostile_mm, HOSTILE_BASE, HOSTILE_PAGES * PAGE_SIZE, 1);
  for (u32 index = 0; index < HOSTILE_PAGES; index++) {
    word address = HOSTILE_BASE + index * PAGE_SIZE;
    if (!handle_fault(hostile_mm, address, 1)) panic("no page for %x", address);
    pages[index] = (word)(pte_val(get_pte(find_entry(hostile_mm, address))) & FRAME_MASK) / PAGE_SIZE;
  }
  PV_CALL_2(mmu, activate_mm, NULL, hostile_mm);
  switch_space(NULL, hostile_mm);
  PV_CALL_1(cpu, load_sp0, (word)program_stack + sizeof(program_stack));
}

word hostile_address(void) { return HOSTILE_BASE + (word)hostile_random(HOSTILE_PAGES) * PAGE_SIZE; }

word hostile_page(void) { return pages[hostile_random(HOSTILE_PAGES)]; }

void *hostile_entry_pointer(void) { return find_entry(hostile_mm, hostile_address()); }

entry_bits hostile_entry(void) {
  entry_bits flags = hostile_random(16) ? (hostile_random(0x80) & ~0x18UL) | PRESENT : hostile_number() & 0xfff;
  if (hostile_random(8) == 0) flags &= ~PRESENT;
  word page = hostile_random(64) ? hostile_page() : (word)hostile_number() & 0xfffff;
  return (entry_bits)page * PAGE_SIZE | flags;
}

static void touch(void) { (void)*(volatile u8 *)hostile_address(); }
static void store(void) { *(volatile u8 *)(hostile_address() + PAGE_SIZE / 2) = (u8)state; }

void hostile_touch(void) { hostile_attempt(hostile_random(4) ? touch : store); }

void hostile_enter_program(word address);
static void run_program(void) { hostile_enter_program(HOSTILE_BASE); }

void hostile_program(u32 number) {
  u8 code[] = {MOV_EAX, 0, 0, 0, 0, MOV_EBX, 0, 0, 0, 0, 0x0f, 0x01, 0xc1 /* vmcall */, 0x0f, 0x0b /* ud2 */};
  copy(code + 1, &number, sizeof(number));
  copy(code + 6, &number, sizeof(number));
  copy(virtual(pages[0] * PAGE_SIZE), code, sizeof(code));
  hostile_attempt(run_program);
}
