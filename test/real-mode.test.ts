import { expect, test } from 'vitest';
import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { Exit } from '../src/cpu/exits.ts';
import { SystemResult } from '../src/cpu/operands.ts';
import type { Processor } from '../src/cpu/processor.ts';
import { executeSystem } from '../src/cpu/system.ts';
import { Register } from '../src/x86/registers.ts';
import { RealModeMachine } from './real-mode-machine.ts';

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

test.each(['real', 'virtual-8086'] as const)('selectors are bases divided by 16 in %s mode', (mode) => {
  const bytes = [...PROGRAM, ...new Array(0x804 - PROGRAM.length).fill(0xcc), ...PROCEDURE];
  const machine = new RealModeMachine(mode);
  const { processor } = machine;
  machine.start(bytes);
  runToHalt(processor);
  expect(machine.byte(0x12350)).toBe(0x5a);
  expect(processor.low(Register.rax) & 0xff).toBe(0x5a);
  expect(processor.low(Register.rbx) & 0xffff).toBe(0x77);
  expect(processor.segmentBase(SegmentRegister.ds)).toBe(0x12340);
  expect(processor.selector(SegmentRegister.cs)).toBe(0);
  expect(processor.low(Register.rsp)).toBe(0x1000);
});

test('an offset beyond 64 KiB faults in real mode', () => {
  // a32 mov al,[0x10000]
  const machine = new RealModeMachine('real');
  const { processor } = machine;
  machine.start([0x67, 0xa0, 0x00, 0x00, 0x01, 0x00]);
  expect(processor.run(10)).toBe(Exit.exception);
  expect(processor.exitDetail).toBe(13);
});

test('IP wraps at 64 KiB where a jump behind a compare leads, and does not with a prefix', () => {
  const machine = new RealModeMachine('real');
  const { processor } = machine;
  // cmp ax,ax; je −16
  machine.start([0x39, 0xc0, 0x74, 0xf0]);
  expect(processor.run(2)).toBe(Exit.budget);
  expect(processor.rip).toBe(0xfff4);
  // cmp ax,ax; o32 je +0x10000
  machine.start([0x39, 0xc0, 0x66, 0x0f, 0x84, 0x00, 0x00, 0x01, 0x00]);
  expect(processor.run(2)).toBe(Exit.budget);
  expect(processor.rip).toBe(0x1_0009);
});
