/*
 * Two threads on two processors. One replaces the page behind an address again and again, the other reads through
 * it: it must see each new page at once, however its translations are cached, and fault when the page is gone.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ROUNDS 400
#define PAGE 4096

static volatile int *const page = (volatile int *)0x600000000000;
/* The round that the reader may look at, and the last that it has seen. A negative round has no page. */
static volatile int asked, answered;
static volatile int wrong;
static sigjmp_buf out;

static void on_fault(int signal) {
  (void)signal;
  siglongjmp(out, 1);
}

static void pin(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) {
    perror("sched_setaffinity");
    exit(1);
  }
}

static void *reader(void *unused) {
  pin(1);
  for (int round = 1; round <= ROUNDS; round++) {
    for (int gone = 0; gone < 2; gone++) {
      int expected = gone ? -round : round;
      while (asked != expected) __builtin_ia32_pause();
      int seen;
      if (sigsetjmp(out, 1) == 0) seen = *page;
      else seen = -round;
      if (seen != expected) wrong++;
      answered = expected;
    }
  }
  return unused;
}

static void ask(int round) {
  asked = round;
  while (answered != round) __builtin_ia32_pause();
}

int main(void) {
  signal(SIGSEGV, on_fault);
  pin(0);
  pthread_t thread;
  pthread_create(&thread, NULL, reader, NULL);
  for (int round = 1; round <= ROUNDS; round++) {
    void *mapped = mmap((void *)page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (mapped != (void *)page) {
      perror("mmap");
      return 1;
    }
    *page = round;
    ask(round);
    if (round % 2) munmap((void *)page, PAGE);
    else mprotect((void *)page, PAGE, PROT_NONE);
    ask(-round);
  }
  pthread_join(thread, NULL);
  printf("%d wrong of %d\n", wrong, 2 * ROUNDS);
  return wrong != 0;
}
