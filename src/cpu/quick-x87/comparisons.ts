import { and, eq, eqz, type I32, i32, ltU, or, select, sub, xor } from '../../wasm/expression.ts';
import { X87Result, X87Status } from '../float/x87-machine.ts';
import { X87Operation } from '../float/x87-operations.ts';
import { choose, type Way } from './choose.ts';
import { EXPONENT, type Extended, isOrdinary, SIGN } from './numbers.ts';
import { extendedLocal, type Source, sourceWays, TOP } from './operands.ts';
import type { QuickMachine } from './quick-machine.ts';

/** Comparisons of ordinary numbers, which are never unordered, so that FUCOM is FCOM; and what kind of number one is. */

interface Comparison {
  readonly source: Source;
  /** What has the outcome: the condition codes, or EFLAGS, and the registers popped. */
  readonly outcome: Outcome;
}

type Outcome = 'codes' | 'codes, pop' | 'codes, pop twice' | 'flags' | 'flags, pop';

const COMPARISONS: Readonly<Record<number, Comparison>> = {
  [X87Operation.fcomM32]: { source: 'single', outcome: 'codes' },
  [X87Operation.fcomM64]: { source: 'double', outcome: 'codes' },
  [X87Operation.fcom]: { source: 'register', outcome: 'codes' },
  [X87Operation.fcompM32]: { source: 'single', outcome: 'codes, pop' },
  [X87Operation.fcompM64]: { source: 'double', outcome: 'codes, pop' },
  [X87Operation.fcomp]: { source: 'register', outcome: 'codes, pop' },
  [X87Operation.fcompp]: { source: 'next', outcome: 'codes, pop twice' },
  [X87Operation.ficomM16]: { source: 'integer16', outcome: 'codes' },
  [X87Operation.ficomM32]: { source: 'integer32', outcome: 'codes' },
  [X87Operation.ficompM16]: { source: 'integer16', outcome: 'codes, pop' },
  [X87Operation.ficompM32]: { source: 'integer32', outcome: 'codes, pop' },
  [X87Operation.fucom]: { source: 'register', outcome: 'codes' },
  [X87Operation.fucomp]: { source: 'register', outcome: 'codes, pop' },
  [X87Operation.fucompp]: { source: 'next', outcome: 'codes, pop twice' },
  [X87Operation.fcomi]: { source: 'register', outcome: 'flags' },
  [X87Operation.fcomip]: { source: 'register', outcome: 'flags, pop' },
  [X87Operation.fucomi]: { source: 'register', outcome: 'flags' },
  [X87Operation.fucomip]: { source: 'register', outcome: 'flags, pop' },
  [X87Operation.ftst]: { source: 'zero', outcome: 'codes' },
};

export function comparisonWays(machine: QuickMachine): Record<number, Way> {
  const { fn, operation, otherwise } = machine;
  const numbers = Object.keys(COMPARISONS).map(Number);
  const first = Math.min(...numbers);
  const inTurn = Array.from({ length: Math.max(...numbers) - first + 1 }, (_, index) => COMPARISONS[first + index]);
  const way: Way = () => {
    const number = fn.let(sub(operation, i32(first)));
    const b = extendedLocal(machine);
    const sources = sourceWays(machine, b);
    const a = machine.readOccupied(TOP);
    choose(
      fn,
      number,
      inTurn.map((comparison) => comparison && sources[comparison.source]),
      otherwise,
    );
    machine.require(isOrdinary(a));
    machine.require(isOrdinary(b));
    const outcomes = outcomeWays(machine, order(machine, a, b));
    choose(
      fn,
      number,
      inTurn.map((comparison) => comparison && outcomes[comparison.outcome]),
      otherwise,
    );
    fn.unreachable();
  };
  return {
    ...Object.fromEntries(numbers.map((number) => [number, way])),
    [X87Operation.fxam]: () => examine(machine),
  };
}

/** FXAM of an ordinary number: C1 is its sign. */
function examine(machine: QuickMachine): void {
  const number = machine.readOccupied(TOP);
  machine.require(isOrdinary(number));
  const sign = select(and(number.signExponent, i32(SIGN)), i32(X87Status.c1), i32(0));
  const kind = select(eqz(number.significand), i32(X87Status.c3), i32(X87Status.c2));
  machine.finish({ clear: CODES, set: or(sign, kind) });
}

/** Both are 0 or 1. */
interface Order {
  readonly less: I32;
  readonly equal: I32;
}

function order({ fn }: QuickMachine, a: Extended, b: Extended): Order {
  const [exponentA, exponentB] = [a, b].map(({ signExponent }) => fn.let(and(signExponent, i32(EXPONENT)))) as [
    I32,
    I32,
  ];
  const sameExponent = fn.let(eq(exponentA, exponentB));
  const smaller = or(ltU(exponentA, exponentB), and(sameExponent, ltU(a.significand, b.significand)));
  const larger = or(ltU(exponentB, exponentA), and(sameExponent, ltU(b.significand, a.significand)));
  const negative = fn.let(and(a.signExponent, i32(SIGN)));
  const sameSign = fn.let(eqz(and(xor(a.signExponent, b.signExponent), i32(SIGN))));
  const zeros = fn.let(eqz(or(a.significand, b.significand)));
  const same = and(sameSign, and(sameExponent, eq(a.significand, b.significand)));
  const isNegative = eq(negative, i32(SIGN));
  const less = select(sameSign, select(negative, larger, smaller), isNegative);
  return { less: fn.let(and(less, eqz(zeros))), equal: fn.let(or(same, zeros)) };
}

const CODES = X87Status.c0 | X87Status.c1 | X87Status.c2 | X87Status.c3;

function outcomeWays(machine: QuickMachine, { less, equal }: Order): Readonly<Record<Outcome, Way>> {
  const bits = (whenLess: number, whenEqual: number): I32 =>
    or(select(less, i32(whenLess), i32(0)), select(equal, i32(whenEqual), i32(0)));
  const codes =
    (pops?: 1 | 2): Way =>
    () => {
      machine.finish({ clear: CODES, set: bits(X87Status.c0, X87Status.c3), ...(pops ? { pops } : {}) });
    };
  // These leave C1 alone.
  const flags =
    (pops?: 1): Way =>
    () => {
      machine.finish({ clear: 0, result: bits(X87Result.carry, X87Result.zero), ...(pops ? { pops } : {}) });
    };
  return {
    codes: codes(),
    'codes, pop': codes(1),
    'codes, pop twice': codes(2),
    flags: flags(),
    'flags, pop': flags(1),
  };
}
