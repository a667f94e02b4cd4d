import {
  add,
  and,
  clz,
  divU,
  eq,
  eqz,
  extendU,
  geU,
  gtU,
  type I32,
  type I64,
  i32,
  i64,
  ltS,
  ltU,
  mul,
  ne,
  or,
  select,
  shl,
  shrU,
  sub,
  wrap,
  xor,
} from '../../wasm/expression.ts';
import type { Local } from '../../wasm/module.ts';
import { ArithmeticForm } from '../float/x87-operations.ts';
import { choose, type Way } from './choose.ts';
import { BIAS, EXPONENT, type Extended, INTEGER_BIT, isOrdinary, nearestUp, roundingBits, SIGN } from './numbers.ts';
import { type ExtendedLocal, extendedLocal, setExtended, sourceWays, TOP } from './operands.ts';
import { fullPrecision, type QuickMachine, roundingOf } from './quick-machine.ts';

/** The four operations on ordinary numbers, with all 64 bits and to nearest. */

/** What is computed from destination and source. */
interface Family {
  readonly compute: (machine: QuickMachine, a: Extended, b: Extended, result: Result) => void;
  /** The source comes first. */
  readonly reversed?: boolean;
  /** The sign of what comes second is changed. */
  readonly negates?: boolean;
}

/** In the order of X87Operation. */
const FAMILIES: readonly Family[] = [
  { compute: addInto },
  { compute: multiplyInto },
  { compute: addInto, negates: true },
  { compute: addInto, negates: true, reversed: true },
  { compute: divideInto },
  { compute: divideInto, reversed: true },
];

/** An exact result: 128 bits, of which the uppermost is set unless all are zero; below them something may be jammed. */
interface Result {
  /** SIGN or 0. */
  readonly sign: Local<'i32'>;
  /** Biased. */
  readonly exponent: Local<'i32'>;
  readonly high: Local<'i64'>;
  readonly low: Local<'i64'>;
}

export function arithmeticWays(machine: QuickMachine): Record<number, Way> {
  const ways = FAMILIES.flatMap((family, index) => {
    const first = index * ArithmeticForm.count;
    const way: Way = () => carryOut(machine, family, first);
    return Array.from({ length: ArithmeticForm.count }, (_, form): [number, Way] => [first + form, way]);
  });
  return Object.fromEntries(ways);
}

/** @param first operation of the family */
function carryOut(machine: QuickMachine, { compute, reversed, negates }: Family, first: number): void {
  const { fn, operation, control } = machine;
  machine.requirePrecisionMasked();
  machine.require(and(fullPrecision(control), eqz(roundingOf(control))));
  const form = fn.let(sub(operation, i32(first)));
  const target = fn.local('i32');
  const [destination, source] = [extendedLocal(machine), extendedLocal(machine)];
  readOperands(machine, form, target, destination, source);
  machine.require(isOrdinary(destination));
  machine.require(isOrdinary(source));
  const [a, b] = reversed ? [source, destination] : [destination, source];
  const second = negates ? { ...b, signExponent: fn.let(xor(b.signExponent, i32(SIGN))) } : b;
  const result = { sign: fn.local('i32'), exponent: fn.local('i32'), high: fn.local('i64'), low: fn.local('i64') };
  compute(machine, a, second, result);
  deliver(machine, result, target, eq(form, i32(ArithmeticForm.pop)));
}

/** Sets `a` to the destination, `b` to the source, and `target` to the destination's slot. */
function readOperands(
  machine: QuickMachine,
  form: I32,
  target: Local<'i32'>,
  a: ExtendedLocal,
  b: ExtendedLocal,
): void {
  const { fn, register, otherwise } = machine;
  const sources = sourceWays(machine, b);
  const intoRegister: Way = () => {
    sources.top();
    setExtended(machine, a, machine.readOccupied(register));
    fn.set(target, machine.slot(register));
  };
  const intoTop =
    (read: Way): Way =>
    () => {
      read();
      setExtended(machine, a, machine.readOccupied(TOP));
      fn.set(target, machine.slot(TOP));
    };
  const { single, double, integer16, integer32 } = sources;
  const memory = [single, double, integer16, integer32].map(intoTop);
  choose(fn, form, [...memory, intoTop(sources.register), intoRegister, intoRegister], otherwise);
}

const exponentOf = ({ signExponent }: Extended): I32 => and(signExponent, i32(EXPONENT));
const signOf = ({ signExponent }: Extended): I32 => and(signExponent, i32(SIGN));

/** A zero is far below every other number, so that nothing has to be done for it until both are. */
function addInto(machine: QuickMachine, a: Extended, b: Extended, result: Result): void {
  const { fn } = machine;
  const { sign, exponent, high, low } = result;
  const [exponentA, exponentB] = [fn.let(exponentOf(a)), fn.let(exponentOf(b))];
  const sameExponent = eq(exponentA, exponentB);
  const exchanged = fn.let(or(ltU(exponentA, exponentB), and(sameExponent, ltU(a.significand, b.significand))));
  const larger = fn.let(select(exchanged, b.significand, a.significand));
  const smaller = fn.let(select(exchanged, a.significand, b.significand));
  const sameSign = fn.let(eqz(and(xor(a.signExponent, b.signExponent), i32(SIGN))));
  fn.set(sign, and(select(exchanged, b.signExponent, a.signExponent), i32(SIGN)));
  fn.set(exponent, select(exchanged, exponentB, exponentA));
  const distance = fn.let(sub(exponent, select(exchanged, exponentA, exponentB)));
  const aligned = fn.local('i64');
  align(machine, smaller, distance, aligned, low);
  fn.if(
    sameSign,
    () => {
      fn.set(high, add(larger, aligned));
      fn.if(ltU(high, larger), () => {
        // The bit that falls off is 0: with a carry the distance is below 64.
        fn.set(low, or(shl(high, i64(63)), shrU(low, i64(1))));
        fn.set(high, or(shrU(high, i64(1)), i64(INTEGER_BIT)));
        fn.set(exponent, add(exponent, i32(1)));
      });
    },
    () => {
      fn.set(high, sub(sub(larger, aligned), extendU(ne(low, i64(0)))));
      fn.set(low, sub(i64(0), low));
      // Zero is positive when numbers cancel.
      fn.if(eqz(or(high, low)), () => fn.set(sign, i32(0)));
      normalise(machine, result);
    },
  );
}

/** Shifts a significand right by any distance; what is left of the places behind it goes to `low`, jammed. */
function align({ fn }: QuickMachine, significand: I64, distance: I32, high: Local<'i64'>, low: Local<'i64'>): void {
  const places = fn.let(extendU(distance));
  fn.if(
    ltU(distance, i32(64)),
    () => {
      fn.set(high, shrU(significand, places));
      fn.set(low, select(distance, shl(significand, sub(i64(0), places)), i64(0)));
    },
    () => {
      const beyond = fn.let(select(ltU(distance, i32(127)), sub(places, i64(64)), i64(63)));
      const kept = fn.let(shrU(significand, beyond));
      fn.set(high, i64(0));
      fn.set(low, or(kept, extendU(ne(shl(kept, beyond), significand))));
    },
  );
}

/** After a difference: many leading zeros only when the numbers were so close that nothing was jammed. */
function normalise({ fn }: QuickMachine, { exponent, high, low }: Result): void {
  fn.if(eqz(high), () => {
    fn.set(high, low);
    fn.set(low, i64(0));
    fn.set(exponent, sub(exponent, i32(64)));
  });
  const zeros = fn.let(clz(high));
  fn.if(ne(zeros, i64(0)), () => {
    fn.set(high, or(shl(high, zeros), shrU(low, sub(i64(64), zeros))));
    fn.set(low, shl(low, zeros));
    fn.set(exponent, sub(exponent, wrap(zeros)));
  });
}

const LOW_HALF = i64(0xffff_ffff);

function multiplyInto({ fn }: QuickMachine, a: Extended, b: Extended, result: Result): void {
  const { sign, exponent, high, low } = result;
  const halves = ({ significand }: Extended): [I64, I64] => [
    fn.let(and(significand, LOW_HALF)),
    fn.let(shrU(significand, i64(32))),
  ];
  const [lowA, highA] = halves(a);
  const [lowB, highB] = halves(b);
  const lowest = fn.let(mul(lowA, lowB));
  const cross = fn.let(mul(lowA, highB));
  const middle = fn.let(add(add(shrU(lowest, i64(32)), and(cross, LOW_HALF)), mul(highA, lowB)));
  fn.set(low, or(shl(middle, i64(32)), and(lowest, LOW_HALF)));
  fn.set(high, add(add(mul(highA, highB), shrU(cross, i64(32))), shrU(middle, i64(32))));
  fn.set(sign, xor(signOf(a), signOf(b)));
  fn.set(exponent, sub(add(exponentOf(a), exponentOf(b)), i32(BIAS - 1)));
  fn.if(eqz(ltS(high, i64(0))), () => {
    fn.set(high, or(shl(high, i64(1)), shrU(low, i64(63))));
    fn.set(low, shl(low, i64(1)));
    fn.set(exponent, sub(exponent, i32(1)));
  });
}

/** A division by zero is the exact unit's. */
function divideInto(machine: QuickMachine, a: Extended, b: Extended, result: Result): void {
  const { fn } = machine;
  const { sign, exponent, high, low } = result;
  const divisor = b.significand;
  machine.require(ne(divisor, i64(0)));
  const halved = fn.let(geU(a.significand, divisor));
  fn.set(sign, xor(signOf(a), signOf(b)));
  fn.set(exponent, add(sub(exponentOf(a), exponentOf(b)), add(i32(BIAS - 1), halved)));
  // Half of the dividend's significand when it is not below the divisor's, with the bit that falls off behind it.
  const halfBit = fn.let(select(halved, shl(and(a.significand, i64(1)), i64(31)), i64(0)));
  const remainder = fn.local('i64');
  fn.set(remainder, shrU(a.significand, extendU(halved)));
  const [lowHalf, highHalf] = [fn.let(and(divisor, LOW_HALF)), fn.let(shrU(divisor, i64(32)))];
  fn.set(high, i64(0));
  for (const next of [halfBit, i64(0)]) {
    const digit = fn.local('i64');
    const rest = fn.local('i64');
    fn.set(digit, divU(remainder, highHalf));
    fn.set(rest, sub(remainder, mul(digit, highHalf)));
    // The guess is at most two too large (Knuth, vol. 2, 4.3.1, theorem B).
    fn.loop((again) => {
      const tooLarge = or(gtU(digit, LOW_HALF), gtU(mul(digit, lowHalf), or(shl(rest, i64(32)), next)));
      fn.if(and(eqz(gtU(rest, LOW_HALF)), tooLarge), () => {
        fn.set(digit, sub(digit, i64(1)));
        fn.set(rest, add(rest, highHalf));
        fn.branch(again);
      });
    });
    fn.set(remainder, sub(or(shl(remainder, i64(32)), next), mul(digit, divisor)));
    fn.set(high, or(shl(high, i64(32)), digit));
  }
  // A quotient of 64-bit significands has 64 bits or never ends, so it is not half way between two numbers.
  const aboveHalf = gtU(remainder, sub(divisor, remainder));
  const lost = select(aboveHalf, i64(INTEGER_BIT | 1n), i64(1));
  fn.set(low, select(eqz(remainder), i64(0), lost));
}

/** Rounds a result into its slot. */
function deliver(machine: QuickMachine, { sign, exponent, high, low }: Result, slot: I32, pops: I32): void {
  const { fn } = machine;
  const end = (set: I32): void => {
    fn.if(pops, () => machine.finish({ set, pops: 1 }));
    machine.finish({ set });
  };
  fn.if(eqz(high), () => {
    machine.write(slot, { significand: high, signExponent: sign });
    end(i32(0));
  });
  const inexact = fn.let(ne(low, i64(0)));
  const up = fn.let(nearestUp(high, low));
  fn.set(high, add(high, extendU(up)));
  fn.if(eqz(high), () => {
    fn.set(high, i64(INTEGER_BIT));
    fn.set(exponent, add(exponent, i32(1)));
  });
  machine.require(ltU(sub(exponent, i32(1)), i32(EXPONENT - 1)));
  machine.write(slot, { significand: high, signExponent: or(sign, exponent) });
  end(roundingBits({ inexact, up }));
}
