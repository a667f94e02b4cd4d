/*
 * What changes page tables, each many times in a row: fork, exec, mmap, page faults, context switches. In front of each
 * and behind it the program says so and waits for a line, so that whoever watches can look at counters meanwhile.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES_PER_MAPPING 16

static const char *self;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void wait_for_line(const char *what, const char *name) {
  printf("%s %s\n", what, name);
  fflush(stdout);
  char character;
  do {
    if (read(0, &character, 1) != 1) fail("read");
  } while (character != '\n');
}

static void wait_for(pid_t child) {
  int status;
  if (waitpid(child, &status, 0) != child || status != 0) fail("waitpid");
}

static void do_fork(int times) {
  for (int i = 0; i < times; i++) {
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) _exit(0);
    wait_for(child);
  }
}

static void do_exec(int times) {
  for (int i = 0; i < times; i++) {
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
      execl(self, self, "end", (char *)NULL);
      _exit(1);
    }
    wait_for(child);
  }
}

static void do_mmap(int times) {
  for (int i = 0; i < times; i++) {
    void *area = mmap(NULL, PAGES_PER_MAPPING * PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (area == MAP_FAILED) fail("mmap");
    munmap(area, PAGES_PER_MAPPING * PAGE);
  }
}

static void do_fault(int times) {
  char *area = mmap(NULL, (size_t)times * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area == MAP_FAILED) fail("mmap");
  madvise(area, (size_t)times * PAGE, MADV_NOHUGEPAGE);
  for (int i = 0; i < times; i++) area[(size_t)i * PAGE] = 1;
  munmap(area, (size_t)times * PAGE);
}

/* A byte goes to another process and back: two switches. */
static void do_switch(int times) {
  int there[2], back[2];
  if (pipe(there) != 0 || pipe(back) != 0) fail("pipe");
  char byte = 0;
  pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    for (int i = 0; i < times / 2; i++)
      if (read(there[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1) _exit(1);
    _exit(0);
  }
  for (int i = 0; i < times / 2; i++)
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) fail("pipe");
  wait_for(child);
  for (int end = 0; end < 2; end++) {
    close(there[end]);
    close(back[end]);
  }
}

static const struct {
  const char *name;
  void (*run)(int times);
} operations[] = {
    {"fork", do_fork}, {"exec", do_exec}, {"mmap", do_mmap}, {"fault", do_fault}, {"switch", do_switch},
};

/* Arguments: how many times each, in the order above. */
int main(int count, char **arguments) {
  if (count == 2 && strcmp(arguments[1], "end") == 0) return 0;
  self = arguments[0];
  for (int i = 0; i < (int)(sizeof operations / sizeof *operations) && i + 1 < count; i++) {
    int times = atoi(arguments[i + 1]);
    operations[i].run(times);
    wait_for_line("begin", operations[i].name);
    operations[i].run(times);
    wait_for_line("end", operations[i].name);
  }
  return 0;
}
