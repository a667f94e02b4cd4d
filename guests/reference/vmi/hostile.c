#include "hostile.h"
#include "apic.h"
#include "console.h"
#include "native.h"
#include "vmi.h"

/*
 * All calls of VMI with arguments that are right as often as wrong. What a call has made of the processor is put right
 * again behind it, where that is still possible. Two ports tell whoever listens which call is made, and what came of it.
 */
#define CALLS 74
#define REPORT_CALL 0x5e0
#define REPORT_RESULT 0x5e4
#define STACK_WORDS 4

#define MSR_SYSENTER_CS 0x174
#define CR4_PAE 0x20
#define APIC_COMMAND 0x300
#define APIC_COMMAND_TARGET 0x310
#define COMMAND_INIT 0x4500
#define COMMAND_STARTUP 0x4600

static u8 arena[PAGE_SIZE] ALIGNED(PAGE_SIZE);
/* A page that nothing has mapped but the kernel's own mapping. */
static u8 spare[PAGE_SIZE] ALIGNED(PAGE_SIZE);
static struct ap_state ap_state;
static struct table_pointer gdt, idt;
static word cr0, cr4;

static u32 chance(u32 one_in) { return hostile_random(one_in) == 0; }

/* Entries above the lowest level, which lead nowhere in the space as it is at first. */
static entry_bits *directory;
static u32 own_index;
/* Entries hold machine frame numbers, of which the kernel knows but those that are there. */
static u32 holds_machine_frames;

static void find_directory(void) {
#if LEVELS == 3
  directory = virtual((word)(pgd_val(get_pgd(pgd_at(hostile_mm->pgd, HOSTILE_BASE >> 30))) & FRAME_MASK));
  own_index = (HOSTILE_BASE >> 21) % ENTRIES;
  holds_machine_frames = vmi_code(VMI_GET_PXE_LONG) != NULL;
#else
  directory = (entry_bits *)hostile_mm->pgd;
  own_index = HOSTILE_BASE >> 22;
#endif
}

static entry_bits *upper_pointer(void) {
  u32 index = (u32)hostile_random(LEVELS == 3 ? ENTRIES : KERNEL_SLOT);
  return directory + (index == own_index ? index + 1 : index);
}

static entry_bits upper_entry(void) {
  if (chance(64)) return hostile_entry();
  return chance(2) ? 0 : physical(spare) | PRESENT | WRITABLE | USER | ACCESSED;
}

/* The call that is made: code of the ROM, registers, and what is behind them on the stack. */
static struct {
  void *code;
  u32 eax, edx, ecx, stack[STACK_WORDS];
  word esp;
} rom_call;

static void report(u16 port, u32 value) { asm volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }

/* Some calls take more from the stack than they find there. */
static void make_call(void) {
  asm volatile("pushl %%ebp\n\tmov %%esp, %0\n\t"
               "pushl %1\n\tpushl %2\n\tpushl %3\n\tpushl %4\n\t"
               "call *%5\n\t"
               "mov %0, %%esp\n\tpopl %%ebp"
               : "+m"(rom_call.esp)
               : "m"(rom_call.stack[3]), "m"(rom_call.stack[2]), "m"(rom_call.stack[1]), "m"(rom_call.stack[0]),
                 "m"(rom_call.code), "a"(rom_call.eax), "d"(rom_call.edx), "c"(rom_call.ecx)
               : "ebx", "esi", "edi", "memory", "cc");
}

/* On a stack that ends with the space: what should be behind the return address is not there. */
static void make_call_at_edge(void) {
  asm volatile("pushl %%ebp\n\tmov %%esp, %0\n\tmov %5, %%esp\n\t"
               "call *%1\n\t"
               "mov %0, %%esp\n\tpopl %%ebp"
               : "+m"(rom_call.esp)
               : "m"(rom_call.code), "a"(rom_call.eax), "d"(rom_call.edx), "c"(rom_call.ecx), "i"(HOSTILE_END)
               : "ebx", "esi", "edi", "memory", "cc");
}

static u32 any_word(void) {
  switch (hostile_random(8)) {
    case 0:
      return (u32)hostile_page();
    case 1:
      return (u32)hostile_address();
    case 2:
      return (u32)arena + (u32)hostile_random(PAGE_SIZE / 4) * 4;
    case 3:
      return (u32)hostile_entry_pointer();
    case 4:
      return (u32)&ap_state;
    default:
      return (u32)hostile_number();
  }
}

static void fill_any(void) {
  rom_call.eax = any_word();
  rom_call.edx = any_word();
  rom_call.ecx = any_word();
  for (u32 index = 0; index < STACK_WORDS; index++) rom_call.stack[index] = any_word();
}

#define ARGUMENTS(first, second, third) rom_call.eax = (u32)(first), rom_call.edx = (u32)(second), rom_call.ecx = (u32)(third)

/* Another processor begins in the kernel, where it halts. */
static void wait_for_ever(void) { for (;;) asm volatile("cli\n\thlt"); }

/* Without paging, at its physical address: stores where EAX points. */
void hostile_store_around(void);
asm("hostile_store_around:\n\t"
    "movl $0, (%eax)\n"
    "1:\tcli\n\thlt\n\tjmp 1b");
#define PAGING 0x80000000

static void fill_ap_state(void) {
  ap_state = (struct ap_state){
    .cr0 = (u32)cr0, .cr3 = (u32)physical(swapper_pg_dir), .cr4 = (u32)cr4,
    .eip = (u32)wait_for_ever, .esp = (u32)arena + PAGE_SIZE,
    .cs = KERNEL_CODE, .ss = KERNEL_DATA, .ds = USER_DATA, .es = USER_DATA,
    .gdt_limit = gdt.limit, .gdt_base = gdt.base, .idt_base = idt.base, .idt_limit = idt.limit,
  };
  u16 *segment = &(&ap_state.cs)[hostile_random(6)];
  switch (hostile_random(24)) {
    case 0: *segment = (u16)hostile_number(); break;
    case 1: *segment |= 3; break;
    case 2: *segment = 0; break;
    case 3: *segment = *segment == KERNEL_CODE ? KERNEL_DATA : KERNEL_CODE; break;
    case 4: *segment = TASK; break;
    case 5: *segment = KERNEL_DATA - 16; break;
    case 6: ap_state.ldtr = 8; break;
    case 7: ap_state.gdt_base = (u32)hostile_number(); break;
    case 8: ap_state.gdt_base = HOSTILE_END - KERNEL_CODE - 4; break;
    case 9: if (hostile_random(16) == 0) ap_state.efer = 0x100; break;
    case 10: if (hostile_random(16) == 0) ap_state.cr4 = 0x80000000; break;
    case 11: if (hostile_random(16) == 0) ap_state.cr0 = PAGING; break;
    case 12:
      ap_state.cr0 &= ~PAGING;
      ap_state.eip = (u32)physical((void *)hostile_store_around), ap_state.eax = (u32)physical(hostile_entry_pointer());
      break;
  }
}

/* Arguments that a sound kernel could have. */
static void fill_sound(u32 number) {
  u32 page = hostile_page(), pointer = (u32)hostile_entry_pointer();
  entry_bits entry = hostile_entry();
  if (chance(8)) pointer = (u32)upper_pointer(), entry = upper_entry();
  /* A table, to be written to; what is no entry; and what is in no table, wherever it is said to be. */
  else if (chance(32)) entry = (entry_bits)page_number((void *)pointer) * PAGE_SIZE | PRESENT | WRITABLE | USER;
  else if (chance(16)) pointer += sizeof(word);
  else if (chance(16)) pointer = (u32)hostile_address();
  u32 flags = hostile_random(2) ? PAGE_PT : PAGE_PD;
  u32 time = (u32)hostile_random(1 << 20);
  switch (number) {
    case 1: case 2:
      /* With the kernel's selector there SYSEXIT goes to a program, with the others it is refused. */
      ARGUMENTS(hostile_random(2) ? KERNEL_CODE : hostile_random(4), 0, hostile_random(2) ? MSR_SYSENTER_CS : 0x10);
      break;
    case VMI_SET_GDT: rom_call.eax = (u32)&gdt; break;
    case VMI_SET_IDT: rom_call.eax = (u32)&idt; break;
    case 4: rom_call.eax = 0; break;
    case VMI_SET_TR: ((u32 *)gdt_pages[0])[TASK / 4 + 1] &= ~0x200u; rom_call.eax = TASK; break;
    case 7: case 9: rom_call.eax = (u32)arena; break;
    case 11: case 12: case 13: ARGUMENTS(arena, hostile_random(512), any_word()); break;
    case 15: rom_call.eax = (u32)cr0 | (hostile_random(4) ? 0 : 8); break;
    case 17:
      rom_call.eax = (u32)physical(hostile_random(2) ? hostile_mm->pgd : swapper_pg_dir) | (chance(64) ? 32 : 0);
      if (chance(64)) rom_call.eax = page * PAGE_SIZE;
      break;
    case 18:
      rom_call.eax = (u32)cr4 ^ (u32)(hostile_random(2) << 7 | hostile_random(2) << 2);
      if (chance(64)) rom_call.eax ^= CR4_PAE;
      break;
    case 24: case 25: rom_call.eax = (u32)hostile_random(8); break;
    case VMI_IRET:
      /* Back to where it was called: in the kernel, or as a program, which has no such page. */
      rom_call.stack[0] = hostile_random(2) ? KERNEL_CODE : USER_CODE, rom_call.stack[1] = 2;
      rom_call.stack[2] = 0, rom_call.stack[3] = USER_DATA;
      break;
    case 34: ARGUMENTS(0, HOSTILE_BASE, 0); break;
    case VMI_SET_PXE: ARGUMENTS(entry, pointer, flags); break;
    case VMI_SET_PXE_LONG: case VMI_SWAP_PXE_LONG: ARGUMENTS(entry, (u64)entry >> 32, pointer); break;
    case VMI_UPDATE_PXE: case VMI_UPDATE_PXE_LONG: case VMI_GET_PXE_LONG: rom_call.eax = pointer; break;
    case VMI_ALLOCATE_PAGE: case VMI_RELEASE_PAGE:
      ARGUMENTS(chance(4) ? page_number(spare) : chance(2) ? page_number((void *)pointer) : page, flags, 0);
      break;
    case VMI_INVAL_PAGE: rom_call.eax = (u32)hostile_address(); break;
    case VMI_FLUSH_TLB: rom_call.eax = 1 | (u32)hostile_random(2) << 1; break;
    case VMI_SET_LINEAR_MAPPING: ARGUMENTS(hostile_random(4), HOSTILE_BASE, HOSTILE_PAGES); break;
    case VMI_SET_INITIAL_AP_STATE: ARGUMENTS(&ap_state, 1, 0); break;
    case VMI_APIC_WRITE: case VMI_APIC_READ: ARGUMENTS(hostile_random(64) * 16, hostile_random(256), 0); break;
    case VMI_GET_CYCLE_COUNTER: rom_call.eax = (u32)hostile_random(4); break;
    case VMI_SET_ALARM:
      ARGUMENTS((hostile_random(4) ? ALARM_LOCAL_TIMER : 0) | hostile_random(2) << 8 | hostile_random(3), time, 0);
      rom_call.stack[0] = time, rom_call.stack[1] = 0;
      break;
    case VMI_SET_LAZY_MODE: rom_call.eax = (u32)hostile_random(3); break;
  }
}

/* A wrong argument of these ends the kernel, which is seldom worth it; so does any of the last two. */
static u32 wants_care(u32 number) {
  static const u8 careful[] = {1, 3, 5, 6, 11, 12, 13, 15, 17, 18, 33, 34, 35, 36, 37, 38, 39, 50, 63};
  for (u32 index = 0; index < COUNT(careful); index++) {
    if (careful[index] == number) return 1;
  }
  return 0;
}

static void put_right(void) {
  asm volatile("cld\n\tpushl $2\n\tpopfl" : : : "cc", "memory");
  asm volatile("lgdt %0\n\tlidt %1" : : "m"(gdt), "m"(idt));
  asm volatile("mov %0, %%cr0\n\tmov %1, %%cr4\n\tmov %2, %%cr3" : : "r"(cr0), "r"(cr4), "r"(physical(hostile_mm->pgd)));
  asm volatile("mov %0, %%dr7" : : "r"(0x400));
  asm volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(USER_DATA));
}

/* Calls that the ROM has code for, which depends on its host. */
static void *codes[CALLS];
static u8 available[CALLS];
static u32 available_count;

static void find_calls(void) {
  for (u32 number = 0; number < CALLS; number++) {
    codes[number] = vmi_code(number);
    if (codes[number]) available[available_count++] = (u8)number;
  }
}

static void try_call(void) {
  u32 number = available[hostile_random(available_count)], is_careful = wants_care(number);
  if (number == VMI_SHUTDOWN || number == 36 || number == VMI_HALT) {
    if (hostile_random(number == VMI_HALT ? 64 : 256)) return;
  }
  rom_call.code = codes[number];
  fill_any();
  fill_ap_state();
  if (hostile_random(is_careful ? 256 : 4)) fill_sound(number);
  report(REPORT_CALL, number);
  u32 takes_stack = number == VMI_SET_ALARM || number == VMI_SET_LINEAR_MAPPING;
  u32 result = hostile_attempt(takes_stack && hostile_random(16) == 0 ? make_call_at_edge : make_call);
  if (is_careful || result) put_right();
  else asm volatile("cld\n\tpushl $2\n\tpopfl\n\tmov %0, %%dr7" : : "r"(0x400) : "cc", "memory");
  report(REPORT_RESULT, result);
}

/* What is stored to tables without a word, and to what has been one. */
static entry_bits stored_entry(void) {
  entry_bits entry = hostile_entry();
  if (!holds_machine_frames || chance(64)) return entry;
  return (entry & ~FRAME_MASK) | (*(entry_bits *)hostile_entry_pointer() & FRAME_MASK);
}
static entry_bits stored_upper_entry(void) {
  if (!holds_machine_frames || chance(64)) return upper_entry();
  return chance(2) ? 0 : directory[own_index];
}
static void store_oddly(void) { *(volatile u32 *)((u8 *)hostile_entry_pointer() + 6) = (u32)hostile_entry(); }
static void store_upper(void) { *upper_pointer() = stored_upper_entry(); }
static void store_spare(void) { spare[hostile_random(PAGE_SIZE)] = 0; }

static void store_entry(void) {
  switch (hostile_random(16)) {
    case 0: hostile_attempt(store_oddly); break;
    case 1: case 2: hostile_attempt(store_upper); break;
    case 3: case 4: hostile_attempt(store_spare); break;
    default: *(entry_bits *)hostile_entry_pointer() = stored_entry(); break;
  }
}

static void start_other(void) {
  if (hostile_random(16)) return;
  native_apic_write(APIC_COMMAND_TARGET, 1 << 24);
  native_apic_write(APIC_COMMAND, COMMAND_INIT);
  native_apic_write(APIC_COMMAND_TARGET, 1 << 24);
  /* Where there is nothing but what the loader left, unless it has a state. */
  if (hostile_random(64) == 0 || ap_state.eip == (u32)wait_for_ever) native_apic_write(APIC_COMMAND, COMMAND_STARTUP | 0x08);
}

/* Tables are examined by then. */
static void ask_for_frames_late(void) {
  if (chance(16)) vmi_use_machine_frames();
}

static void let_interrupts_in(void) { asm volatile("sti\n\tnop\n\tcli" : : : "memory"); }

/* Numbers that the host has for calls that the ROM never makes, and calls of programs. */
static u32 unknown_number;
static void call_host(void) { asm volatile("vmcall" : : "a"(0), "b"(unknown_number), "c"(0), "d"(0) : "memory"); }
static void try_unknown(void) {
  unknown_number = (u32)hostile_number();
  vmi_code(unknown_number);
  if (unknown_number == 36 || unknown_number == 37) return;
  if (hostile_random(2)) hostile_program(unknown_number);
  else hostile_attempt(call_host);
}

static void (*const attempts[])(void) = {
  try_call, try_call, try_call, try_call, try_call, try_call, hostile_touch, hostile_touch, store_entry, start_other,
  let_interrupts_in, try_unknown, ask_for_frames_late,
};

#if LEVELS == 3
/* Before the host examines tables: pages that become some, or do not, and a store to a page that is only to be read. */
#define LARGE ((entry_bits)0x80)
#define READ_ONLY_INDEX 300
static void store_read_only(void) { *(volatile u32 *)(KERNEL_BASE + ((word)READ_ONLY_INDEX << 21)) = 0; }

void vmi_be_hostile_early(entry_bits *boot_directory, entry_bits *kernel_directory) {
  void (*call)(u32 page, u32 flags) = NULL;
  hostile_seed();
  if (chance(4)) *(entry_bits *)spare = LARGE | PRESENT;
  for (u32 step = 0; step < 32; step++) {
    call = vmi_code(chance(4) ? VMI_RELEASE_PAGE : VMI_ALLOCATE_PAGE);
    u32 is_table = (u32)hostile_random(2);
    entry_bits linked = kernel_directory[hostile_random(4)];
    u32 page = is_table && (linked & PRESENT) ? (u32)((linked & FRAME_MASK) / PAGE_SIZE) : page_number(spare);
    if (call) call(page, PAGE_PAE | (chance(is_table ? 256 : 4) ? PAGE_PD : PAGE_PT));
  }
  boot_directory[READ_ONLY_INDEX] = LARGE | PRESENT;
  hostile_attempt(store_read_only);
  if (chance(16)) kernel_directory[READ_ONLY_INDEX] = LARGE | PRESENT;
}
#endif

void vmi_be_hostile(void) {
  hostile_space();
  find_directory();
  asm volatile("sgdt %0\n\tsidt %1" : "=m"(gdt), "=m"(idt));
  asm volatile("mov %%cr0, %0\n\tmov %%cr4, %1" : "=r"(cr0), "=r"(cr4));
  find_calls();
  for (;;) attempts[hostile_random(COUNT(attempts))]();
}
