#include "bench.h"
#include "layout.h"
#include "types.h"

/*
 * The program that all processes run: it does to its memory what programs do, and leaves contents that depend on nothing
 * but its process's number. It is linked to run at USER_BASE, and has nothing from the kernel but system calls.
 */
static u64 call(u64 number, u64 a, u64 b, u64 c) {
  u64 result;
  asm volatile("int $0x80" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "memory");
  return result;
}
static void end(void) { call(0, 0, 0, 0); }
static u64 fork(void) { return call(1, 0, 0, 0); }
static void exec(u64 argument) { call(2, argument, 0, 0); }
static u64 *map(u64 pages) { return (u64 *)call(3, pages * PAGE_SIZE, 0, 0); }
static void unmap(u64 *address, u64 pages) { call(4, (u64)address, pages * PAGE_SIZE, 0); }
static void protect(u64 *address, u64 pages, u64 is_writable) { call(5, (u64)address, pages * PAGE_SIZE, is_writable); }
static u64 *move(u64 *address, u64 old, u64 pages) {
  return (u64 *)call(6, (u64)address, old * PAGE_SIZE, pages * PAGE_SIZE);
}
static void wait_for(u64 child) { call(7, child, 0, 0); }
static void park(void) { call(8, 0, 0, 0); }
static void swap(u64 pages) { call(9, pages, 0, 0); }
static void yield(void) { call(10, 0, 0, 0); }

#define PAGE_WORDS (PAGE_SIZE / 8)

static u64 seed = 0x243f6a8885a308d3;

static u64 random(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

static void scribble(u64 *pages, u64 count, u64 stride) {
  for (u64 page = 0; page < count; page += stride) {
    for (u64 word = page % 5; word < PAGE_WORDS; word += 7) pages[page * PAGE_WORDS + word] = random();
  }
}

/* What is read decides what comes next: a page with wrong contents shows in all that follow. */
static void digest(u64 *pages, u64 count) {
  for (u64 page = 0; page < count; page++) seed += pages[page * PAGE_WORDS + page % PAGE_WORDS] * 31 + page;
}

static void work(u64 depth) {
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
  for (u64 child = 0; child < 2; child++) {
    u64 number = fork();
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
  u64 child = fork();
  if (child == 0) end();
  wait_for(child);
}

static void map_once(u64 pages) {
  u64 *memory = map(pages);
  for (u64 page = 0; page < pages; page++) memory[page * PAGE_WORDS] = page;
  unmap(memory, pages);
}

/* In pieces that fit into memory. */
static void fault(u64 times) {
  for (; times > BENCH_MOST_FAULTS; times -= BENCH_MOST_FAULTS) map_once(BENCH_MOST_FAULTS);
  if (times > 0) map_once(times);
}

/* Two processes that give way to each other. */
static void give_way(u64 times) {
  u64 child = fork();
  for (u64 turn = 0; turn < times / 2; turn++) yield();
  if (child == 0) end();
  wait_for(child);
}

static void repeat(u64 argument) {
  u64 times = argument >> BENCH_TIMES_SHIFT;
  switch (argument >> BENCH_ITEM_SHIFT & BENCH_ITEM_MASK) {
    case 0:
      for (u64 turn = 0; turn < times; turn++) fork_once();
      break;
    case 1:
      if (times > 0) exec(argument - (1UL << BENCH_TIMES_SHIFT));
      break;
    case 2:
      for (u64 turn = 0; turn < times; turn++) map_once(BENCH_MAPPED_PAGES);
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
__attribute__((section(".user.start"))) void start(u64 argument) {
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
