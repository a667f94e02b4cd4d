#include "bench.h"
#include "layout.h"
#include "types.h"

/*
 * The program that all processes run: it does to its memory what programs do, and leaves contents that depend on nothing
 * but its process's number. It is linked to run at USER_BASE, and has nothing from the kernel but system calls.
 */
static word call(word number, word a, word b, word c) {
  word result;
  asm volatile("int $0x80" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "memory");
  return result;
}
static void end(void) { call(0, 0, 0, 0); }
static word fork(void) { return call(1, 0, 0, 0); }
static void exec(word argument) { call(2, argument, 0, 0); }
static u64 *map(word pages) { return (u64 *)call(3, pages * PAGE_SIZE, 0, 0); }
static void unmap(u64 *address, word pages) { call(4, (word)address, pages * PAGE_SIZE, 0); }
static void protect(u64 *address, word pages, word is_writable) { call(5, (word)address, pages * PAGE_SIZE, is_writable); }
static u64 *move(u64 *address, word old, word pages) {
  return (u64 *)call(6, (word)address, old * PAGE_SIZE, pages * PAGE_SIZE);
}
static void wait_for(word child) { call(7, child, 0, 0); }
static void park(void) { call(8, 0, 0, 0); }
static void swap(word pages) { call(9, pages, 0, 0); }
static void yield(void) { call(10, 0, 0, 0); }

#define PAGE_WORDS (PAGE_SIZE / 8)

static u64 seed = 0x243f6a8885a308d3;

static u64 random(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

static void scribble(u64 *pages, word count, word stride) {
  for (word page = 0; page < count; page += stride) {
    for (word offset = page % 5; offset < PAGE_WORDS; offset += 7) pages[page * PAGE_WORDS + offset] = random();
  }
}

/* What is read decides what comes next: a page with wrong contents shows in all that follow. */
static void digest(u64 *pages, word count) {
  for (word page = 0; page < count; page++) seed += pages[page * PAGE_WORDS + page % PAGE_WORDS] * 31 + page;
}

static void work(word depth) {
  u64 *memory = map(16);
  scribble(memory, 16, 1);
  protect(memory, 8, 0);
  digest(memory, 16);
  protect(memory, 8, 1);
  scribble(memory, 8, 2);
  memory = move(memory, 16, 24);
  scribble(memory + 16 * PAGE_WORDS, 8, 1);
  unmap(memory + 4 * PAGE_WORDS, 3);
  swap(12);
  digest(memory, 4);
  scribble(memory + 8 * PAGE_WORDS, 16, 3);
  if (depth == 0) return;
  for (word child = 0; child < 2; child++) {
    word number = fork();
    seed += child + 1;
    if (number == 0) {
      scribble(memory, 4, 1);
      work(depth - 1);
      digest(memory + 8 * PAGE_WORDS, 16);
      park();
    }
    scribble(memory + 10 * PAGE_WORDS, 6, 2);
    if (child == 1) wait_for(number);
  }
  if (fork() == 0) exec(depth);
}

static void fork_once(void) {
  word child = fork();
  if (child == 0) end();
  wait_for(child);
}

static void map_once(word pages) {
  u64 *memory = map(pages);
  for (word page = 0; page < pages; page++) memory[page * PAGE_WORDS] = page;
  unmap(memory, pages);
}

/* In pieces that fit into memory. */
static void fault(word times) {
  for (; times > BENCH_MOST_FAULTS; times -= BENCH_MOST_FAULTS) map_once(BENCH_MOST_FAULTS);
  if (times > 0) map_once(times);
}

/* Two processes that give way to each other. */
static void give_way(word times) {
  word child = fork();
  for (word turn = 0; turn < times / 2; turn++) yield();
  if (child == 0) end();
  wait_for(child);
}

static void repeat(word argument) {
  word times = argument & BENCH_TIMES_MASK;
  switch (argument >> BENCH_ITEM_SHIFT & BENCH_ITEM_MASK) {
    case 0:
      for (word turn = 0; turn < times; turn++) fork_once();
      break;
    case 1:
      if (times > 0) exec(argument - 1);
      break;
    case 2:
      for (word turn = 0; turn < times; turn++) map_once(BENCH_MAPPED_PAGES);
      break;
    case 3:
      fault(times);
      break;
    case 4:
      give_way(times);
      break;
  }
}

/* First in the image. */
__attribute__((section(".user.start"))) void start(word argument) {
  if (argument & BENCH_ARGUMENT) {
    repeat(argument);
  } else if (argument == 0) {
    work(2);
    if (fork() == 0) end();
  } else {
    u64 *memory = map(6);
    seed += argument;
    scribble(memory, 6, 2);
    swap(4);
    digest(memory, 6);
  }
  park();
}
