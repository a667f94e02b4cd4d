import { createSseUnit } from '../../src/cpu/float/sse.ts';
import { SseOperation, SseResult, sseOperations } from '../../src/cpu/float/sse-operations.ts';
import { type Batch, OracleKind, recordSize, runOnProcessor } from './oracle.ts';
import { Random, writeFloat32, writeFloat64 } from './random.ts';

/** Comparison of the SSE unit with the processor. */

type Result = 'xmm' | 'register' | 'mmx' | 'eflags';
type Element = 'single' | 'double' | 'integer';

export interface SseCase {
  name: string;
  operation: SseOperation;
  code: readonly number[];
  element: Element;
  result: Result;
  immediate: boolean;
}

const prefixes = { ps: [], pd: [0x66], ss: [0xf3], sd: [0xf2] } as const;

function collectCases(): SseCase[] {
  const cases: SseCase[] = [];
  const put = (name: string, code: readonly number[], element: Element, result: Result = 'xmm', immediate = false) => {
    const operation = sseOperations[name];
    if (operation === undefined) throw new Error(`${name} is not in the table of SSE operations`);
    cases.push({ name, operation, code, element, result, immediate });
  };
  const forms = ['ps', 'pd', 'ss', 'sd'] as const;
  const families = { add: 0x58, mul: 0x59, sub: 0x5c, min: 0x5d, div: 0x5e, max: 0x5f, sqrt: 0x51 } as const;
  for (const [family, opcode] of Object.entries(families)) {
    for (const form of forms) {
      put(family + form, [...prefixes[form], 0x0f, opcode, 0xc1], form.endsWith('s') ? 'single' : 'double');
    }
  }
  for (const form of forms) {
    const element = form.endsWith('s') ? 'single' : 'double';
    put(`cmp${form}`, [...prefixes[form], 0x0f, 0xc2, 0xc1], element, 'xmm', true);
  }
  for (const [form, opcode] of [
    ['ps', 8],
    ['pd', 9],
    ['ss', 10],
    ['sd', 11],
  ] as const) {
    put(`round${form}`, [0x66, 0x0f, 0x3a, opcode, 0xc1], form.endsWith('s') ? 'single' : 'double', 'xmm', true);
  }
  put('comiss', [0x0f, 0x2f, 0xc1], 'single', 'eflags');
  put('comisd', [0x66, 0x0f, 0x2f, 0xc1], 'double', 'eflags');
  put('ucomiss', [0x0f, 0x2e, 0xc1], 'single', 'eflags');
  put('ucomisd', [0x66, 0x0f, 0x2e, 0xc1], 'double', 'eflags');
  for (const [form, prefix, element] of [
    ['ss', 0xf3, 'single'],
    ['sd', 0xf2, 'double'],
  ] as const) {
    put(`cvtsi2${form}32`, [prefix, 0x0f, 0x2a, 0xc0], 'integer');
    put(`cvtsi2${form}64`, [prefix, 0x48, 0x0f, 0x2a, 0xc0], 'integer');
    put(`cvt${form}2si32`, [prefix, 0x0f, 0x2d, 0xc1], element, 'register');
    put(`cvt${form}2si64`, [prefix, 0x48, 0x0f, 0x2d, 0xc1], element, 'register');
    put(`cvtt${form}2si32`, [prefix, 0x0f, 0x2c, 0xc1], element, 'register');
    put(`cvtt${form}2si64`, [prefix, 0x48, 0x0f, 0x2c, 0xc1], element, 'register');
  }
  put('cvtdq2ps', [0x0f, 0x5b, 0xc1], 'integer');
  put('cvtdq2pd', [0xf3, 0x0f, 0xe6, 0xc1], 'integer');
  put('cvtps2dq', [0x66, 0x0f, 0x5b, 0xc1], 'single');
  put('cvttps2dq', [0xf3, 0x0f, 0x5b, 0xc1], 'single');
  put('cvtpd2dq', [0xf2, 0x0f, 0xe6, 0xc1], 'double');
  put('cvttpd2dq', [0x66, 0x0f, 0xe6, 0xc1], 'double');
  put('cvtpi2ps', [0x0f, 0x2a, 0xc1], 'integer');
  put('cvtpi2pd', [0x66, 0x0f, 0x2a, 0xc1], 'integer');
  put('cvtps2pi', [0x0f, 0x2d, 0xc1], 'single', 'mmx');
  put('cvttps2pi', [0x0f, 0x2c, 0xc1], 'single', 'mmx');
  put('cvtpd2pi', [0x66, 0x0f, 0x2d, 0xc1], 'double', 'mmx');
  put('cvttpd2pi', [0x66, 0x0f, 0x2c, 0xc1], 'double', 'mmx');
  put('cvtss2sd', [0xf3, 0x0f, 0x5a, 0xc1], 'single');
  put('cvtsd2ss', [0xf2, 0x0f, 0x5a, 0xc1], 'double');
  put('cvtps2pd', [0x0f, 0x5a, 0xc1], 'single');
  put('cvtpd2ps', [0x66, 0x0f, 0x5a, 0xc1], 'double');
  put('haddps', [0xf2, 0x0f, 0x7c, 0xc1], 'single');
  put('haddpd', [0x66, 0x0f, 0x7c, 0xc1], 'double');
  put('hsubps', [0xf2, 0x0f, 0x7d, 0xc1], 'single');
  put('hsubpd', [0x66, 0x0f, 0x7d, 0xc1], 'double');
  put('addsubps', [0xf2, 0x0f, 0xd0, 0xc1], 'single');
  put('addsubpd', [0x66, 0x0f, 0xd0, 0xc1], 'double');
  put('dpps', [0x66, 0x0f, 0x3a, 0x40, 0xc1], 'single', 'xmm', true);
  put('dppd', [0x66, 0x0f, 0x3a, 0x41, 0xc1], 'double', 'xmm', true);
  put('rcpps', [0x0f, 0x53, 0xc1], 'single');
  put('rcpss', [0xf3, 0x0f, 0x53, 0xc1], 'single');
  put('rsqrtps', [0x0f, 0x52, 0xc1], 'single');
  put('rsqrtss', [0xf3, 0x0f, 0x52, 0xc1], 'single');
  return cases;
}

export const sseCases: readonly SseCase[] = collectCases();

const size = recordSize[OracleKind.sse];

function writeOperand(random: Random, view: DataView, offset: number, element: Element, center: number): void {
  if (element === 'integer') {
    for (let i = 0; i < 16; i += 8) {
      let value = random.pattern(random.pick([8, 25, 31, 32, 53, 63, 64]));
      if (random.once(2)) value = -value;
      view.setBigInt64(offset + i, BigInt.asIntN(64, value), true);
      if (random.once(2)) view.setInt32(offset + i, view.getInt32(offset + i + 4, true), true);
    }
  } else if (element === 'single') {
    for (let i = 0; i < 16; i += 4) writeFloat32(random, view, offset + i, center);
  } else {
    for (let i = 0; i < 16; i += 8) writeFloat64(random, view, offset + i, center);
  }
}

/** Half of the records have all exceptions masked, the others a random mask. */
function writeRecord(random: Random, view: DataView, offset: number, element: Element): void {
  const center =
    element === 'single' ? random.pick([random.below(256), 127, 30]) : random.pick([random.below(2048), 1023]);
  writeOperand(random, view, offset, element, center);
  writeOperand(random, view, offset + 16, element, center + random.below(3) * random.below(60));
  // Equal operands, whole or in part.
  if (random.once(8))
    for (let i = 0; i < 16; i += 4) view.setInt32(offset + i, view.getInt32(offset + 16 + i, true), true);
  // MM0 and RAX are compared for results only; the oracle does not take them in.
  let mxcsr = (random.word() & 0xe040) | 0x1f80;
  if (random.once(2)) mxcsr &= ~0x8040;
  if (random.once(2)) mxcsr = (mxcsr & ~0x1f80) | (random.word() & 0x1f80);
  if (random.once(4)) mxcsr |= random.word() & 0x3f;
  view.setUint32(offset + 48, mxcsr, true);
  view.setUint32(offset + 56, 0x202 | (random.word() & 0x8d5), true);
}

function hex(view: DataView, offset: number, length: number): string {
  let text = '';
  for (let i = length - 1; i >= 0; i--)
    text += view
      .getUint8(offset + i)
      .toString(16)
      .padStart(2, '0');
  return text;
}

const eflagsMask = 0x8d5;

/** Runs `count` random records of a case on both. Returns a line for each difference, at most `limit` of them. */
export function compareSse(item: SseCase, count: number, seed: number, limit = 5): string[] {
  const random = new Random(seed);
  const immediates: number[] = item.immediate
    ? item.operation >= SseOperation.dpps
      ? Array.from({ length: 24 }, () => random.below(256))
      : Array.from({ length: item.operation >= SseOperation.roundps ? 16 : 8 }, (_, i) => i)
    : [0];
  const each = Math.ceil(count / immediates.length);
  const batches: Batch[] = immediates.map((immediate) => {
    const records = new Uint8Array(each * size);
    const view = new DataView(records.buffer);
    for (let i = 0; i < each; i++) writeRecord(random, view, i * size, item.element);
    return { kind: OracleKind.sse, code: item.immediate ? [...item.code, immediate] : item.code, records };
  });
  const answers = runOnProcessor(batches);

  const memory = new DataView(new ArrayBuffer(64));
  const bytes = new Uint8Array(memory.buffer);
  const unit = createSseUnit(memory);
  const differences: string[] = [];
  batches.forEach((batch, index) => {
    const immediate = immediates[index] as number;
    const input = new DataView(batch.records.buffer);
    const answer = answers[index] as Uint8Array;
    const expected = new DataView(answer.buffer, answer.byteOffset, answer.length);
    for (let offset = 0; offset < batch.records.length; offset += size) {
      bytes.set(batch.records.subarray(offset, offset + 32), 16);
      bytes.fill(0xaa, 0, 16);
      const mxcsr = input.getUint32(offset + 48, true);
      const result = unit.execute(item.operation, mxcsr, 0, 16, 32, immediate);
      const trapped = (result & SseResult.exception) !== 0;
      const flags = (mxcsr & ~0x3f) | (result & 0x3f);
      const problem = judge(item, result, trapped, flags, memory, expected, offset);
      if (problem !== '' && differences.length < limit) {
        differences.push(
          `${item.name} ${immediate} mxcsr ${mxcsr.toString(16)} a ${hex(input, offset, 16)} b ${hex(input, offset + 16, 16)}: ${problem}`,
        );
      }
    }
  });
  return differences;
}

function judge(
  item: SseCase,
  result: number,
  trapped: boolean,
  mxcsr: number,
  memory: DataView,
  expected: DataView,
  offset: number,
): string {
  const expectedTrap = expected.getUint32(offset + 52, true) !== 0;
  if (trapped !== expectedTrap) return expectedTrap ? 'the processor traps' : 'the processor does not trap';
  const expectedMxcsr = expected.getUint32(offset + 48, true);
  if (mxcsr !== expectedMxcsr) return `mxcsr ${mxcsr.toString(16)} instead of ${expectedMxcsr.toString(16)}`;
  if (trapped) {
    for (let i = 0; i < 16; i++) if (memory.getUint8(i) !== 0xaa) return 'the destination was written despite #XM';
    return '';
  }
  if (item.result === 'eflags') {
    const flags = (result >>> SseResult.eflagsShift) & eflagsMask;
    const expectedFlags = expected.getUint32(offset + 56, true) & eflagsMask;
    return flags === expectedFlags ? '' : `eflags ${flags.toString(16)} instead of ${expectedFlags.toString(16)}`;
  }
  if (item.operation >= SseOperation.rcpps) return judgeApproximation(memory, expected, offset);
  const length = item.result === 'xmm' ? 16 : 8;
  const start = offset + (item.result === 'xmm' ? 0 : item.result === 'mmx' ? 32 : 40);
  const ours = hex(memory, 0, length);
  const theirs = hex(expected, start, length);
  return ours === theirs ? '' : `${ours} instead of ${theirs}`;
}

/** Both may err by 1.5 · 2^−12, and results as small as the smallest normal may become zero (SDM, RCPPS and RSQRTPS). */
function judgeApproximation(memory: DataView, expected: DataView, offset: number): string {
  for (let i = 0; i < 16; i += 4) {
    if (memory.getUint32(i, true) === expected.getUint32(offset + i, true)) continue;
    const ours = memory.getFloat32(i, true);
    const theirs = expected.getFloat32(offset + i, true);
    if (Math.abs(ours - theirs) <= Math.abs(theirs) * 3 * 2 ** -12) continue;
    if (Math.abs(ours) < 1.001 * 2 ** -126 && Object.is(theirs, ours * 0)) continue;
    return `lane ${i / 4}: ${hex(memory, i, 4)} instead of ${hex(expected, offset + i, 4)}`;
  }
  return '';
}
