import { expect, test } from 'vitest';
import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { Exit } from '../src/cpu/exits.ts';
import { type Processor, ProcessorGroup } from '../src/cpu/processor.ts';
import { executeSystem, SystemResult } from '../src/cpu/system.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import type { Frame, GuestVirtual } from '../src/x86/brand.ts';
import { Flag, Register } from '../src/x86/registers.ts';

const PAGES = 32;

/** A processor in 16-bit code at 0, paging off, with `bytes` there. */
function start(bytes: readonly number[], cr0: number, flags: number) {
  const memory = new HostMemory(64 << 20);
  const pool = new FramePool(memory, PAGES);
  const group = new ProcessorGroup(memory, pool);
  const processor = group.create();
  const frames = Int32Array.from({ length: PAGES }, () => pool.allocate());
  processor.translation = { format: 'none', frames };
  processor.cr0 = cr0;
  processor.flags = flags;
  for (const segment of [SegmentRegister.cs, SegmentRegister.ss, SegmentRegister.ds, SegmentRegister.es]) {
    const attributes = segment === SegmentRegister.cs ? 0xfb00 : 0xf300;
    processor.loadSegment(segment, 0, { low: 0xffff, high: attributes });
  }
  processor.rip = 0 as GuestVirtual;
  processor.setValue(Register.rsp, 0x1000);
  const at = (address: number) => pool.addressOf(frames[address >> 12] as Frame) + (address & 0xfff);
  memory.u8.set(bytes, at(0));
  return { processor, byte: (address: number) => memory.u8[at(address)] };
}

/** Runs to HLT. */
function runToHalt(processor: Processor): void {
  const services = { timeStamp: () => {}, timeStampAuxiliary: () => 0, random: () => {} };
  for (let exits = 0; exits < 100; exits++) {
    const exit = processor.run(1000);
    expect(exit).toBe(Exit.system);
    if (executeSystem(processor, services) === SystemResult.interface) {
      expect(processor.currentInstruction().operation).toBe('hlt');
      return;
    }
  }
}

// mov ax,0x1234; mov ds,ax; mov byte [0x10],0x5a; push ds; pop es; mov al,[es:0x10]; call 0x0100:0x0004; hlt
const PROGRAM = [
  ...[0xb8, 0x34, 0x12, 0x8e, 0xd8, 0xc6, 0x06, 0x10, 0x00, 0x5a, 0x1e, 0x07, 0x26, 0xa0, 0x10, 0x00],
  ...[0x9a, 0x04, 0x00, 0x80, 0x00, 0xf4],
];
// At 0x80:0x04 = 0x804: mov bx,0x77; retf
const PROCEDURE = [0xbb, 0x77, 0x00, 0xcb];

test.each([
  ['real mode', 0, Flag.reserved],
  ['virtual-8086 mode', 1, Flag.reserved | Flag.virtual8086],
])('selectors are bases divided by 16 in %s', (_mode, cr0, flags) => {
  const bytes = [...PROGRAM, ...new Array(0x804 - PROGRAM.length).fill(0xcc), ...PROCEDURE];
  const { processor, byte } = start(bytes, cr0, flags);
  runToHalt(processor);
  expect(byte(0x12350)).toBe(0x5a);
  expect(processor.low(Register.rax) & 0xff).toBe(0x5a);
  expect(processor.low(Register.rbx) & 0xffff).toBe(0x77);
  expect(processor.segmentBase(SegmentRegister.ds)).toBe(0x12340);
  expect(processor.selector(SegmentRegister.cs)).toBe(0);
  expect(processor.low(Register.rsp)).toBe(0x1000);
});

test('an offset beyond 64 KiB faults in real mode', () => {
  // a32 mov al,[0x10000]
  const { processor } = start([0x67, 0xa0, 0x00, 0x00, 0x01, 0x00], 0, Flag.reserved);
  expect(processor.run(10)).toBe(Exit.exception);
  expect(processor.exitDetail).toBe(13);
});
