import {
  add,
  and,
  eq,
  eqz,
  extendU,
  gtU,
  type I64,
  i64,
  ne,
  or,
  remU,
  rotl,
  rotr,
  select,
  shl,
  shrS,
  shrU,
  signExtend,
  sub,
  wrap,
  xor,
  zeroExtend,
} from '../../wasm/expression.ts';
import { OperandKind } from '../decode/instruction.ts';
import type { Context, Semantics } from './context.ts';
import { sizeOf, sizeShift } from './operand-size.ts';

const CF = 1n;
const OF = 0x800n;
const OF_SHIFT = 11;

/** The count, masked as processors do: 6 bits for 64-bit operands, 5 for all others. */
function countOf(c: Context, operand: number, size: number): I64 {
  return c.let(and(c.read(operand), i64(size === 8 ? 0x3f : 0x1f)));
}

/**
 * A zero count changes nothing, not even flags, but a memory operand is still read and written.
 * `flags` gets the old value and stores all flags.
 */
function shifting(shift: (c: Context, size: number, value: I64, count: I64) => I64, flags: ShiftFlags): Semantics {
  return (c) => {
    const size = sizeOf(c);
    const count = countOf(c, 1, size);
    let result: I64 = i64(0);
    c.update(
      0,
      (value) => {
        result = c.let(signExtend(shift(c, size, value, count), size));
        return result;
      },
      (value) => {
        c.fn.if(ne(count, i64(0)), () => c.setFlagsResult(result, c.let(flags(c, size, value, count, result))));
      },
    );
  };
}

type ShiftFlags = (c: Context, size: number, value: I64, count: I64, result: I64) => I64;

/** CF is the last bit shifted out, OF (defined for count 1) whether the sign changed. */
const leftFlags: ShiftFlags = (c, size, value, count, result) => {
  const bits = i64(size * 8);
  const unsigned = zeroExtend(value, size);
  // For counts above the width nothing is left to shift out.
  const last = shrU(unsigned, sub(bits, count));
  const carry = c.let(and(size === 8 ? last : select(gtU(count, bits), i64(0), last), i64(CF)));
  const sign = and(shrU(result, i64(63)), i64(1));
  return or(carry, shl(xor(sign, carry), i64(OF_SHIFT)));
};

const rightFlags =
  (arithmetic: boolean): ShiftFlags =>
  (c, size, value, count) => {
    const operand = arithmetic ? value : zeroExtend(value, size);
    const before = sub(count, i64(1));
    const carry = c.let(and(arithmetic ? shrS(operand, before) : shrU(operand, before), i64(CF)));
    if (arithmetic) return carry;
    // OF is the sign of the original for count 1; processors compute it the same way for all counts: sign ^ next bit of the result.
    const overflow = select(eq(count, i64(1)), and(shrU(value, i64(63)), i64(1)), i64(0));
    return or(carry, shl(overflow, i64(OF_SHIFT)));
  };

const shiftLeft = shifting((_c, _size, value, count) => shl(value, count), leftFlags);
const shiftRight = shifting((_c, size, value, count) => shrU(zeroExtend(value, size), count), rightFlags(false));
const shiftArithmetic = shifting((_c, _size, value, count) => shrS(value, count), rightFlags(true));

/** Rotates change CF and OF only; a masked count of zero changes nothing. */
const rotate =
  (left: boolean): Semantics =>
  (c) => {
    const size = sizeOf(c);
    const width = size * 8;
    const count = countOf(c, 1, size);
    let result: I64 = i64(0);
    c.update(
      0,
      (value) => {
        if (size === 8) {
          result = c.let(left ? rotl(value, count) : rotr(value, count));
        } else if (size === 4) {
          const low = wrap(value);
          result = c.let(extendU(left ? rotl(low, wrap(count)) : rotr(low, wrap(count))));
        } else {
          const turn = c.let(and(count, i64(width - 1)));
          const unsigned = c.let(zeroExtend(value, size));
          const away = sub(i64(width), turn);
          const turned = left
            ? or(shl(unsigned, turn), shrU(unsigned, away))
            : or(shrU(unsigned, turn), shl(unsigned, away));
          result = c.let(zeroExtend(turned, size));
        }
        return result;
      },
      () => {
        c.fn.if(ne(count, i64(0)), () => {
          const top = c.let(and(shrU(result, i64(width - 1)), i64(1)));
          const carry = c.let(left ? and(result, i64(1)) : top);
          const overflow = left ? xor(top, carry) : xor(top, and(shrU(result, i64(width - 2)), i64(1)));
          setCarryOverflow(c, carry, overflow);
        });
      },
    );
  };

function setCarryOverflow(c: Context, carry: I64, overflow: I64): void {
  const kept = and(c.flags(), i64(~(CF | OF)));
  c.setFlagsExplicit(or(or(kept, carry), shl(overflow, i64(OF_SHIFT))));
}

/** RCL and RCR turn through CF: width + 1 positions. */
const rotateThroughCarry =
  (left: boolean): Semantics =>
  (c) => {
    const size = sizeOf(c);
    const width = size * 8;
    const masked = countOf(c, 1, size);
    const count = c.let(size >= 4 ? masked : remU(masked, i64(width + 1)));
    const carryIn = c.let(c.carry());
    let result: I64 = i64(0);
    let carryOut: I64 = i64(0);
    c.update(
      0,
      (value) => {
        const unsigned = c.let(zeroExtend(value, size));
        const none = c.let(eqz(count));
        // Shifts of a full width are split in two, so that WebAssembly's modulo counts do no harm.
        const beyond = c.let(sub(i64(width), count));
        if (left) {
          const high = shl(unsigned, count);
          const middle = shl(carryIn, sub(count, i64(1)));
          const low = shrU(shrU(unsigned, beyond), i64(1));
          result = c.let(select(none, unsigned, zeroExtend(or(or(high, middle), low), size)));
          carryOut = c.let(select(none, carryIn, and(shrU(unsigned, beyond), i64(1))));
        } else {
          const low = shrU(unsigned, count);
          const middle = shl(carryIn, beyond);
          const high = shl(shl(unsigned, beyond), i64(1));
          result = c.let(select(none, unsigned, zeroExtend(or(or(low, middle), high), size)));
          carryOut = c.let(select(none, carryIn, and(shrU(unsigned, sub(count, i64(1))), i64(1))));
        }
        return result;
      },
      () => {
        c.fn.if(ne(masked, i64(0)), () => {
          const top = c.let(and(shrU(result, i64(width - 1)), i64(1)));
          const overflow = left ? xor(top, carryOut) : xor(top, and(shrU(result, i64(width - 2)), i64(1)));
          setCarryOverflow(c, carryOut, overflow);
        });
      },
    );
  };

/** SHLD and SHRD. Counts above the width of 16-bit operands are undefined; processors turn through both words. */
const doubleShift =
  (left: boolean): Semantics =>
  (c) => {
    const size = sizeOf(c);
    const width = size * 8;
    const count = countOf(c, 2, size);
    const filler = c.let(c.read(1));
    let result: I64 = i64(0);
    let carry: I64 = i64(0);
    c.update(
      0,
      (old) => {
        const value = c.let(zeroExtend(old, size));
        const away = c.let(sub(i64(width), count));
        if (size === 8) {
          const none = eqz(count);
          const moved = left ? or(shl(value, count), shrU(filler, away)) : or(shrU(value, count), shl(filler, away));
          result = c.let(select(none, value, moved));
          carry = c.let(and(left ? shrU(value, away) : shrU(value, sub(count, i64(1))), i64(1)));
        } else if (size === 4) {
          // Both words side by side fit 64 bits.
          const pair = c.let(left ? or(shl(value, i64(32)), filler) : or(shl(filler, i64(32)), value));
          const moved = left ? shrU(shl(pair, count), i64(32)) : shrU(pair, count);
          result = c.let(signExtend(moved, 4));
          carry = c.let(and(left ? shrU(pair, sub(i64(64), count)) : shrU(pair, sub(count, i64(1))), i64(1)));
        } else {
          // value : filler : value, 48 bits, so that counts up to 31 bring the first word round again.
          const triple = c.let(or(or(shl(value, i64(32)), shl(filler, i64(16))), value));
          const moved = left ? shrU(shl(triple, count), i64(32)) : shrU(triple, count);
          result = c.let(signExtend(moved, 2));
          carry = c.let(and(left ? shrU(triple, sub(i64(48), count)) : shrU(triple, sub(count, i64(1))), i64(1)));
        }
        return result;
      },
      (old) => {
        c.fn.if(ne(count, i64(0)), () => {
          const signed = c.let(signExtend(result, size));
          const changed = and(shrU(xor(signed, old), i64(63)), i64(1));
          c.setFlagsResult(signed, c.let(or(carry, shl(changed, i64(OF_SHIFT)))));
        });
      },
    );
  };

/**
 * BT, BTS, BTR, BTC. With a register bit index a memory operand is a bit string: the index selects the word as well.
 * Only CF changes.
 */
const bitTest =
  (change: ((value: I64, mask: I64) => I64) | null): Semantics =>
  (c) => {
    const size = sizeOf(c);
    const width = size * 8;
    const string = c.shape.memory !== 'none' && c.shape.operands[1]?.kind === OperandKind.gpr;
    const index = c.let(c.readSigned(1));
    const position = c.let(and(index, i64(width - 1)));
    const setCarry = (value: I64) => {
      const carry = and(shrU(value, position), i64(1));
      c.setFlagsExplicit(or(and(c.flags(), i64(~CF)), carry));
    };
    const compute = (value: I64) => (change ? change(value, c.let(shl(i64(1), position))) : value);
    if (!string) {
      if (change) c.update(0, compute, setCarry);
      else setCarry(c.let(c.read(0)));
      return;
    }
    // Whole words to the bit, in bytes.
    const displacement = shl(shrS(index, i64(sizeShift(size) + 3)), i64(sizeShift(size)));
    const offset = add(c.effectiveOffset(), displacement);
    const masked = c.shape.addressSize === 8 ? offset : zeroExtend(offset, c.shape.addressSize);
    const address = c.let(c.linear(masked, size, change !== null));
    if (change) c.updateAt(size, address, compute, setCarry);
    else setCarry(c.let(c.load(size, address)));
  };

export const INTEGER_SHIFT: readonly (readonly [string, Semantics])[] = [
  ['shl', shiftLeft],
  ['shr', shiftRight],
  ['sar', shiftArithmetic],
  ['rol', rotate(true)],
  ['ror', rotate(false)],
  ['rcl', rotateThroughCarry(true)],
  ['rcr', rotateThroughCarry(false)],
  ['shld', doubleShift(true)],
  ['shrd', doubleShift(false)],
  ['bt', bitTest(null)],
  ['bts', bitTest((value, mask) => or(value, mask))],
  ['btr', bitTest((value, mask) => and(value, xor(mask, i64(-1))))],
  ['btc', bitTest((value, mask) => xor(value, mask))],
];
