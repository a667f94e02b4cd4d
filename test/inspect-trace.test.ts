import { expect, test } from 'vitest';
import { type TraceLine, TraceWriter, traceArguments, traceValue } from '../src/inspect/trace.ts';
import { operationIds, operations } from '../src/ops/catalogue.ts';
import { createOperations, type Value } from '../src/ops/dispatch.ts';
import type { ValueType } from '../src/ops/schema.ts';
import type { GuestVirtual, Mfn } from '../src/x86/brand.ts';

function traced(bufferSize?: number) {
  const chunks: string[] = [];
  let time = 0;
  const writer = new TraceWriter({
    sink: (text) => chunks.push(text),
    now: () => (time += 10),
    ripOf: (vcpu) => (-0x7efaf000 + vcpu) as GuestVirtual,
    ...(bufferSize === undefined ? {} : { bufferSize }),
  });
  const lines = () => {
    writer.flush();
    return chunks
      .join('')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as TraceLine);
  };
  return { writer, chunks, lines };
}

test('an operation is one line with its arguments by name and type', () => {
  const { writer, lines } = traced();
  const { mmu } = createOperations(
    {
      mmu: {
        setPteAt: () => -22,
        pteVal: (_vcpu: number, low: number, _high: number, out: Uint32Array) => out.set([low, 8]),
      },
    },
    { observers: [writer] },
  );
  mmu.setPteAt(1, 0x12 as Mfn, -0x1000 as GuestVirtual, 0x34 as Mfn, 5, 0x67, 0x8000_0000);
  mmu.pteVal(0, 0x63, 1, new Uint32Array(2));
  expect(lines()).toEqual([
    {
      t: 10,
      v: 1,
      k: 'operation',
      n: 'mmu.setPteAt',
      p: '0xffffffff81051001',
      a: { space: '0x12', address: '0xfffffffffffff000', table: '0x34', index: 5, entry: '0x8000000000000067' },
      r: -22,
    },
    {
      t: 20,
      v: 0,
      k: 'operation',
      n: 'mmu.pteVal',
      p: '0xffffffff81051000',
      a: { entry: '0x100000063' },
      r: '0x800000063',
    },
  ]);
});

test('hypercalls and exits are lines of the same form', () => {
  const { writer, lines } = traced();
  writer.hypercall(0, 'sched_op', ['0x1', '0xffffffffffffffff'], 0);
  writer.exit(0, 'exception', { detail: 14, error: 2 });
  expect(lines()).toEqual([
    { t: 10, v: 0, k: 'hypercall', n: 'sched_op', p: '0xffffffff81051000', a: ['0x1', '0xffffffffffffffff'], r: 0 },
    { t: 20, v: 0, k: 'exit', n: 'exception', p: '0xffffffff81051000', a: { detail: 14, error: 2 } },
  ]);
});

test('no more than the buffer and one line is held back', () => {
  const { writer, chunks } = traced(200);
  for (let call = 0; call < 20; call++) writer.hypercall(0, 'xen_version', ['0x0', '0x0'], 0);
  expect(chunks.length).toBeGreaterThan(3);
  for (const chunk of chunks) {
    expect(chunk.endsWith('\n')).toBe(true);
    expect(chunk.length).toBeLessThan(200 + 120);
  }
  writer.flush();
  const written = chunks.join('');
  writer.flush();
  expect(chunks.join('')).toBe(written);
  expect(written.trimEnd().split('\n')).toHaveLength(20);
});

const samples: Readonly<Record<ValueType, readonly [values: readonly Value[], shown: unknown]>> = {
  virtual: [[-1], '0xffffffffffffffff'],
  table: [[-1], 'none'],
  page: [[0x10_0000_0000], '0x1000000000'],
  pages: [[[1, 255]], ['0x1', '0xff']],
  mfn: [[17], '0x11'],
  pfn: [[17], '0x11'],
  index: [[17], 17],
  level: [[2], 2],
  pte: [[0x1067, 0x8000_0000], '0x8000000000001067'],
  word: [[0xffff_ffff], '0xffffffff'],
  long: [[5, 0], '0x5'],
  descriptor: [[0xffff, 0x00af_9b00], '0xaf9b000000ffff'],
  selector: [[0x2b], '0x2b'],
  port: [[0x3f8], '0x3f8'],
  count: [[16], 16],
  flags: [[0x200], '0x200'],
  truth: [[true], true],
  vcpu: [[1], 1],
  vcpuSet: [[3], '0x3'],
  nanoseconds: [[1e15], 1e15],
  seconds: [[1.5e9], 1.5e9],
  kilohertz: [[2e6], 2e6],
  lazyMode: [['mmu'], 'mmu'],
  text: [['LGUEST'], 'LGUEST'],
};

test.each(Object.entries(samples))('a value of type %s', (type, [[value, high], shown]) => {
  expect(traceValue(type as ValueType, value, high)).toEqual(shown);
});

test('every operation of the catalogue can be traced: one named argument a row', () => {
  for (const operation of operations) {
    const values: Value[] = [0];
    for (const [, type] of operation.row.arguments) values.push(...samples[type][0]);
    const named = traceArguments(operation, values);
    expect(named, operation.fullName).toEqual(
      Object.fromEntries(operation.row.arguments.map(([name, type]) => [name, samples[type][1]])),
    );
  }
  expect(operations[operationIds.mmu.setPteAt]?.row.arguments.length).toBe(5);
});
