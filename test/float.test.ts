import process from 'node:process';
import { describe, expect, it } from 'vitest';
import { createSseUnit } from '../src/cpu/float/sse.ts';
import { SseOperation, SseResult, sseOperations } from '../src/cpu/float/sse-operations.ts';
import { createX87Unit } from '../src/cpu/float/x87.ts';
import { EnvironmentForm } from '../src/cpu/float/x87-environment.ts';
import { X87Result, X87State, X87Status } from '../src/cpu/float/x87-machine.ts';
import { findX87Operation, X87Operation, x87Operations } from '../src/cpu/float/x87-operations.ts';
import { compareSse, sseCases } from './float/sse-cases.ts';
import { compareX87, x87Cases } from './float/x87-cases.ts';

/**
 * The float units against this machine's own processor.
 *
 * FLOAT_CASES sets the random records for each instruction form (a million takes about an hour), FLOAT_SEED the seed.
 */

const count = Number(process.env.FLOAT_CASES ?? 1000);
const seed = Number(process.env.FLOAT_SEED ?? 1);
const timeout = 10_000 + count * 2;

/** Records per run of the processor, to bound memory. */
const chunk = 100_000;

function differences(compare: (records: number, seed: number) => string[]): string[] {
  for (let done = 0; done < count; done += chunk) {
    const found = compare(Math.min(chunk, count - done), seed + done);
    if (found.length > 0) return found;
  }
  return [];
}

describe(`SSE gives the processor's results, flags and traps (seed ${seed})`, () => {
  it.each(sseCases.map((item) => [item.name, item] as const))(
    '%s',
    (_name, item) => {
      expect(differences((records, from) => compareSse(item, records, from))).toEqual([]);
    },
    timeout,
  );
});

describe(`x87 gives the processor's results, flags and traps (seed ${seed})`, () => {
  const named = x87Cases.map((item) => [item.form === 0 ? `${item.name} (16-bit)` : item.name, item] as const);
  it.each(named)(
    '%s',
    (_name, item) => {
      expect(differences((records, from) => compareX87(item, records, from))).toEqual([]);
    },
    timeout,
  );
});

describe('the comparison with the processor', () => {
  it('covers every SSE operation', () => {
    const covered = new Set(sseCases.map((item) => item.operation));
    for (let operation = 0; operation < SseOperation.count; operation++) expect(covered).toContain(operation);
    expect(Object.keys(sseOperations)).toHaveLength(SseOperation.count);
  });

  it('covers every x87 operation', () => {
    const covered = new Set(x87Cases.map((item) => item.operation));
    for (let operation = 0; operation < X87Operation.count; operation++) expect(covered).toContain(operation);
  });

  it('notices a wrong operation', () => {
    const sum = sseCases.find((item) => item.name === 'addsd');
    if (sum === undefined) throw new Error('addsd is missing');
    expect(compareSse({ ...sum, operation: SseOperation.subsd }, 100, seed)).not.toEqual([]);
  });
});

/** Memory for one unit: operands from 0, state at 256, images from 512. */
function createBench() {
  const memory = new DataView(new ArrayBuffer(2048));
  const state = 256;
  const unit = createX87Unit(memory);
  unit.initialise(state);
  const run = (key: string, i = 0, operand = 0) => {
    const description = x87Operations[key];
    if (description === undefined) throw new Error(`no x87 operation ${key}`);
    return unit.execute(description.operation, state, i, operand);
  };
  const load = (value: number) => {
    memory.setFloat64(0, value, true);
    run('fld m64');
  };
  const status = () => memory.getUint16(state + X87State.status, true);
  return { memory, state, unit, run, load, status };
}

describe('the x87 unit', () => {
  it('refuses a waiting instruction while an unmasked exception is pending', () => {
    const { memory, state, run, load, status } = createBench();
    load(1);
    load(0);
    memory.setUint16(16, 0x037b, true);
    run('fldcw', 0, 16);
    expect(run('fdivp', 1)).toBe(0);
    const before = status();
    expect(before & X87Status.errorSummary).not.toBe(0);
    expect(run('fld1')).toBe(X87Result.pending);
    expect(status()).toBe(before);
    expect(run('fnclex')).toBe(0);
    expect(run('fld1')).toBe(0);
    expect(memory.getUint8(state + X87State.occupied)).not.toBe(0);
  });

  it('stores nothing and keeps the stack when a store finds an unmasked exception', () => {
    const { memory, run, load, status } = createBench();
    load(1e300);
    memory.setUint16(16, 0x0377, true);
    run('fldcw', 0, 16);
    memory.setUint32(32, 0x12345678, true);
    const top = status() & X87Status.top;
    expect(run('fstp m32', 0, 32)).toBe(X87Result.suppressed);
    expect(memory.getUint32(32, true)).toBe(0x12345678);
    expect(status() & X87Status.top).toBe(top);
  });

  it('aliases MMX registers with significands in physical order', () => {
    const { memory, state, unit, load, status } = createBench();
    load(1.5);
    expect(memory.getBigUint64(state + 7 * X87State.registerSize, true)).toBe(0xc000000000000000n);
    unit.enterMmx(state);
    expect(status() & X87Status.top).toBe(0);
    expect(memory.getUint8(state + X87State.occupied)).toBe(0xff);
    unit.leaveMmx(state);
    expect(memory.getUint8(state + X87State.occupied)).toBe(0);
  });

  it.each([
    ['protected mode', EnvironmentForm.wide],
    ['16-bit protected mode', 0],
    ['real mode', EnvironmentForm.wide | EnvironmentForm.realMode],
    ['16-bit real mode', EnvironmentForm.realMode],
  ] as const)('restores what it saved in the %s form', (_name, form) => {
    const { memory, state, run, load } = createBench();
    load(3);
    load(-0);
    memory.setUint32(state + X87State.instruction, 0x000c_5678, true);
    memory.setUint32(state + X87State.data, 0x0009_4321, true);
    const bytes = () => Array.from(new Uint8Array(memory.buffer, state, X87State.codeSelector));
    const before = bytes();
    run('fnsave', form, 512);
    expect(bytes()).not.toEqual(before);
    run('frstor', form, 512);
    const after = bytes();
    // The 16-bit protected form has no room for the upper halves of the pointers.
    if (form === 0) after[X87State.instruction + 2] = 0xc;
    if (form === 0) after[X87State.data + 2] = 0x9;
    expect(after).toEqual(before);
  });

  it('packs real-mode pointers and the opcode as the manual draws them', () => {
    const { memory, state, run } = createBench();
    memory.setUint16(state + X87State.opcode, 0x5ab, true);
    memory.setUint32(state + X87State.instruction, 0x1234_5678, true);
    memory.setUint32(state + X87State.data, 0x9abc_def0, true);
    run('fnstenv', EnvironmentForm.wide | EnvironmentForm.realMode, 512);
    const words = [3, 4, 5, 6].map((i) => memory.getUint32(512 + i * 4, true));
    expect(words).toEqual([0xffff5678, 0x012345ab, 0xffffdef0, 0x09abc000]);
    run('fnstenv', EnvironmentForm.realMode, 512);
    const halves = [3, 4, 5, 6].map((i) => memory.getUint16(512 + i * 2, true));
    expect(halves).toEqual([0x5678, 0x45ab, 0xdef0, 0xc000]);
  });

  it('writes and reads the FXSAVE area in stack order with abridged tags', () => {
    const { memory, state, unit, load, run } = createBench();
    load(2);
    load(4);
    memory.setUint16(state + X87State.opcode, 0x123, true);
    memory.setBigUint64(state + X87State.instruction, 0xffff_8000_1234_5678n, true);
    memory.setBigUint64(state + X87State.data, 0x7fff_1234_5678n, true);
    unit.saveFxsaveArea(state, 512, true);
    expect(memory.getUint16(512, true)).toBe(0x037f);
    expect(memory.getUint16(514, true)).toBe(6 << X87Status.topShift);
    expect(memory.getUint8(516)).toBe(0b1100_0000);
    expect(memory.getUint16(518, true)).toBe(0x123);
    expect(memory.getBigUint64(520, true)).toBe(0xffff_8000_1234_5678n);
    expect(memory.getUint16(544 + 8, true)).toBe(0x4001);
    expect(memory.getUint16(560 + 8, true)).toBe(0x4000);

    const before = new Uint8Array(memory.buffer).slice(state, state + X87State.size);
    run('fninit');
    for (let i = 0; i < X87State.control; i++) memory.setUint8(state + i, 0);
    unit.loadFxsaveArea(state, 512, true);
    expect(new Uint8Array(memory.buffer).slice(state, state + X87State.size)).toEqual(before);

    unit.saveFxsaveArea(state, 512, false);
    expect(memory.getUint32(520, true)).toBe(0x12345678);
    expect(memory.getUint32(524, true)).toBe(0);
  });

  it('finds operations by mnemonic, operand size and destination', () => {
    expect(findX87Operation('fadd', 8)?.operation).toBe(X87Operation.faddM64);
    expect(findX87Operation('fadd')?.operation).toBe(X87Operation.fadd);
    expect(findX87Operation('fdivr', 0, true)?.operation).toBe(X87Operation.fdivrSti);
    expect(findX87Operation('fnsave', 108)?.operation).toBe(X87Operation.fnsave);
    expect(findX87Operation('fnsave')?.withoutWaiting).toBe(true);
    expect(findX87Operation('addps')).toBeUndefined();
  });
});

describe('the SSE unit', () => {
  it('may write its result over an operand', () => {
    const memory = new DataView(new ArrayBuffer(64));
    for (let i = 0; i < 4; i++) memory.setFloat32(i * 4, i + 1, true);
    const unit = createSseUnit(memory);
    unit.execute(SseOperation.haddps, 0x1f80, 0, 0, 0, 0);
    expect([0, 4, 8, 12].map((offset) => memory.getFloat32(offset, true))).toEqual([3, 7, 3, 7]);
  });

  it('writes nothing when one lane has an unmasked exception', () => {
    const memory = new DataView(new ArrayBuffer(64));
    memory.setFloat64(0, 1, true);
    memory.setFloat64(8, 1, true);
    memory.setFloat64(16, 1, true);
    const unit = createSseUnit(memory);
    const result = unit.execute(SseOperation.divpd, 0x1f80 & ~(1 << 9), 32, 0, 16, 0);
    expect(result & SseResult.exception).not.toBe(0);
    expect(memory.getFloat64(32, true)).toBe(0);
  });
});
