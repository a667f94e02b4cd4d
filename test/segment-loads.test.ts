import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CodeMode } from '../src/cpu/code-mode.ts';
import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { Exit } from '../src/cpu/exits.ts';
import { SystemResult } from '../src/cpu/operands.ts';
import type { ProcessorGroupOptions } from '../src/cpu/processor.ts';
import type { Descriptor } from '../src/cpu/processor-api.ts';
import { executeSystem } from '../src/cpu/system.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import type { GuestVirtual } from '../src/x86/brand.ts';
import { Cr4, Register, Vector } from '../src/x86/registers.ts';
import { CODE, descriptor, TestMachine } from './system-machine.ts';

/** The first is the interpreter; the second makes a region of what is executed twice. */
const TIERS: readonly (readonly [name: string, options: ProcessorGroupOptions])[] = [
  ['the interpreter', { jit: { threshold: 0 } }],
  ['a region', { jit: { threshold: 1, regionsPerModule: 1 } }],
];

const SELECTOR = 0x18;
const SEGMENTS = [SegmentRegister.es, SegmentRegister.ds, SegmentRegister.fs, SegmentRegister.gs] as const;
/** mov sreg,cx; hlt */
const moveTo = (segment: SegmentRegister): string => `8e ${(0xc1 + segment * 8).toString(16)} f4`;
/** push ecx; pop sreg; hlt */
const POPS: Readonly<Partial<Record<SegmentRegister, string>>> = {
  [SegmentRegister.es]: '51 07 f4',
  [SegmentRegister.ds]: '51 1f f4',
  [SegmentRegister.fs]: '51 0fa1 f4',
  [SegmentRegister.gs]: '51 0fa9 f4',
};
const NO_SERVICES = { timeStamp: () => {}, timeStampAuxiliary: () => 0, random: () => {} };

const FLAT = descriptor(0, 0xf_ffff, 0xc0f3);
const FLAT_UNMARKED = descriptor(0, 0xf_ffff, 0xc0f2);
const SMALL = descriptor(0x1234, 0xfff, 0x40f3);

/** What an instruction leaves: everything of the segment, and the exception. */
function segmentOf({ processor }: TestMachine, segment: SegmentRegister) {
  return [
    processor.selector(segment),
    processor.segmentBase(segment),
    processor.segmentLimit(segment),
    processor.segmentAttributes(segment),
    processor.codeMode,
  ];
}

/** Executes until HLT and counts what is left to the host on the way. */
function play(machine: TestMachine, start = CODE) {
  const { processor } = machine;
  processor.rip = start as GuestVirtual;
  for (let left = 0; ; left++) {
    const exit = processor.run(100);
    if (exit === Exit.exception) return { left, vector: processor.exitDetail, error: processor.exitError };
    if (exit !== Exit.system) throw new Error(`unexpected exit ${exit}`);
    if (processor.currentInstruction().operation === 'hlt') return { left, vector: null, error: 0 };
    const result = executeSystem(processor, NO_SERVICES);
    if (result === SystemResult.fault)
      return { left: left + 1, vector: processor.exitDetail, error: processor.exitError };
  }
}

function machineWith(options: ProcessorGroupOptions, program: string, value: number, found?: Descriptor): TestMachine {
  const machine = new TestMachine('pae', 3, options);
  machine.load(CODE, program);
  machine.processor.setValue(Register.rcx, value);
  if (found) machine.descriptors.set(value >> 3, found);
  return machine;
}

describe.each(TIERS)('in %s', (tier, options) => {
  /** Often enough for a region. */
  const warm = (machine: TestMachine): void => {
    const { processor } = machine;
    if (tier !== 'a region') return;
    const value = processor.low(Register.rcx);
    processor.setValue(Register.rcx, 0x13);
    for (let round = 0; round < 4; round++) play(machine);
    expect(machine.group.jit?.regions).toBeGreaterThan(0);
    processor.setValue(Register.rcx, value);
  };

  test.each(SEGMENTS)('a load of segment %i from a marked, flat descriptor does not leave', (segment) => {
    for (const program of [moveTo(segment), POPS[segment] as string]) {
      const machine = machineWith(options, program, SELECTOR | 3, FLAT);
      warm(machine);
      expect(play(machine)).toEqual({ left: 0, vector: null, error: 0 });
      expect(segmentOf(machine, segment)).toEqual([SELECTOR | 3, 0, 0xffff_ffff, 0xc0f3, CodeMode.flat32]);
    }
  });

  test('a load leaves when the descriptor is to be marked as accessed', () => {
    const machine = machineWith(options, moveTo(SegmentRegister.fs), SELECTOR | 3, FLAT_UNMARKED);
    warm(machine);
    expect(play(machine).left).toBe(1);
  });

  test('a load of DS leaves when code relies on flat segments and it is not; one of FS does not', () => {
    for (const [segment, left] of [
      [SegmentRegister.ds, 1],
      [SegmentRegister.fs, 0],
    ] as const) {
      for (const [value, found] of [
        [SELECTOR | 3, SMALL],
        [3, undefined],
      ] as const) {
        const machine = machineWith(options, moveTo(segment), value, found);
        warm(machine);
        expect(play(machine)).toEqual({ left, vector: null, error: 0 });
        expect(machine.processor.selector(segment)).toBe(value);
      }
    }
  });

  test('a load leaves that may make segments flat, for which other code is made', () => {
    const machine = machineWith(options, moveTo(SegmentRegister.ds), SELECTOR | 3, FLAT);
    machine.processor.loadSegment(SegmentRegister.ds, 0x13, SMALL);
    expect(machine.processor.codeMode).toBe(CodeMode.bits32);
    expect(play(machine).left).toBe(1);
    expect(machine.processor.codeMode).toBe(CodeMode.flat32);
  });

  test('a load of SS always leaves', () => {
    const machine = machineWith(options, moveTo(SegmentRegister.ss), SELECTOR | 3, FLAT);
    expect(play(machine).left).toBe(1);
  });

  test('a load whose descriptor must be brought in leaves, with nothing changed', () => {
    const machine = machineWith(options, moveTo(SegmentRegister.es), SELECTOR | 3, FLAT);
    warm(machine);
    const before = segmentOf(machine, SegmentRegister.es);
    machine.processor.descriptors = {
      read: () => {
        throw new PageAbsent(5, false);
      },
    };
    machine.processor.rip = CODE as GuestVirtual;
    expect(machine.processor.run(100)).toBe(Exit.system);
    expect(machine.processor.rip).toBe(CODE);
    expect(segmentOf(machine, SegmentRegister.es)).toEqual(before);
  });

  test('any load ends as it does when the host carries it out', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...SEGMENTS, SegmentRegister.ss),
        fc.constantFrom(0 as const, 3 as const),
        fc.integer({ min: 0, max: 3 }),
        fc.constantFrom(0, SELECTOR, 0x50),
        fc.integer({ min: 0, max: 0xff }),
        fc.constantFrom(0, 0x4000, 0x8000, 0xc000),
        fc.constantFrom(0, 0x1000, 0xffff_f000),
        (segment, privilege, requested, index, type, flags, base) => {
          const found = descriptor(base, 0xf_ffff, type | flags);
          const outcomes = [true, false].map((inPlace) => {
            const machine = machineWith(options, moveTo(segment), index | requested);
            machine.setPrivilege(privilege);
            machine.descriptors.set(SELECTOR >> 3, found);
            const { processor } = machine;
            if (inPlace) {
              const { vector, error } = play(machine);
              return { vector, error: vector === null ? 0 : error, segment: segmentOf(machine, segment) };
            }
            processor.rip = CODE as GuestVirtual;
            processor.currentInstruction();
            const failed = executeSystem(processor, NO_SERVICES) === SystemResult.fault;
            const vector = failed ? processor.exitDetail : null;
            return { vector, error: failed ? processor.exitError : 0, segment: segmentOf(machine, segment) };
          });
          expect(outcomes[0]).toEqual(outcomes[1]);
        },
      ),
      { numRuns: 30 },
    );
  });

  // rdtsc; mov esi,eax; mov edi,edx; rdtscp; hlt
  const READ_TIME = '0f31 89c6 89d7 0f01f9 f4';

  test('the time-stamp counter is read where it stands when the processor has a source for it', () => {
    const machine = machineWith(options, READ_TIME, 0x13);
    const { processor } = machine;
    let time = 0;
    processor.timeSource = {
      timeStamp: (out) => {
        out[0] = 0x9000_0000 + time++;
        out[1] = 7;
      },
      timeStampAuxiliary: () => 3,
    };
    warm(machine);
    time = 100;
    expect(play(machine)).toMatchObject({ left: 0, vector: null });
    const values = [Register.rsi, Register.rdi, Register.rax, Register.rdx, Register.rcx].map((register) =>
      processor.low(register),
    );
    expect(values).toEqual([0x9000_0064, 7, 0x9000_0065, 7, 3]);
    processor.cr4 |= Cr4.timeStampDisable;
    expect(play(machine).left).toBe(2);
    machine.setPrivilege(0);
    expect(play(machine).left).toBe(0);
  });

  test('the time-stamp counter is left to the host without one', () => {
    expect(play(machineWith(options, READ_TIME, 0)).left).toBe(2);
  });
});

test('a refused load names the selector', () => {
  const machine = machineWith({}, moveTo(SegmentRegister.gs), 0x50 | 3);
  expect(play(machine)).toEqual({ left: 1, vector: Vector.generalProtection, error: 0x50 });
});
