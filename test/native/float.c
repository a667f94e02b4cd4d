/*
 * Runs instructions on this machine's own processor, so that the float units can be compared with it.
 *
 * Standard input is a sequence of batches, standard output the same sequence of records after execution.
 * A batch is a header of 32 bytes
 *
 *     u32 kind (0 SSE, 1 x87) · u32 count · u32 length of the code · u8 code[20]
 *
 * and `count` records. The code is one instruction; memory operands are addressed by RDI, the XMM operands are XMM0 and
 * XMM1, the MMX operands MM0 and MM1, the general register RAX. An instruction that raises SIGFPE is skipped and marked.
 *
 * SSE record, 96 bytes:  0 first operand, XMM0 (in, out) · 16 second, XMM1, MM1 and RAX (in) · 32 MM0 (out) · 40 RAX (out)
 *                        48 MXCSR (in, out) · 52 trapped (out) · 56 EFLAGS (in, out)
 * x87 record, 256 bytes: 0 memory operand, RDI points here (in, out) · 112 x87 state in FNSAVE's form (in, out)
 *                        224 trapped (out) · 228 EFLAGS (in, out) · 232 RAX (out)
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

static uint8_t *code;
static uint32_t code_length;
static volatile uint32_t trapped;

static void on_sigfpe(int signal, siginfo_t *info, void *context) {
  ucontext_t *user = context;
  (void)signal;
  (void)info;
  if (user->uc_mcontext.gregs[REG_RIP] != (greg_t)code) abort();
  trapped = 1;
  user->uc_mcontext.gregs[REG_RIP] = (greg_t)(code + code_length);
}

static void run_sse(uint8_t *record) {
  static const uint32_t quiet = 0x1f80;
  trapped = 0;
  __asm__ volatile(
      "movups (%%rdi), %%xmm0\n\t"
      "movups 16(%%rdi), %%xmm1\n\t"
      "movq 16(%%rdi), %%mm1\n\t"
      "movq 16(%%rdi), %%rax\n\t"
      "movl 56(%%rdi), %%ecx\n\t"
      "pushq %%rcx\n\t"
      "popfq\n\t"
      "ldmxcsr 48(%%rdi)\n\t"
      "call *%[code]\n\t"
      "stmxcsr 48(%%rdi)\n\t"
      "ldmxcsr %[quiet]\n\t"
      "pushfq\n\t"
      "popq %%rcx\n\t"
      "movl %%ecx, 56(%%rdi)\n\t"
      "movups %%xmm0, (%%rdi)\n\t"
      "movq %%mm0, 32(%%rdi)\n\t"
      "movq %%rax, 40(%%rdi)\n\t"
      "emms\n\t"
      "cld\n\t"
      :
      : "D"(record), [code] "r"(code), [quiet] "m"(quiet)
      : "rax", "rcx", "xmm0", "xmm1", "memory", "cc");
  memcpy(record + 52, (const void *)&trapped, 4);
}

static void run_x87(uint8_t *record) {
  trapped = 0;
  __asm__ volatile(
      "frstor 112(%%rdi)\n\t"
      "xorl %%eax, %%eax\n\t"
      "movl 228(%%rdi), %%ecx\n\t"
      "pushq %%rcx\n\t"
      "popfq\n\t"
      "call *%[code]\n\t"
      "fnsave 112(%%rdi)\n\t"
      "pushfq\n\t"
      "popq %%rcx\n\t"
      "movl %%ecx, 228(%%rdi)\n\t"
      "movq %%rax, 232(%%rdi)\n\t"
      "cld\n\t"
      :
      : "D"(record), [code] "r"(code)
      : "rax", "rcx", "memory", "cc");
  memcpy(record + 224, (const void *)&trapped, 4);
}

int main(void) {
  struct {
    uint32_t kind, count, length;
    uint8_t code[20];
  } header;
  code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) {
    perror("float: no executable page");
    return 1;
  }
  struct sigaction action = {.sa_sigaction = on_sigfpe, .sa_flags = SA_SIGINFO};
  sigaction(SIGFPE, &action, NULL);

  while (fread(&header, sizeof header, 1, stdin) == 1) {
    size_t size = header.kind == 0 ? 96 : 256;
    uint8_t *records = malloc(size * header.count);
    if (records == NULL || header.length >= sizeof header.code || fread(records, size, header.count, stdin) != header.count) {
      fprintf(stderr, "float: a batch is cut short\n");
      return 1;
    }
    code_length = header.length;
    memcpy(code, header.code, header.length);
    code[header.length] = 0xc3;
    for (uint32_t i = 0; i < header.count; i++) {
      if (header.kind == 0) run_sse(records + i * size);
      else run_x87(records + i * size);
    }
    if (fwrite(records, size, header.count, stdout) != header.count) return 1;
    free(records);
  }
  return fflush(stdout) == 0 ? 0 : 1;
}
