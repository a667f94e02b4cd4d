/*
 * Fills memory with numbers that follow from a seed and their place, then checks that they are still there:
 * memory-fill MEGABYTES SEED ROUNDS. Each round writes every page anew and reads all of them in another order.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define PAGE 4096
#define STEP 8191

static uint64_t mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  return value ^ (value >> 27);
}

int main(int count, char **arguments) {
  if (count != 4) return 2;
  uint64_t pages = strtoull(arguments[1], NULL, 10) * 1000000 / PAGE, seed = strtoull(arguments[2], NULL, 10);
  int rounds = atoi(arguments[3]);
  uint64_t words = PAGE / sizeof(uint64_t), wrong = 0;
  uint64_t *memory = malloc(pages * PAGE);
  if (memory == NULL) return 3;
  for (int round = 0; round < rounds; round++) {
    for (uint64_t page = 0; page < pages; page++)
      for (uint64_t word = 0; word < words; word += 8) memory[page * words + word] = mix(seed + round + page * words + word);
    for (uint64_t step = 0; step < pages; step++) {
      uint64_t page = step * STEP % pages;
      for (uint64_t word = 0; word < words; word += 8)
        if (memory[page * words + word] != mix(seed + round + page * words + word)) wrong++;
    }
  }
  printf("filled %llu pages, %llu words wrong\n", (unsigned long long)pages, (unsigned long long)wrong);
  return wrong != 0;
}
