import { arithmeticHandlers } from './x87-arithmetic.ts';
import { compareHandlers } from './x87-compare.ts';
import { environmentHandlers, loadFxsaveArea, saveFxsaveArea } from './x87-environment.ts';
import { type X87Handler, X87Machine, X87Result, X87State, X87Status } from './x87-machine.ts';
import { X87Operation, x87Operations } from './x87-operations.ts';
import { transcendentalHandlers } from './x87-transcendental.ts';
import { transferHandlers } from './x87-transfer.ts';

/**
 * The x87 unit. The state is in memory, laid out in x87-machine.ts; the handlers of the instructions are in the
 * x87-*.ts files by subject.
 */
export interface X87Unit {
  /**
   * Executes one instruction.
   *
   * The caller has evaluated conditions, copied a memory operand in, and made sure that a result can be stored, because
   * the stack may be popped here. Unless the result says otherwise it copies a stored result out afterwards.
   *
   * @param operation which
   * @param state address of the state
   * @param i ST index of a register operand; an `EnvironmentForm` for fldenv, fnstenv, frstor and fnsave; else ignored
   * @param operand address of the memory operand (2 to 108 bytes); whether the condition of FCMOVcc holds, as 0 or 1
   * @returns bits of `X87Result`
   */
  execute(operation: X87Operation, state: number, i: number, operand: number): number;
  /** Whether an MMX or waiting x87 instruction must raise #MF instead of executing. */
  isPending(state: number): boolean;
  /** Executing any MMX instruction but EMMS: TOP becomes 0 and all registers count as in use. */
  enterMmx(state: number): void;
  /** EMMS: all registers become empty. */
  leaveMmx(state: number): void;
  /** FNINIT; also what a reset leaves, but for the registers. */
  initialise(state: number): void;
  /** Writes the x87 part of an FXSAVE image, bytes 0–23 and 32–159; `wide` for 64-bit pointers (REX.W). */
  saveFxsaveArea(state: number, address: number, wide: boolean): void;
  /** Loads the x87 part of an FXSAVE image. */
  loadFxsaveArea(state: number, address: number, wide: boolean): void;
  /** Replaces the view; a memory that grows gets a new buffer. */
  attach(view: DataView): void;
}

const handlers: X87Handler[] = [];
for (const table of [
  arithmeticHandlers,
  compareHandlers,
  transferHandlers,
  transcendentalHandlers,
  environmentHandlers,
]) {
  for (const [operation, handler] of Object.entries(table)) handlers[Number(operation)] = handler;
}

const waits: boolean[] = [];
for (const description of Object.values(x87Operations)) waits[description.operation] = !description.withoutWaiting;

/** A unit that works on the memory behind `view`, until another is attached. */
export function createX87Unit(view: DataView): X87Unit {
  const machine = new X87Machine(view);
  const isPending = (state: number) =>
    (machine.view.getUint16(state + X87State.status, true) & X87Status.errorSummary) !== 0;

  function execute(operation: X87Operation, state: number, i: number, operand: number): number {
    const handler = handlers[operation];
    if (handler === undefined) {
      throw new RangeError(`The x87 unit has no operation ${operation}; use a value of X87Operation.`);
    }
    machine.begin(state);
    if (waits[operation] === true && (machine.status & X87Status.errorSummary) !== 0) return X87Result.pending;
    handler(machine, i, operand);
    machine.end();
    return machine.result;
  }

  return {
    execute,
    isPending,
    enterMmx(state) {
      machine.begin(state);
      machine.top = 0;
      machine.occupied = 0xff;
      machine.end();
    },
    leaveMmx(state) {
      machine.view.setUint8(state + X87State.occupied, 0);
    },
    initialise(state) {
      execute(X87Operation.fninit, state, 0, 0);
    },
    saveFxsaveArea: (state, address, wide) => saveFxsaveArea(machine.view, state, address, wide),
    loadFxsaveArea: (state, address, wide) => loadFxsaveArea(machine, state, address, wide),
    attach(next) {
      machine.view = next;
    },
  };
}
