import {
  and,
  eqz,
  geS,
  geU,
  gtS,
  gtU,
  type I32,
  type I64,
  i32,
  i64,
  leS,
  leU,
  ltS,
  ltU,
  ne,
  or,
  popcnt,
  shl,
  shrU,
  wrap,
  xor,
} from '../wasm/expression.ts';
import type { Condition } from './semantics/context.ts';
import { FlagKind } from './state.ts';

/**
 * The arithmetic flags as expressions of a descriptor whose kind is known where code is generated. All values are
 * sign-extended from the operation's size, so that comparisons of 64 bits give what comparisons of the size would.
 */
export interface FlagValues {
  readonly a: I64;
  readonly b: I64;
  readonly result: I64;
}

/** Kinds whose CF is bit 0 of `a`, as a set of bits. */
export const CARRY_IN_A =
  (1 << FlagKind.explicit) | (1 << FlagKind.result) | (1 << FlagKind.increment) | (1 << FlagKind.decrement);

export const FLAG_KINDS: readonly FlagKind[] = [
  FlagKind.explicit,
  FlagKind.add,
  FlagKind.sub,
  FlagKind.logic,
  FlagKind.result,
  FlagKind.sbb,
  FlagKind.increment,
  FlagKind.decrement,
];

/** Conditions that are the others' negation. */
export const OPPOSITE = { ae: 'b', a: 'be', ns: 's', ge: 'l', g: 'le', no: 'o', np: 'p', ne: 'e' } as const;

const isNegative = (value: I64): I32 => ltS(value, i64(0));
const inverse = (value: I64): I64 => xor(value, i64(-1));
const bitOf = (value: I64, position: number): I32 => and(wrap(shrU(value, i64(position))), i32(1));

/** CF, 0 or 1. */
export function carryOf(kind: FlagKind, { a, b, result }: FlagValues): I32 {
  switch (kind) {
    case FlagKind.add:
      return isNegative(or(and(a, b), and(or(a, b), inverse(result))));
    case FlagKind.sub:
      return ltU(a, b);
    case FlagKind.sbb:
      return isNegative(or(and(inverse(a), b), and(or(inverse(a), b), result)));
    case FlagKind.logic:
      return i32(0);
    default:
      return bitOf(a, 0);
  }
}

/** OF, 0 or 1. */
function overflowOf(kind: FlagKind, { a, b, result }: FlagValues): I32 {
  switch (kind) {
    case FlagKind.add:
      return isNegative(and(xor(a, result), xor(b, result)));
    case FlagKind.sub:
    case FlagKind.sbb:
      return isNegative(and(xor(a, b), xor(a, result)));
    case FlagKind.logic:
      return i32(0);
    // In sign-extended form b + 1 < b, or b − 1 > b, exactly on signed overflow.
    case FlagKind.increment:
      return ltS(result, b);
    case FlagKind.decrement:
      return gtS(result, b);
    default:
      return bitOf(a, 11);
  }
}

function adjustOf(kind: FlagKind, { a, b, result }: FlagValues): I32 {
  switch (kind) {
    case FlagKind.add:
    case FlagKind.sub:
    case FlagKind.sbb:
      return bitOf(xor(xor(a, b), result), 4);
    case FlagKind.logic:
      return i32(0);
    case FlagKind.increment:
    case FlagKind.decrement:
      return bitOf(xor(b, result), 4);
    default:
      return bitOf(a, 4);
  }
}

const signOf = (kind: FlagKind, { a, result }: FlagValues): I32 =>
  kind === FlagKind.explicit ? bitOf(a, 7) : isNegative(result);

/** PF: an even number of ones in the low byte. */
const parityOf = (kind: FlagKind, { a, result }: FlagValues): I32 =>
  kind === FlagKind.explicit ? bitOf(a, 2) : eqz(bitOf(popcnt(and(result, i64(0xff))), 0));

/** The six arithmetic flags as bits of RFLAGS. */
export function flagBits(kind: FlagKind, values: FlagValues): I32 {
  if (kind === FlagKind.explicit) return wrap(values.a);
  const bit = (value: I32, position: number) => shl(value, i32(position));
  const plain = or(or(bit(parityOf(kind, values), 2), bit(eqz(values.result), 6)), bit(signOf(kind, values), 7));
  if (kind === FlagKind.logic) return plain;
  if (kind === FlagKind.result) return or(plain, wrap(values.a));
  return or(or(plain, carryOf(kind, values)), or(bit(adjustOf(kind, values), 4), bit(overflowOf(kind, values), 11)));
}

/** A condition of flags of a known kind, 0 or 1. */
export function conditionOf(kind: FlagKind, values: FlagValues, condition: Condition): I32 {
  const { a, b, result } = values;
  const compared = kind === FlagKind.sub;
  switch (condition) {
    case 'e':
      return eqz(result);
    case 'ne':
      return ne(result, i64(0));
    case 'b':
      return carryOf(kind, values);
    case 'ae':
      return compared ? geU(a, b) : eqz(carryOf(kind, values));
    case 'be':
      return compared ? leU(a, b) : or(carryOf(kind, values), eqz(result));
    case 'a':
      return compared ? gtU(a, b) : eqz(conditionOf(kind, values, 'be'));
    case 's':
      return signOf(kind, values);
    case 'l':
      if (compared) return ltS(a, b);
      return kind === FlagKind.logic ? isNegative(result) : xor(signOf(kind, values), overflowOf(kind, values));
    case 'ge':
      return compared ? geS(a, b) : eqz(conditionOf(kind, values, 'l'));
    case 'le':
      if (compared) return leS(a, b);
      if (kind === FlagKind.logic) return leS(result, i64(0));
      return or(conditionOf(kind, values, 'l'), eqz(result));
    case 'g':
      return compared ? gtS(a, b) : eqz(conditionOf(kind, values, 'le'));
    case 'o':
      return overflowOf(kind, values);
    case 'p':
      return parityOf(kind, values);
    default:
      return eqz(conditionOf(kind, values, OPPOSITE[condition]));
  }
}
