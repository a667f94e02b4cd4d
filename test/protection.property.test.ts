import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { Exit } from '../src/cpu/exits.ts';
import { SystemResult } from '../src/cpu/operands.ts';
import { type Processor, ProcessorGroup } from '../src/cpu/processor.ts';
import { deliverException, deliverInterrupt, deliverSoftwareInterrupt } from '../src/cpu/protection/delivery.ts';
import { transferThroughGate } from '../src/cpu/protection/gates.ts';
import { farReturn, interruptReturn } from '../src/cpu/protection/returns.ts';
import { SystemState } from '../src/cpu/protection/system-state.ts';
import { executeSystem } from '../src/cpu/system.ts';
import type { Translation } from '../src/cpu/translation.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { Cr0, Flag, Register } from '../src/x86/registers.ts';
import { FLAT_CODE_32, FLAT_DATA } from './system-machine.ts';

/**
 * Tables of a guest that means harm, in protected mode without paging: whatever descriptors, gates and tasks hold, an entry
 * into the kernel or a return ends, and one that is refused has changed nothing.
 */

const PAGES = 24;
const CODE = 0x1000;
const GDT = 0x2000;
const IDT = 0x3000;
const TASKS = 0x4000;
const STACK = 0x8000;
const DESCRIPTORS = 24;
/** Beyond the table, so that no switch leads back to it. */
const FIRST_TASK = 0x1f8;
const GATES = 32;

const memory = new HostMemory((PAGES + 16) * PAGE_SIZE + (24 << 20));
const pool = new FramePool(memory, PAGES);
const frames = Int32Array.from({ length: PAGES }, () => pool.allocate());
const group = new ProcessorGroup(memory, pool, { tlbEntries: 64, codeBytes: 1 << 20, jit: { threshold: 0 } });
const processor = group.create();
const translation: Translation = { format: 'none', frames };
const state = new SystemState(processor, {
  none: translation,
  'two-level': { ...translation, format: 'two-level' },
  pae: { ...translation, format: 'pae' },
  'four-level': { ...translation, format: 'four-level' },
});

const SERVICES = { timeStamp: () => {}, timeStampAuxiliary: () => 0, random: () => {} };
const ALL_SEGMENTS = [0, 1, 2, 3, 4, 5] as readonly SegmentRegister[];

/** What the architecture keeps when it refuses something. */
function registersOf({ rip, flags, privilege, userMode, codeSize, stackSize }: Processor): object {
  return {
    values: Array.from({ length: 8 }, (_none, register) => processor.low(register as Register)),
    segments: ALL_SEGMENTS.map((segment) => [
      processor.selector(segment),
      processor.segmentBase(segment),
      processor.segmentLimit(segment),
      processor.segmentAttributes(segment),
    ]),
    ...{ rip, flags, privilege, userMode, codeSize, stackSize },
    task: { ...state.task },
    local: { ...state.ldt },
  };
}

function writeWord(address: number, value: number): void {
  memory.view.setUint32(pool.addressOf(frames[address >>> 12] as never) + (address & 0xfff), value, true);
}

/** Code and data of ring 0 and ring 3, and a task: without any sound descriptor hardly anything gets far. */
const SOUND = [
  { base: 0, limit: 0, access: 0, flags: 0 },
  { base: 0, limit: 0xf_ffff, access: 0x9a, flags: 0xc },
  { base: 0, limit: 0xf_ffff, access: 0x92, flags: 0xc },
  { base: 0, limit: 0xf_ffff, access: 0xfa, flags: 0xc },
  { base: 0, limit: 0xf_ffff, access: 0xf2, flags: 0xc },
  { base: TASKS + 0x100, limit: 0x67, access: 0x89, flags: 0 },
] as const;
const RANDOM = DESCRIPTORS - SOUND.length;
const soundSelector = fc.constantFrom(0x08, 0x10, 0x1b, 0x23, 0x28);
const selector = fc.oneof(
  { weight: 3, arbitrary: soundSelector },
  { weight: 1, arbitrary: fc.nat(DESCRIPTORS * 8 + 15) },
);
/** Mostly near the memory that there is; access bytes and limits of every kind. */
const descriptor = fc.record({
  base: fc.oneof(fc.nat(PAGES * PAGE_SIZE), fc.constantFrom(0, TASKS, TASKS + 0x100, 0xffff_f000)),
  limit: fc.oneof(fc.constantFrom(0x67, 0x2b, 0xffff, 0xf_ffff, 0), fc.nat(0xf_ffff)),
  access: fc.oneof(
    fc.constantFrom(0x89, 0x81, 0x8b, 0x82, 0x9a, 0x92, 0xfa, 0xf2, 0x85, 0xe5, 0xec, 0xe4),
    fc.nat(0xff),
  ),
  flags: fc.constantFrom(0xc, 0x4, 0x0, 0x8),
});
const gate = fc.record({
  offset: fc.oneof(fc.nat(0x2000), fc.nat(0xffff_ffff)),
  selector,
  access: fc.oneof(fc.constantFrom(0x8e, 0xee, 0x8f, 0x85, 0xe5, 0x86, 0xe7), fc.nat(0xff)),
});
const word = fc.oneof(
  fc.nat(0xffff_ffff),
  fc.nat(PAGES * PAGE_SIZE),
  selector,
  fc.constantFrom(0x2_3202, 0x4002, 0x202),
);

const attempt = fc.oneof(
  fc.record({ kind: fc.constant('exception' as const), vector: fc.nat(GATES - 1), error: fc.nat(0xffff) }),
  fc.record({ kind: fc.constant('interrupt' as const), vector: fc.nat(GATES - 1) }),
  fc.record({ kind: fc.constant('call' as const), vector: fc.nat(GATES + 2) }),
  fc.record({
    kind: fc.constant('far' as const),
    opcode: fc.constantFrom(0x9a, 0xea),
    offset: fc.oneof(fc.nat(0x2000), fc.nat(0xffff_ffff)),
    selector,
  }),
  fc.record({ kind: fc.constant('return' as const), opcode: fc.constantFrom(0xcf, 0xcb), short: fc.boolean() }),
);
type Attempt = typeof attempt extends fc.Arbitrary<infer Kind> ? Kind : never;

/** Whether it was carried out. */
function carryOut(wanted: Attempt): boolean {
  const execute = (...bytes: number[]): Exit => {
    bytes.forEach((byte, index) => {
      memory.u8[pool.addressOf(frames[CODE >>> 12] as never) + index] = byte;
    });
    group.frameWritten(frames[CODE >>> 12] as never, 0, bytes.length);
    return processor.step();
  };
  const settle = (result: SystemResult): SystemResult =>
    result === SystemResult.interface ? executeSystem(processor, SERVICES) : result;
  switch (wanted.kind) {
    case 'exception':
      processor.raise(wanted.vector, wanted.error);
      return deliverException(state);
    case 'interrupt':
      return deliverInterrupt(state, wanted.vector);
    case 'call':
      expect(execute(0xcd, wanted.vector)).toBe(Exit.softwareInterrupt);
      return deliverSoftwareInterrupt(state, wanted.vector);
    case 'far': {
      const { opcode, offset, selector: named } = wanted;
      const bytes = [offset, offset >>> 8, offset >>> 16, offset >>> 24, named, named >>> 8].map((byte) => byte & 0xff);
      if (execute(opcode, ...bytes) !== Exit.system) return false;
      return settle(transferThroughGate(state, processor.currentInstruction())) === SystemResult.done;
    }
    case 'return': {
      if (execute(...(wanted.short ? [0x66] : []), wanted.opcode) !== Exit.system) return false;
      const instruction = processor.currentInstruction();
      if (wanted.opcode === 0xcf) return interruptReturn(state, instruction) === SystemResult.done;
      const result = executeSystem(processor, SERVICES);
      return (result === SystemResult.interface ? farReturn(state, instruction) : result) === SystemResult.done;
    }
  }
}

function begin(ring: 0 | 3, flags: number, taskType: number): void {
  const at = (entry: { low: number; high: number }) => ({ low: entry.low, high: entry.high | (ring << 13) });
  processor.flags = Flag.reserved;
  processor.cr0 = Cr0.protection;
  state.usePaging();
  Object.assign(state.gdt, { base: GDT, limit: DESCRIPTORS * 8 - 1 });
  Object.assign(state.idt, { base: IDT, limit: GATES * 8 - 1 });
  Object.assign(state.ldt, { selector: 0, base: 0, limit: 0, type: 0 });
  Object.assign(state.task, { selector: FIRST_TASK, base: TASKS, limit: 0x67, type: taskType });
  processor.loadSegment(SegmentRegister.cs, 0x80 | ring, at(FLAT_CODE_32));
  for (const segment of ALL_SEGMENTS) {
    if (segment !== SegmentRegister.cs) processor.loadSegment(segment, 0x88 | ring, at(FLAT_DATA));
  }
  processor.userMode = ring === 3;
  for (let register = 0; register < 8; register++) processor.set(register as Register, register * 0x111, 0);
  processor.set(Register.rsp, STACK, 0);
  processor.flags = flags | Flag.reserved;
  processor.rip = CODE as GuestVirtual;
}

test('entries and returns end, and change nothing when they are refused', () => {
  fc.assert(
    fc.property(
      fc.record({
        ring: fc.constantFrom(0 as const, 3 as const),
        flags: fc.constantFrom(0, Flag.nestedTask, Flag.iopl),
        taskType: fc.constantFrom(11, 3, 0),
        descriptors: fc.array(descriptor, { minLength: RANDOM, maxLength: RANDOM }),
        gates: fc.array(gate, { minLength: GATES, maxLength: GATES }),
        tasks: fc.array(word, { minLength: 128, maxLength: 128 }),
        stack: fc.array(word, { minLength: 16, maxLength: 16 }),
        wanted: attempt,
      }),
      ({ ring, flags, taskType, descriptors, gates, tasks, stack, wanted }) => {
        [...SOUND, ...descriptors].forEach(({ base, limit, access, flags: size }, index) => {
          writeWord(GDT + index * 8, ((base << 16) | (limit & 0xffff)) >>> 0);
          const high =
            (base & 0xff00_0000) | (size << 20) | (limit & 0xf_0000) | (access << 8) | ((base >>> 16) & 0xff);
          writeWord(GDT + index * 8 + 4, high >>> 0);
        });
        gates.forEach(({ offset, selector: target, access }, index) => {
          writeWord(IDT + index * 8, ((target << 16) | (offset & 0xffff)) >>> 0);
          writeWord(IDT + index * 8 + 4, ((offset & 0xffff_0000) | (access << 8)) >>> 0);
        });
        tasks.forEach((value, index) => {
          writeWord(TASKS + index * 4, value);
        });
        stack.forEach((value, index) => {
          writeWord(STACK + index * 4, value);
        });
        begin(ring, flags, taskType);
        const before = registersOf(processor);
        const done = carryOut(wanted);
        expect([0, 1, 2, 3]).toContain(processor.privilege);
        expect(processor.userMode).toBe(processor.privilege === 3);
        // A task that has begun may meet the next fault.
        if (!done && state.task.selector === FIRST_TASK) expect(registersOf(processor)).toEqual(before);
      },
    ),
    { numRuns: 3000 },
  );
});
