import {
  add,
  and,
  clz,
  ctz,
  divS,
  divU,
  eq,
  eqz,
  extendU,
  type I32,
  type I64,
  i32,
  i64,
  mul,
  ne,
  or,
  popcnt,
  remS,
  remU,
  select,
  shl,
  shrS,
  shrU,
  signExtend,
  store64,
  sub,
  xor,
  zeroExtend,
} from '../../wasm/expression.ts';
import { Vector } from '../../x86/registers.ts';
import { State } from '../state.ts';
import type { Context, Semantics } from './context.ts';
import { sizeOf } from './operand-size.ts';

const CF = 0x1;
const _AF = 0x10;
const ZF = 0x40;
const OF = 0x800;
const RAX = 0;
const RDX = 2;

function bit(value: I32, mask: number): I64 {
  return select(value, i64(mask), i64(0));
}

type Binary = (c: Context, size: number, a: I64, b: I64) => { result: I64; flags: () => void };

/** Destination := destination op source; one translation of a memory destination. */
function updating(operation: Binary): Semantics {
  return (c) => {
    const size = sizeOf(c);
    const b = c.let(c.readSigned(1));
    let flags = () => {};
    c.update(
      0,
      (a) => {
        const outcome = operation(c, size, a, b);
        flags = outcome.flags;
        return outcome.result;
      },
      () => flags(),
    );
  };
}

const addition: Binary = (c, size, a, b) => {
  const result = c.let(signExtend(add(a, b), size));
  return { result, flags: () => c.setFlagsAdd(a, b, result) };
};
const subtraction: Binary = (c, size, a, b) => {
  const result = c.let(signExtend(sub(a, b), size));
  return { result, flags: () => c.setFlagsSub(a, b, result) };
};
const additionWithCarry: Binary = (c, size, a, b) => {
  const result = c.let(signExtend(add(add(a, b), c.carry()), size));
  return { result, flags: () => c.setFlagsAdd(a, b, result) };
};
const subtractionWithBorrow: Binary = (c, size, a, b) => {
  const result = c.let(signExtend(sub(sub(a, b), c.carry()), size));
  return { result, flags: () => c.setFlagsSbb(a, b, result) };
};
const logic =
  (combine: (a: I64, b: I64) => I64): Binary =>
  (c, _size, a, b) => {
    const result = c.let(combine(a, b));
    return { result, flags: () => c.setFlagsLogic(result) };
  };

const compare: Semantics = (c) => {
  const a = c.let(c.readSigned(0));
  const b = c.let(c.readSigned(1));
  c.setFlagsSub(a, b, c.let(signExtend(sub(a, b), sizeOf(c))));
};

const test: Semantics = (c) => {
  const a = c.let(c.readSigned(0));
  const b = c.let(c.readSigned(1));
  c.setFlagsLogic(c.let(and(a, b)));
};

/** INC and DEC keep CF. */
const step =
  (up: boolean): Semantics =>
  (c) => {
    const size = sizeOf(c);
    let result: I64 = i64(0);
    c.update(
      0,
      (a) => {
        result = c.let(signExtend(up ? add(a, i64(1)) : sub(a, i64(1)), size));
        return result;
      },
      (a) => c.setFlagsStep(up, a, result),
    );
  };

const negate: Semantics = (c) => {
  const size = sizeOf(c);
  let result: I64 = i64(0);
  c.update(
    0,
    (a) => {
      result = c.let(signExtend(sub(i64(0), a), size));
      return result;
    },
    (a) => c.setFlagsSub(i64(0), a, result),
  );
};

const invert: Semantics = (c) => {
  c.update(
    0,
    (a) => xor(a, i64(-1)),
    () => {},
  );
};

/** High 64 bits of an unsigned 64 × 64 product. */
function highProduct(c: Context, a: I64, b: I64): I64 {
  const low = (value: I64) => and(value, i64(0xffff_ffffn));
  const high = (value: I64) => shrU(value, i64(32));
  const [al, ah, bl, bh] = [c.let(low(a)), c.let(high(a)), c.let(low(b)), c.let(high(b))];
  const middle1 = c.let(add(mul(ah, bl), high(mul(al, bl))));
  const middle2 = c.let(add(mul(al, bh), low(middle1)));
  return c.let(add(add(mul(ah, bh), high(middle1)), high(middle2)));
}

function highProductSigned(c: Context, a: I64, b: I64): I64 {
  const unsigned = highProduct(c, a, b);
  const correction = add(and(shrS(a, i64(63)), b), and(shrS(b, i64(63)), a));
  return c.let(sub(unsigned, correction));
}

/** One-operand MUL and IMUL: (R)DX:(R)AX := (R)AX × operand. */
const multiplyWide =
  (signed: boolean): Semantics =>
  (c) => {
    const size = c.shape.operands[0]?.size ?? 4;
    const b = c.let(signed ? c.readSigned(0) : c.read(0));
    const a = c.let(c.register(RAX, size, signed));
    const product = c.let(mul(a, b));
    let overflow: I32;
    if (size === 8) {
      const high = signed ? highProductSigned(c, a, b) : highProduct(c, a, b);
      c.setRegister(RAX, 8, product);
      c.setRegister(RDX, 8, high);
      overflow = ne(high, signed ? shrS(product, i64(63)) : i64(0));
    } else if (size === 1) {
      c.setRegister(RAX, 2, product);
      overflow = ne(product, signed ? signExtend(product, 1) : zeroExtend(product, 1));
    } else {
      c.setRegister(RAX, size, product);
      c.setRegister(RDX, size, shrU(product, i64(size * 8)));
      overflow = ne(product, signed ? signExtend(product, size) : zeroExtend(product, size));
    }
    c.setFlagsResult(c.let(signExtend(product, size)), c.let(bit(overflow, CF | OF)));
  };

/** Two- and three-operand IMUL; the one-operand form is `multiplyWide`. */
const multiplySigned: Semantics = (c) => {
  const count = c.shape.operands.length;
  if (count === 1) {
    multiplyWide(true)(c);
    return;
  }
  const size = sizeOf(c);
  const a = c.let(count === 3 ? c.readSigned(1) : c.readSigned(0));
  const b = c.let(count === 3 ? c.readSigned(2) : c.readSigned(1));
  const product = c.let(mul(a, b));
  const result = c.let(signExtend(product, size));
  const overflow = c.let(size === 8 ? ne(highProductSigned(c, a, b), shrS(product, i64(63))) : ne(product, result));
  c.write(0, result);
  c.setFlagsResult(result, c.let(bit(overflow, CF | OF)));
};

/** DIV and IDIV. What does not fit a 64-bit division goes to the host. All flags are undefined and stay. */
const divide =
  (signed: boolean): Semantics =>
  (c) => {
    const size = c.shape.operands[0]?.size ?? 4;
    const divisor = c.let(signed ? c.readSigned(0) : c.read(0));
    c.fn.if(eqz(divisor), () => c.raise(Vector.divideError));
    if (size === 8) {
      const low = c.let(c.register(RAX, 8));
      const high = c.let(c.register(RDX, 8));
      const short = signed ? and(eq(high, shrS(low, i64(63))), ne(divisor, i64(-1))) : eqz(high);
      c.fn.if(
        short,
        () => {
          c.setRegister(RAX, 8, signed ? divS(low, divisor) : divU(low, divisor));
          c.setRegister(RDX, 8, signed ? remS(low, divisor) : remU(low, divisor));
        },
        () => {
          c.fn.store(store64(c.state, divisor, State.missValue));
          c.checked(c.host('divide', i32(signed ? 1 : 0)));
        },
      );
      return;
    }
    const bits = i64(size * 8);
    const dividend = c.let(
      size === 1
        ? c.register(RAX, 2, signed)
        : signed
          ? or(shl(c.register(RDX, size, true), bits), c.register(RAX, size))
          : or(shl(c.register(RDX, size), bits), c.register(RAX, size)),
    );
    // The one overflow of a 64-bit signed division; with a 32-bit quotient it is out of range anyway.
    if (signed && size === 4) {
      c.fn.if(and(eq(dividend, i64(-(2n ** 63n))), eq(divisor, i64(-1))), () => c.raise(Vector.divideError));
    }
    const quotient = c.let(signed ? divS(dividend, divisor) : divU(dividend, divisor));
    const fits = signed ? signExtend(quotient, size) : zeroExtend(quotient, size);
    c.fn.if(ne(quotient, fits), () => c.raise(Vector.divideError));
    const remainder = c.let(signed ? remS(dividend, divisor) : remU(dividend, divisor));
    if (size === 1) {
      c.setRegister(RAX, 2, or(zeroExtend(quotient, 1), shl(zeroExtend(remainder, 1), i64(8))));
    } else {
      c.setRegister(RAX, size, quotient);
      c.setRegister(RDX, size, remainder);
    }
  };

/** CBW, CWDE, CDQE. */
const extendAccumulator: Semantics = (c) => {
  const size = c.shape.operandSize;
  c.setRegister(RAX, size, c.let(c.register(RAX, size / 2, true)));
};

/** CWD, CDQ, CQO. */
const extendToData: Semantics = (c) => {
  const size = c.shape.operandSize;
  c.setRegister(RDX, size, shrS(c.register(RAX, size, true), i64(63)));
};

const exchangeAdd: Semantics = (c) => {
  const size = sizeOf(c);
  const b = c.let(c.readSigned(1));
  let result: I64 = i64(0);
  c.update(
    0,
    (a) => {
      result = c.let(signExtend(add(a, b), size));
      return result;
    },
    (a) => {
      c.setFlagsAdd(a, b, result);
      // `update` writes a register destination after this: with equal registers the sum is what stays.
      c.write(1, a);
    },
  );
};

const compareExchange: Semantics = (c) => {
  const size = sizeOf(c);
  const source = c.let(c.readSigned(1));
  const accumulator = c.let(c.register(RAX, size, true));
  const equal = c.fn.local('i32');
  if (c.shape.memory !== 'none') {
    c.update(
      0,
      (old) => {
        c.fn.set(equal, eq(old, accumulator));
        return select(equal, source, old);
      },
      (old) => {
        c.fn.if(eqz(equal), () => c.setRegister(RAX, size, old));
        c.setFlagsSub(accumulator, old, c.let(signExtend(sub(accumulator, old), size)));
      },
    );
    return;
  }
  const old = c.let(c.readSigned(0));
  c.fn.if(
    eq(old, accumulator),
    () => c.write(0, source),
    () => c.setRegister(RAX, size, old),
  );
  c.setFlagsSub(accumulator, old, c.let(signExtend(sub(accumulator, old), size)));
};

const byteSwap: Semantics = (c) => {
  const size = sizeOf(c);
  const value = c.let(c.read(0));
  if (size === 2) {
    // Undefined by the manual; processors clear the word.
    c.write(0, i64(0));
    return;
  }
  const ones = (mask: bigint) => i64(mask);
  const step8 = c.let(
    or(and(shrU(value, i64(8)), ones(0x00ff_00ff_00ff_00ffn)), shl(and(value, ones(0x00ff_00ff_00ff_00ffn)), i64(8))),
  );
  const step16 = c.let(
    or(and(shrU(step8, i64(16)), ones(0x0000_ffff_0000_ffffn)), shl(and(step8, ones(0x0000_ffff_0000_ffffn)), i64(16))),
  );
  c.write(0, size === 4 ? step16 : or(shrU(step16, i64(32)), shl(step16, i64(32))));
};

/** BSF and BSR leave the destination alone when the source is zero, as processors do. */
const scan =
  (forward: boolean): Semantics =>
  (c) => {
    const source = c.let(c.read(1));
    const zero = c.let(eqz(source));
    c.fn.if(
      zero,
      () => {
        // A 32-bit destination keeps its upper half too.
      },
      () => c.write(0, forward ? ctz(source) : sub(i64(63), clz(source))),
    );
    // ZF is defined; the other five are undefined and follow the source here.
    c.setFlagsLogic(c.let(signExtend(source, sizeOf(c))));
  };

const countOnes: Semantics = (c) => {
  const source = c.let(c.read(1));
  c.write(0, popcnt(source));
  c.setFlagsExplicit(extendU(select(eqz(source), i32(0x40), i32(0))));
};

/** CRC-32C of the source's bytes, one bit after another; the polynomial is reflected. */
const checksum: Semantics = (c) => {
  const size = c.shape.operands[1]?.size ?? 4;
  const source = c.let(c.read(1));
  const crc = c.fn.local('i64');
  const rest = c.fn.local('i64');
  const count = c.fn.local('i32');
  c.fn.set(crc, zeroExtend(c.read(0), 4));
  c.fn.set(rest, source);
  c.fn.set(count, i32(size));
  c.fn.loop((next) => {
    c.fn.set(crc, xor(crc, and(rest, i64(0xff))));
    for (let step = 0; step < 8; step++) {
      c.fn.set(crc, xor(shrU(crc, i64(1)), and(sub(i64(0), and(crc, i64(1))), i64(0x82f6_3b78n))));
    }
    c.fn.set(rest, shrU(rest, i64(8)));
    c.fn.set(count, sub(count, i32(1)));
    c.fn.branchIf(ne(count, i32(0)), next);
  });
  c.write(0, crc);
};

const RCX = 1;
const RBX = 3;

/** One translation: a live page-table entry must never be seen half written. The memory is written in both outcomes. */
const compareExchange8: Semantics = (c) => {
  const pair = (low: number, high: number) => or(c.register(low, 4), shl(c.register(high, 4), i64(32)));
  const expected = c.let(pair(RAX, RDX));
  const equal = c.fn.local('i32');
  c.update(
    0,
    (old) => {
      c.fn.set(equal, eq(old, expected));
      return select(equal, pair(RBX, RCX), old);
    },
    (old) => {
      const flags = c.let(and(c.flags(), i64(~ZF)));
      c.fn.if(eqz(equal), () => {
        c.setRegister(RAX, 4, old);
        c.setRegister(RDX, 4, shrU(old, i64(32)));
      });
      c.setFlagsExplicit(or(flags, bit(equal, ZF)));
    },
  );
};

const compareExchange16: Semantics = (c) => {
  const address = c.let(c.address(16, true));
  c.fn.if(ne(and(address, i64(15)), i64(0)), () => c.raise(Vector.generalProtection));
  // What can be read may still be read-only: the first access is the write's.
  c.probeWrite(address, 16);
  const low = c.let(c.load(8, address));
  const high = c.let(c.load(8, add(address, i64(8))));
  const equal = c.let(and(eq(low, c.register(RAX, 8)), eq(high, c.register(RDX, 8))));
  const flags = c.let(and(c.flags(), i64(~ZF)));
  c.store(8, address, select(equal, c.register(RBX, 8), low));
  c.store(8, add(address, i64(8)), select(equal, c.register(RCX, 8), high));
  c.fn.if(eqz(equal), () => {
    c.setRegister(RAX, 8, low);
    c.setRegister(RDX, 8, high);
  });
  c.setFlagsExplicit(or(flags, bit(equal, ZF)));
};

export const INTEGER_ARITHMETIC: readonly (readonly [string, Semantics])[] = [
  ['add', updating(addition)],
  ['sub', updating(subtraction)],
  ['adc', updating(additionWithCarry)],
  ['sbb', updating(subtractionWithBorrow)],
  ['and', updating(logic(and))],
  ['or', updating(logic(or))],
  ['xor', updating(logic(xor))],
  ['cmp', compare],
  ['test', test],
  ['inc', step(true)],
  ['dec', step(false)],
  ['neg', negate],
  ['not', invert],
  ['mul', multiplyWide(false)],
  ['imul', multiplySigned],
  ['div', divide(false)],
  ['idiv', divide(true)],
  ['cbw', extendAccumulator],
  ['cwd', extendToData],
  ['xadd', exchangeAdd],
  ['cmpxchg', compareExchange],
  ['cmpxchg8b', compareExchange8],
  ['cmpxchg16b', compareExchange16],
  ['bswap', byteSwap],
  ['bsf', scan(true)],
  ['bsr', scan(false)],
  ['popcnt', countOnes],
  ['crc32', checksum],
];
