/*
 * Runs x86 instructions on this machine's own processor, in bulk.
 *
 *   oracle <input file> <output file>
 *
 * One signal and one sigreturn a case. Everything happens inside the signal handler: it stores what the case left
 * behind (the kernel has put the complete state into the signal frame), writes the next case's state into the same
 * frame, and returns from the signal into the case. The case ends when it traps: on one of the int3 bytes that fill
 * the code pages around it, or on its own fault.
 *
 * 32-bit code runs by returning to the kernel's compatibility code segment (0x23); everything it can reach lies below
 * 4 GiB. FS and GS are 4 KiB segments of the local descriptor table there, and the FS and GS base in 64-bit code.
 *
 * Linear addresses (oracle.ts states the same constants):
 *
 *   0x10000000  window page 0  read-write
 *   0x10001000  window page 1  read-write   FS base 0x10001040
 *   0x10002000  window page 2  read-write   GS base 0x10002080
 *   0x10003000  window page 3  read-only
 *   0x10004000  not mapped
 *   0x10005000  window page 5  read-write
 *   0x10006000  not mapped
 *   0x20000000  two code pages, execute and read (and write, if the case asks), filled with int3; not mapped on both sides
 *
 * Input:  u32 magic, u32 count, 8 bytes zero, 6 pages of initial window contents (page 4 ignored), then the cases.
 * Output: the results, one a case, in the same order. Records are little endian and 16-byte aligned; see the structs.
 *
 * The handler must not touch thread-local storage (FS belongs to the case) and must not trust RFLAGS.
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096u
#define WINDOW 0x10000000u
#define WINDOW_PAGES 6
#define CODE 0x20000000u
#define CODE_PAGES 2
#define FS_BASE (WINDOW + 0x1040)
#define GS_BASE (WINDOW + 0x2080)

#define MAGIC 0x314c524fu
#define STATE_BYTES 416 /* the part of the FXSAVE image that holds state; the kernel keeps its own data behind it */
#define CODE_BYTES (CODE_PAGES * PAGE)

#define ENDED 0xff    /* reached an int3 outside the case's own code */
#define TIMED_OUT 0xfe
#define FORBIDDEN 0xfd /* the case made a system call */

/* RFLAGS that sigreturn takes from the frame: CF PF AF ZF SF DF OF AC. ID and NT pass through the handler's own. */
#define FRAME_FLAGS 0x40cd5u
#define HANDLER_FLAGS 0x204000u
#define INTERRUPT_AND_ONE 0x202u
#define RESUME_FLAG 0x10000u

struct input_case {
  uint32_t bytes; /* of the whole record, patches included */
  uint8_t mode;   /* 64 or 32 */
  uint8_t code_writable;
  uint16_t patch_count;
  uint16_t code_offset; /* of the first code byte from CODE */
  uint16_t code_length;
  uint16_t zero[2];
  uint64_t rflags;
  uint64_t zero2;
  uint64_t gprs[16]; /* in encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8... */
  uint8_t state[STATE_BYTES];
  /* then the code, padded to 8, and patches of the window: u32 offset, u32 length, the bytes, padded to 8; the record
     padded to 16 */
};

struct output_case {
  uint32_t bytes;
  uint8_t vector;
  uint8_t signal;
  uint16_t changed_count;
  uint32_t error_code;
  uint16_t cs, ss;
  uint64_t rip;
  uint64_t rflags;
  uint64_t cr2;
  uint16_t ds, es, fs, gs;
  uint64_t gprs[16];
  uint8_t state[STATE_BYTES];
  /* then changed words of the window: u64 index (in 8-byte words), u64 value */
};

static const uint8_t register_index[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                           REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
static const int writable_pages[] = {0, 1, 2, 5};

static const struct input_case *current; /* null until the first case runs */
static const uint8_t *input_next;
static uint8_t *output_start, *output_next;
static int output_file;
static uint32_t remaining;
static uint8_t *expected;   /* the window as it was before the current case */
static const uint8_t *base; /* the window as each case finds it, but for its patches */
static uint8_t *window_alias, *code_alias; /* writable views of the same memory */
static uint32_t sequence, sequence_at_tick;
static int code_writable; /* how the code pages are mapped */
__attribute__((used)) static uint64_t handler_flags = INTERRUPT_AND_ONE;

static inline long system_call(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

static _Noreturn void leave(int status) {
  for (;;) system_call(SYS_exit_group, status, 0, 0);
}

static const uint8_t *code_of(const struct input_case *input) { return (const uint8_t *)(input + 1); }

static const uint8_t *patches_of(const struct input_case *input) {
  return code_of(input) + ((input->code_length + 7) & ~7u);
}

static void store_result(const ucontext_t *context, int signal) {
  struct output_case *out = (struct output_case *)output_next;
  const greg_t *regs = context->uc_mcontext.gregs;
  uint64_t rip = regs[REG_RIP];
  uint64_t first = CODE + current->code_offset, last = first + current->code_length;

  out->vector = signal == SIGVTALRM ? TIMED_OUT : signal == SIGSYS ? FORBIDDEN : regs[REG_TRAPNO];
  out->error_code = regs[REG_ERR];
  out->cr2 = regs[REG_CR2];
  if (out->vector != 14) out->cr2 = 0;
  if (out->vector != 14 && out->vector != 13 && out->vector != 12 && out->vector != 11 && out->vector != 10) out->error_code = 0;
  /* An int3 of the filling ends the case; one of the case's own bytes is a breakpoint exception. */
  if (out->vector == 3 && (rip - 1 < first || rip - 1 >= last)) {
    out->vector = ENDED;
    rip -= 1;
  }
  out->signal = signal;
  out->rip = rip;
  out->rflags = regs[REG_EFL] & ~(uint64_t)RESUME_FLAG;
  out->cs = regs[REG_CSGSFS];
  out->ss = (uint64_t)regs[REG_CSGSFS] >> 48;
  for (int i = 0; i < 16; i++) out->gprs[i] = regs[register_index[i]];
  memcpy(out->state, context->uc_mcontext.fpregs, STATE_BYTES);

  uint64_t *change = (uint64_t *)(out + 1);
  for (unsigned p = 0; p < sizeof writable_pages / sizeof *writable_pages; p++) {
    uint32_t offset = writable_pages[p] * PAGE;
    if (!memcmp(window_alias + offset, expected + offset, PAGE)) continue;
    const uint64_t *seen = (const uint64_t *)(window_alias + offset), *was = (const uint64_t *)(expected + offset);
    for (unsigned i = 0; i < PAGE / 8; i++) {
      if (seen[i] == was[i]) continue;
      *change++ = offset / 8 + i;
      *change++ = seen[i];
    }
    memcpy(window_alias + offset, base + offset, PAGE);
  }
  out->changed_count = (change - (uint64_t *)(out + 1)) / 2;
  output_next = (uint8_t *)change;
  out->bytes = output_next - (uint8_t *)out;

  if (current->code_writable) memset(code_alias, 0xcc, CODE_BYTES);
  else memset(code_alias + current->code_offset, 0xcc, current->code_length);
  const uint8_t *patch = patches_of(current);
  for (unsigned i = 0; i < current->patch_count; i++) {
    uint32_t offset = *(const uint32_t *)patch, length = *(const uint32_t *)(patch + 4);
    memcpy(window_alias + offset, base + offset, length);
    memcpy(expected + offset, base + offset, length);
    patch += 8 + ((length + 7) & ~7u);
  }
}

static void load_case(ucontext_t *context) {
  greg_t *regs = context->uc_mcontext.gregs;
  current = (const struct input_case *)input_next;
  input_next += current->bytes;
  sequence++;

  const uint8_t *patch = patches_of(current);
  for (unsigned i = 0; i < current->patch_count; i++) {
    uint32_t offset = *(const uint32_t *)patch, length = *(const uint32_t *)(patch + 4);
    memcpy(window_alias + offset, patch + 8, length);
    memcpy(expected + offset, patch + 8, length);
    patch += 8 + ((length + 7) & ~7u);
  }
  memcpy(code_alias + current->code_offset, code_of(current), current->code_length);
  if (current->code_writable != code_writable) {
    code_writable = current->code_writable;
    int protection = PROT_READ | PROT_EXEC | (code_writable ? PROT_WRITE : 0);
    if (system_call(SYS_mprotect, CODE, CODE_BYTES, protection)) leave(1);
  }

  for (int i = 0; i < 16; i++) regs[register_index[i]] = current->gprs[i];
  regs[REG_RIP] = CODE + current->code_offset;
  regs[REG_EFL] = (current->rflags & FRAME_FLAGS) | INTERRUPT_AND_ONE;
  regs[REG_CSGSFS] = current->mode == 32 ? 0x002b000000000023 : 0x002b000000000033;
  memcpy(context->uc_mcontext.fpregs, current->state, STATE_BYTES);
  handler_flags = (current->rflags & HANDLER_FLAGS) | INTERRUPT_AND_ONE;
}

/* The case's data segment registers are live in the handler; it sees them before anything else changes them. */
__attribute__((used)) static void handle(int signal, siginfo_t *info, ucontext_t *context, uint64_t selectors) {
  (void)info;
  if (current) {
    if (signal == SIGVTALRM && sequence != sequence_at_tick) {
      sequence_at_tick = sequence;
      goto resume;
    }
    struct output_case *out = (struct output_case *)output_next;
    store_result(context, signal);
    out->ds = selectors;
    out->es = selectors >> 16;
    out->fs = selectors >> 32;
    out->gs = selectors >> 48;
    remaining--;
  } else if (signal == SIGVTALRM) {
    return;
  }
  if (remaining == 0) {
    leave(system_call(SYS_ftruncate, output_file, output_next - output_start, 0) ? 1 : 0);
  }
  load_case(context);
resume:;
  uint16_t flat = 0x2b;
  if (current->mode == 32) {
    uint16_t fs = 0 << 3 | 7, gs = 1 << 3 | 7; /* local descriptors 0 and 1 */
    __asm__ volatile("mov %0, %%fs\n mov %1, %%gs" ::"r"(fs), "r"(gs));
  } else {
    uint16_t null = 0;
    __asm__ volatile("mov %0, %%fs\n mov %0, %%gs" ::"r"(null));
    __asm__ volatile("wrfsbase %0\n wrgsbase %1" ::"r"((uint64_t)FS_BASE), "r"((uint64_t)GS_BASE));
  }
  __asm__ volatile("mov %0, %%ds\n mov %0, %%es" ::"r"(flat));
}

/*
 * Entry and exit of the handler, and the only place from which rt_sigreturn is called. The flags at the time of
 * rt_sigreturn supply those bits that the signal frame cannot (ID, NT).
 */
void entry(int, siginfo_t *, void *);
void restorer(void);
__asm__(
    ".text\n.globl entry\nentry:\n"
    "  pushq $0x202\n popfq\n"
    "  xor %ecx, %ecx\n"
    "  mov %gs, %ax\n mov %ax, %cx\n shl $16, %rcx\n"
    "  mov %fs, %ax\n mov %ax, %cx\n shl $16, %rcx\n"
    "  mov %es, %ax\n mov %ax, %cx\n shl $16, %rcx\n"
    "  mov %ds, %ax\n mov %ax, %cx\n"
    "  sub $8, %rsp\n call handle\n add $8, %rsp\n"
    "  ret\n"
    ".globl restorer\nrestorer:\n"
    "  mov $15, %eax\n" /* rt_sigreturn */
    "  pushq handler_flags(%rip)\n popfq\n"
    "  syscall\n");

static _Noreturn void fail(const char *what) {
  fprintf(stderr, "oracle: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void *map_at(uintptr_t address, size_t length, int protection, int flags, int file, off_t offset) {
  void *place = mmap((void *)address, length, protection, flags | (address ? MAP_FIXED_NOREPLACE : 0), file, offset);
  if (place == MAP_FAILED || (address && place != (void *)address)) fail("mmap");
  return place;
}

static int memory_file(size_t length) {
  int file = memfd_create("oracle", 0);
  if (file < 0 || ftruncate(file, length)) fail("memfd_create");
  return file;
}

/* Makes any system call from outside this program's own text raise SIGSYS, which ends the case as forbidden. */
static void forbid_system_calls(void) {
  extern const char __executable_start, __etext;
  uint64_t first = (uint64_t)&__executable_start, last = (uint64_t)&__etext;
  if (first >> 32 != last >> 32) return;
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 6),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(first >> 32), 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)first, 0, 2),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, (uint32_t)last, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
  };
  struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) fail("seccomp");
}

struct kernel_sigaction {
  void (*handler)(int, siginfo_t *, void *);
  unsigned long flags;
  void (*restorer)(void);
  uint64_t mask;
};

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: oracle <input file> <output file>\n");
    return 1;
  }
  if (!(getauxval(AT_HWCAP2) & 2)) {
    fprintf(stderr, "oracle: the kernel does not let programs set the FS base (FSGSBASE)\n");
    return 1;
  }
  struct stat status;
  int input_file = open(argv[1], O_RDONLY);
  if (input_file < 0 || fstat(input_file, &status)) fail(argv[1]);
  const uint8_t *input = map_at(0, status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, input_file, 0);
  if (*(const uint32_t *)input != MAGIC) {
    fprintf(stderr, "oracle: %s is not a batch of cases\n", argv[1]);
    return 1;
  }
  remaining = *(const uint32_t *)(input + 4);
  base = input + 16;
  input_next = base + WINDOW_PAGES * PAGE;

  /* The output is sparse: room for every case to change every word. */
  size_t output_bytes = (size_t)(remaining + 1) * (sizeof(struct output_case) + 4 * PAGE * 2);
  output_file = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (output_file < 0 || ftruncate(output_file, output_bytes)) fail(argv[2]);
  output_start = output_next = map_at(0, output_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, output_file, 0);

  expected = malloc(WINDOW_PAGES * PAGE);
  memcpy(expected, base, WINDOW_PAGES * PAGE);
  int window_file = memory_file(WINDOW_PAGES * PAGE), code_file = memory_file(CODE_BYTES);
  window_alias = map_at(0, WINDOW_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, window_file, 0);
  code_alias = map_at(0, CODE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, code_file, 0);
  memcpy(window_alias, base, WINDOW_PAGES * PAGE);
  memset(code_alias, 0xcc, CODE_BYTES);
  for (int p = 0; p < WINDOW_PAGES; p++) {
    if (p == 4) continue;
    int protection = p == 3 ? PROT_READ : PROT_READ | PROT_WRITE;
    map_at(WINDOW + p * PAGE, PAGE, protection, MAP_SHARED | MAP_POPULATE, window_file, p * PAGE);
  }
  map_at(CODE, CODE_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_POPULATE, code_file, 0);

  uint32_t bases[2] = {FS_BASE, GS_BASE};
  for (int i = 0; i < 2; i++) {
    struct user_desc descriptor = {.entry_number = i, .base_addr = bases[i], .limit = 0xfff, .seg_32bit = 1, .useable = 1};
    if (syscall(SYS_modify_ldt, 1, &descriptor, sizeof descriptor)) fail("modify_ldt");
  }

  stack_t stack = {.ss_size = 256 * 1024};
  stack.ss_sp = map_at(0, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (sigaltstack(&stack, 0)) fail("sigaltstack");
  /* The raw call: the C library would put its own restorer in, and its text is outside the permitted range. */
  struct kernel_sigaction action = {entry, SA_SIGINFO | SA_ONSTACK | 0x04000000 /* SA_RESTORER */, restorer, ~0ull};
  static const int signals[] = {SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGVTALRM, SIGSYS};
  for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) {
    if (syscall(SYS_rt_sigaction, signals[i], &action, 0, 8)) fail("sigaction");
  }
  struct itimerval interval = {{0, 20000}, {0, 20000}};
  if (setitimer(ITIMER_VIRTUAL, &interval, 0)) fail("setitimer");
  forbid_system_calls();
  __asm__ volatile("int3");
  return 1;
}
