import { i32, i64 } from '../../wasm/expression.ts';
import type { Local } from '../../wasm/module.ts';
import type { Way } from './choose.ts';
import { DOUBLE, type Extended, readFloat, readInteger, SINGLE } from './numbers.ts';
import type { QuickMachine } from './quick-machine.ts';

/** The second operand of arithmetic and comparisons, by where it comes from. */

/** A number that one of several ways sets. */
export interface ExtendedLocal extends Extended {
  readonly significand: Local<'i64'>;
  readonly signExponent: Local<'i32'>;
}

export function extendedLocal({ fn }: QuickMachine): ExtendedLocal {
  return { significand: fn.local('i64'), signExponent: fn.local('i32') };
}

export function setExtended({ fn }: QuickMachine, to: ExtendedLocal, { significand, signExponent }: Extended): void {
  fn.set(to.significand, significand);
  fn.set(to.signExponent, signExponent);
}

/** ST(0). */
export const TOP = i32(0);

const SOURCES = {
  single: (machine) => readFloat(machine, machine.operand, SINGLE),
  double: (machine) => readFloat(machine, machine.operand, DOUBLE),
  integer16: (machine) => readInteger(machine, machine.operand, 2),
  integer32: (machine) => readInteger(machine, machine.operand, 4),
  top: (machine) => machine.readOccupied(TOP),
  /** ST(1) */
  next: (machine) => machine.readOccupied(i32(1)),
  /** ST(i) */
  register: (machine) => machine.readOccupied(machine.register),
  zero: () => ({ significand: i64(0), signExponent: i32(0) }),
} as const satisfies Readonly<Record<string, (machine: QuickMachine) => Extended>>;
export type Source = keyof typeof SOURCES;

/** For each source a way that sets a number to it. */
export function sourceWays(machine: QuickMachine, to: ExtendedLocal): Readonly<Record<Source, Way>> {
  const ways = Object.entries(SOURCES).map(([source, read]): [string, Way] => {
    return [source, () => setExtended(machine, to, read(machine))];
  });
  return Object.fromEntries(ways) as Record<Source, Way>;
}
