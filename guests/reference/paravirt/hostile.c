#include "hostile.h"
#include "console.h"

/* Random numbers for hostile calls, of the sizes that hurt. */
static u64 state;

u64 hostile_seed(void) {
  const char *digits = word_value("hostile=");
  u64 seed = 0;
  for (; digits && *digits >= '0' && *digits <= '9'; digits++) seed = seed * 10 + (u64)(*digits - '0');
  state = seed * 0x9e3779b97f4a7c15 + 1;
  return seed;
}

u64 hostile_random(u64 below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (state >> 16) % below;
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
