import {
  add,
  and,
  clz,
  ctz,
  eq,
  geS,
  gtU,
  type I32,
  i32,
  load8U32,
  load16U32,
  load32,
  load128,
  ltU,
  or,
  select,
  shl,
  shrS,
  store128,
  sub,
  type V128,
  v128,
  xor,
} from '../wasm/expression.ts';
import { type FunctionBuilder, type Local, ModuleBuilder } from '../wasm/module.ts';
import {
  andV128,
  i8x16Bitmask,
  i8x16Eq,
  i8x16GtS,
  i8x16Splat,
  i16x8Bitmask,
  i16x8Eq,
  i16x8GtS,
  i16x8Splat,
  lowDword,
  orV128,
  shuffle,
  xorV128,
  zeroV128,
} from '../wasm/simd.ts';
import { Flag } from '../x86/registers.ts';
import { State } from './state.ts';

/**
 * PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM (SDM vol. 2, 4.1): compare two strings of up to 16 bytes or 8 words. One
 * function of generated code serves all modes, because the C library's string functions live on these instructions.
 *
 * Operands lie in a block at State.scratch that the instruction's own code has filled:
 */
export const enum StringBlock {
  /** 16 bytes: destination and source operand of the instruction. */
  first = 0x00,
  second = 0x10,
  /** 16 bytes: receives the mask of the M forms. */
  mask = 0x20,
  immediate = 0x30,
  /** u32 lengths in elements, at most 16; `IMPLICIT_LENGTH` for strings that end at their first zero. */
  firstLength = 0x34,
  secondLength = 0x38,
}

export const IMPLICIT_LENGTH = 0xff;

/** Fields of the immediate byte. */
const enum Mode {
  words = 1 << 0,
  signed = 1 << 1,
  aggregation = 3 << 2,
  negative = 1 << 4,
  /** Only results that belong to elements of the second string are negated. */
  masked = 1 << 5,
  /** Index of the last result instead of the first; a mask of elements instead of bits. */
  expanded = 1 << 6,
}

/** The aggregation field, in place. */
const enum Aggregation {
  equalAny = 0 << 2,
  ranges = 1 << 2,
  equalEach = 2 << 2,
  equalOrdered = 3 << 2,
}

/** A vector as elements of one size. */
interface Elements {
  readonly count: number;
  readonly sizeShift: number;
  readonly equal: (a: V128, b: V128) => V128;
  readonly greater: (a: V128, b: V128) => V128;
  /** One bit an element: its sign. */
  readonly signs: (vector: V128) => I32;
  /** All elements from the one at an address. */
  readonly repeat: (address: I32, offset: number) => V128;
  /** The sign bit of each element. */
  readonly sign: V128;
  /** Makes every element contain the byte that has its bit of a result, and that bit. */
  readonly spread: (result: I32) => V128;
  readonly ownBit: V128;
}

const BYTES: Elements = {
  count: 16,
  sizeShift: 0,
  equal: i8x16Eq,
  greater: i8x16GtS,
  signs: i8x16Bitmask,
  repeat: (address, offset) => i8x16Splat(load8U32(address, offset)),
  sign: v128(0x8080_8080_8080_8080n, 0x8080_8080_8080_8080n),
  spread: (result) => {
    const low = lowDword(result);
    return shuffle(low, low, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
  },
  ownBit: v128(0x8040_2010_0804_0201n, 0x8040_2010_0804_0201n),
};

const WORDS: Elements = {
  count: 8,
  sizeShift: 1,
  equal: i16x8Eq,
  greater: i16x8GtS,
  signs: i16x8Bitmask,
  repeat: (address, offset) => i16x8Splat(load16U32(address, offset)),
  sign: v128(0x8000_8000_8000_8000n, 0x8000_8000_8000_8000n),
  spread: (result) => i16x8Splat(result),
  ownBit: v128(0x0008_0004_0002_0001n, 0x0080_0040_0020_0010n),
};

/** (state) → the six arithmetic flags in bits 0–15, the index (for rCX) from bit 16; the mask is left in the block. */
export type CompareStrings = (state: number) => number;

/** The function over one memory; other generated code imports it. */
export function createStringComparison(memory: WebAssembly.Memory): CompareStrings {
  const module = new ModuleBuilder(memory.buffer.byteLength / 0x1_0000);
  const { builder: fn } = module.function({ parameters: ['i32'], result: 'i32' }, 'compareStrings');
  const block = fn.let(add(fn.parameter(0, 'i32'), i32(State.scratch)));
  const mode = fn.let(load8U32(block, StringBlock.immediate));
  fn.if(
    and(mode, i32(Mode.words)),
    () => emitComparison(fn, WORDS, block, mode),
    () => emitComparison(fn, BYTES, block, mode),
  );
  fn.unreachable();
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.build()), { host: { memory } });
  return instance.exports.compareStrings as CompareStrings;
}

function emitComparison(fn: FunctionBuilder, elements: Elements, block: I32, mode: I32): void {
  const { count } = elements;
  const everything = (1 << count) - 1;
  const second = fn.let(load128(block, StringBlock.second));
  const firstLength = lengthOf(fn, elements, load128(block, StringBlock.first), load32(block, StringBlock.firstLength));
  const secondLength = lengthOf(fn, elements, second, load32(block, StringBlock.secondLength));
  const valid = fn.let(below(secondLength));

  const result = fn.local('i32');
  const chosen = fn.let(and(mode, i32(Mode.aggregation)));
  fn.block((done) => {
    for (const [aggregation, emit] of AGGREGATIONS) {
      fn.if(eq(chosen, i32(aggregation)), () => {
        emit({ fn, elements, block, mode, second, firstLength, secondLength, valid, result });
        fn.branch(done);
      });
    }
  });
  fn.if(and(mode, i32(Mode.negative)), () => {
    fn.set(result, xor(result, select(and(mode, i32(Mode.masked)), valid, i32(-1))));
  });
  fn.set(result, and(result, i32(everything)));

  const expanded = fn.let(and(mode, i32(Mode.expanded)));
  const spread = elements.equal(andV128(elements.spread(result), elements.ownBit), elements.ownBit);
  fn.store(store128(block, select(expanded, spread, lowDword(result)), StringBlock.mask));
  const last = sub(i32(31), clz(result));
  const index = select(result, select(expanded, last, ctz(result)), i32(count));
  const flag = (condition: I32, bit: Flag): I32 => select(condition, i32(bit), i32(0));
  const flags = or(
    or(flag(result, Flag.carry), flag(and(result, i32(1)), Flag.overflow)),
    or(flag(ltU(secondLength, i32(count)), Flag.zero), flag(ltU(firstLength, i32(count)), Flag.sign)),
  );
  fn.return(or(flags, shl(index, i32(16))));
}

/** Valid elements: up to the first zero, or as many as were given. */
function lengthOf(fn: FunctionBuilder, elements: Elements, text: V128, field: I32): I32 {
  const { count, equal, signs } = elements;
  const given = fn.let(field);
  const implicit = ctz(or(signs(equal(text, zeroV128)), i32(1 << count)));
  const explicit = select(gtU(given, i32(count)), i32(count), given);
  return fn.let(select(eq(given, i32(IMPLICIT_LENGTH)), implicit, explicit));
}

/** A bit for each of the first elements. */
const below = (length: I32): I32 => sub(shl(i32(1), length), i32(1));

interface Comparison {
  readonly fn: FunctionBuilder;
  readonly elements: Elements;
  readonly block: I32;
  readonly mode: I32;
  readonly second: V128;
  readonly firstLength: I32;
  readonly secondLength: I32;
  /** Bits of the second string's valid elements. */
  readonly valid: I32;
  /** Receives the intermediate result, one bit an element; bits beyond the last element are ignored. */
  readonly result: Local<'i32'>;
}

/** How comparisons become one bit an element, with those of invalid elements forced as SDM table 4-7 says. */
const AGGREGATIONS: readonly (readonly [Aggregation, (comparison: Comparison) => void])[] = [
  [
    Aggregation.equalAny,
    (comparison) => {
      const { fn, elements, second, firstLength, valid, result } = comparison;
      const found = fn.local('v128');
      fn.set(found, zeroV128);
      forElements(comparison, 1, firstLength, (_position, element) => {
        fn.set(found, orV128(found, elements.equal(second, element(0))));
      });
      fn.set(result, and(elements.signs(found), valid));
    },
  ],
  [
    Aggregation.ranges,
    (comparison) => {
      const { fn, elements, mode, second, firstLength, valid, result } = comparison;
      // Unsigned numbers compare like signed ones with the sign bit inverted.
      const bias = fn.let(select(and(mode, i32(Mode.signed)), zeroV128, elements.sign));
      const value = fn.let(xorV128(second, bias));
      const outside = fn.local('i32');
      fn.set(outside, i32(-1));
      forElements(comparison, 2, sub(firstLength, i32(1)), (_position, element) => {
        const low = elements.greater(xorV128(element(0), bias), value);
        const high = elements.greater(value, xorV128(element(1), bias));
        fn.set(outside, and(outside, elements.signs(orV128(low, high))));
      });
      fn.set(result, and(xor(outside, i32(-1)), valid));
    },
  ],
  [
    Aggregation.equalEach,
    ({ fn, elements, block, second, firstLength, valid, result }) => {
      const equal = elements.signs(elements.equal(load128(block, StringBlock.first), second));
      const firstValid = fn.let(below(firstLength));
      const bothInvalid = xor(or(firstValid, valid), i32(-1));
      fn.set(result, or(and(equal, and(firstValid, valid)), bothInvalid));
    },
  ],
  [
    Aggregation.equalOrdered,
    (comparison) => {
      const { fn, elements, second, firstLength, valid, result } = comparison;
      fn.set(result, i32(-1));
      forElements(comparison, 1, firstLength, (position, element) => {
        const equal = and(elements.signs(elements.equal(second, element(0))), valid);
        // The needle matches where it runs beyond the operand's end, but not beyond the end of its string.
        const beyond = i32(-1 << elements.count);
        fn.set(result, and(result, shrS(or(equal, beyond), position)));
      });
    },
  ],
];

/** For each `step`-th position of the first string below `end`; `element` repeats the one at or behind the position. */
function forElements(
  { fn, elements, block }: Comparison,
  step: number,
  end: I32,
  body: (position: I32, element: (behind: number) => V128) => void,
): void {
  const { sizeShift, repeat } = elements;
  const position = fn.local('i32');
  fn.set(position, i32(0));
  fn.block((done) => {
    fn.loop((again) => {
      fn.branchIf(geS(position, end), done);
      const address = fn.let(add(block, shl(position, i32(sizeShift))));
      body(position, (behind) => repeat(address, StringBlock.first + (behind << sizeShift)));
      fn.set(position, add(position, i32(step)));
      fn.branch(again);
    });
  });
}
