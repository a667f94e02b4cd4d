import {
  add,
  and,
  eqz,
  extendU,
  type I32,
  type I64,
  i32,
  i64,
  load16U32,
  load32,
  loadInteger,
  ne,
  or,
  select,
  store8of32,
  storeInteger,
  zeroExtend,
} from '../../wasm/expression.ts';
import { Cr0 } from '../../x86/registers.ts';
import { OperandKind } from '../decode/instruction.ts';
import { EnvironmentForm } from '../float/x87-environment.ts';
import { X87Result, X87State, X87Status } from '../float/x87-machine.ts';
import { findX87Operation, X87Operation, x87Operations } from '../float/x87-operations.ts';
import { HelperOperation } from '../helpers.ts';
import { State } from '../state.ts';
import type { Condition, Context, Semantics } from './context.ts';
import { enterMmx, isMemory, kindOf, raisePending, requireFloat, requireMmx } from './vector-support.ts';

/**
 * x87: every instruction is carried out by the unit (../quick-x87/quick.ts, ../float/x87.ts). What is left to do here is to
 * bring memory operands to State.scratch and results from there to memory, and to deliver exceptions.
 *
 * A store pops the stack inside the unit. So the destination is checked for writing before, and the unit's result is
 * stored after.
 */

const STORES: ReadonlySet<string> = new Set('fst fstp fist fistp fisttp fbstp fnstcw fnstsw fnstenv fnsave'.split(' '));
const ENVIRONMENTS: ReadonlySet<string> = new Set('fldenv fnstenv frstor fnsave'.split(' '));
const EFLAGS_COMPARISONS: ReadonlySet<string> = new Set('fcomi fcomip fucomi fucomip'.split(' '));
/** Mnemonics whose forms with a memory operand have operations of their own. */
const NUMBERS_IN_MEMORY: ReadonlySet<string> = new Set(
  Object.keys(x87Operations)
    .filter((key) => key.includes(' m'))
    .map((key) => key.slice(0, key.indexOf(' '))),
);

/** Pieces in which an area is copied: offset and bytes of each. Environments are aligned when their fields are. */
function pieces(bytes: number): [number, number][] {
  const list: [number, number][] = [];
  const largest = bytes <= 10 ? 8 : isWide(bytes) ? 4 : 2;
  for (let offset = 0; offset < bytes; ) {
    const size = Math.min(largest, 1 << (31 - Math.clz32(bytes - offset)));
    list.push([offset, size]);
    offset += size;
  }
  return list;
}

/** A linear address in the area that begins at another; legacy code wraps at 4 GiB. */
export function within(c: Context, linear: I64, offset: number): I64 {
  const address = add(linear, i64(offset));
  return c.shape.long ? address : zeroExtend(address, 4);
}

/**
 * Checks a part of an area. For large areas the manuals leave open which byte a page fault names: here, as on AMD
 * processors, it is in the first field or the last byte.
 */
export function probe(c: Context, linear: I64, bytes: number, write: boolean): void {
  if (write) c.probeWrite(linear, bytes);
  else c.load(bytes, linear);
}

function loadToScratch(c: Context, linear: I64, bytes: number): void {
  for (const [offset, size] of pieces(bytes)) {
    const value = c.load(size, within(c, linear, offset));
    c.fn.store(storeInteger(size, c.state, value, State.scratch + offset));
  }
}

function storeFromScratch(c: Context, linear: I64, bytes: number): void {
  for (const [offset, size] of pieces(bytes)) {
    const value = loadInteger(size, false, c.state, State.scratch + offset);
    c.store(size, within(c, linear, offset), value);
  }
}

/** Conditions of FCMOVcc by the letters behind FCMOV; U tests PF. */
const MOVE_CONDITIONS: Readonly<Record<string, Condition>> = {
  b: 'b',
  e: 'e',
  be: 'be',
  u: 'p',
  nb: 'ae',
  ne: 'ne',
  nbe: 'a',
  nu: 'np',
};

/** Environments have 28 or 14 bytes; FNSAVE adds 80 for the registers. */
const isWide = (bytes: number): boolean => bytes === 28 || bytes === 108;

/** The form of an environment: by operand size, and by mode. Virtual-8086 mode does not exist here. */
function environmentForm(c: Context): I32 {
  const size = i32(isWide(c.shape.operands[0]?.size ?? 0) ? EnvironmentForm.wide : 0);
  if (c.shape.long) return size;
  const protection = and(load32(c.state, State.cr0), i32(Cr0.protection));
  return or(size, select(protection, i32(0), i32(EnvironmentForm.realMode)));
}

/**
 * ST(i) and the operation. `FADD ST(0), ST(i)` and `FADD ST(i), ST(0)` have one shape; one of the two numbers is zero.
 */
function stackOperands(c: Context, mnemonic: string): { index: I32; operation: I32 | null } {
  const registers = c.shape.operands.filter(({ kind }) => kind === OperandKind.st).length;
  if (registers === 0) return { index: i32(0), operation: null };
  if (registers === 1) return { index: c.operandNumber(0), operation: null };
  const first = c.let(c.operandNumber(0));
  const index = or(first, c.operandNumber(1));
  const top = findX87Operation(mnemonic);
  const register = findX87Operation(mnemonic, 0, true);
  if (!top || !register || top === register) return { index, operation: null };
  return { index, operation: select(first, i32(register.operation), i32(top.operation)) };
}

/**
 * Instructions that compute leave their address and their operand's for the handler of an exception. As on processors
 * that report so (AMD; Intel's FDP_EXCPTN_ONLY) they are recorded only when an exception is pending.
 */
function recordPointers(c: Context, dataOffset: I64 | null): void {
  const { fn, state } = c;
  const status = load16U32(state, State.x87 + X87State.status);
  fn.if(and(status, i32(X87Status.errorSummary)), () => {
    const store = (bytes: number, value: I64, field: X87State) =>
      fn.store(storeInteger(bytes, state, value, State.x87 + field));
    store(8, c.instructionAddress(), X87State.instruction);
    store(8, dataOffset ?? i64(0), X87State.data);
  });
}

const execute =
  (mnemonic: string): Semantics =>
  (c) => {
    const { fn, state } = c;
    requireFloat(c, HelperOperation.checkX87);
    const memory = isMemory(c, 0);
    const bytes = memory ? (c.shape.operands[0]?.size ?? 0) : 0;
    const description = findX87Operation(mnemonic, NUMBERS_IN_MEMORY.has(mnemonic) ? bytes : 0);
    if (!description) throw new Error(`the x87 unit has no ${mnemonic}`);
    if (!description.withoutWaiting) raisePending(c);

    const stores = memory && STORES.has(mnemonic);
    const offset = memory ? c.let(c.effectiveOffset()) : null;
    const linear = memory ? c.let(c.address(bytes, stores)) : null;
    if (linear) {
      if (bytes > 10) {
        probe(c, linear, isWide(bytes) ? 4 : 2, stores);
        probe(c, within(c, linear, bytes - 1), 1, stores);
      }
      // Alignment is that of the first piece.
      if (stores && bytes === 10) c.probeWrite(linear, 8);
      if (stores) c.probeWrite(linear, bytes);
      else loadToScratch(c, linear, bytes);
    }

    const scratch = add(state, i32(State.scratch));
    const { index, operation } = stackOperands(c, mnemonic);
    const condition = MOVE_CONDITIONS[mnemonic.slice('fcmov'.length)];
    const isMove = description.operation === X87Operation.fcmov && condition !== undefined;
    const operand = isMove ? ne(c.condition(condition), i32(0)) : scratch;
    const i = ENVIRONMENTS.has(mnemonic) ? environmentForm(c) : index;
    const result = c.let(c.host('x87', operation ?? i32(description.operation), i, operand));

    if (!description.control) recordPointers(c, offset);
    if (stores && linear) {
      fn.if(eqz(and(result, i32(X87Result.suppressed))), () => storeFromScratch(c, linear, bytes));
    } else if (STORES.has(mnemonic) && kindOf(c, 0) === OperandKind.gpr) {
      c.write(0, loadInteger(2, false, state, State.scratch));
    }
    if (EFLAGS_COMPARISONS.has(mnemonic)) {
      c.setFlagsExplicit(extendU(and(result, i32(X87Result.carry | X87Result.parity | X87Result.zero))));
    }
  };

const wait: Semantics = (c) => {
  requireFloat(c, HelperOperation.checkWait);
  raisePending(c);
};

/** EMMS: all registers become empty, and TOP 0 as by any MMX instruction. */
const emptyMmx: Semantics = (c) => {
  requireMmx(c);
  enterMmx(c);
  c.fn.store(store8of32(c.state, i32(0), State.x87 + X87State.occupied));
};

const MNEMONICS = new Set(Object.keys(x87Operations).map((key) => key.split(' ')[0] as string));
for (const mnemonic of ['fwait', 'fneni', 'fndisi', 'fnsetpm']) MNEMONICS.delete(mnemonic);

export const X87: ReadonlyMap<string, Semantics> = new Map<string, Semantics>([
  ...[...MNEMONICS].map((mnemonic): [string, Semantics] => [mnemonic, execute(mnemonic)]),
  ['fwait', wait],
  ['emms', emptyMmx],
]);
