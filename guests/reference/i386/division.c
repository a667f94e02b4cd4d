#include "types.h"

/* Divisions of 64 bits, which the compiler calls: a bit at a time, since nothing that is done often needs them. */
u64 __udivmoddi4(u64 dividend, u64 divisor, u64 *remainder) {
  u64 quotient = 0, rest = 0;
  for (u32 bit = 0; bit < 64; bit++) {
    u32 carry = (u32)(rest >> 63);
    rest = rest << 1 | dividend >> 63;
    dividend <<= 1;
    quotient <<= 1;
    if (carry || rest >= divisor) {
      rest -= divisor;
      quotient |= 1;
    }
  }
  *remainder = rest;
  return quotient;
}

u64 __udivdi3(u64 dividend, u64 divisor) {
  u64 remainder;
  return __udivmoddi4(dividend, divisor, &remainder);
}

u64 __umoddi3(u64 dividend, u64 divisor) {
  u64 remainder;
  __udivmoddi4(dividend, divisor, &remainder);
  return remainder;
}
