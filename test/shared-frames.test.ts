/** Frames that are seen at several addresses, or by several processors: code belongs to the frame, links stay in it. */
import { describe, expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import { type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { Register } from '../src/x86/registers.ts';
import { listing } from './listing.ts';
import { AGAIN, FORMATS, INTERPRETER, RegionMachine } from './region-machine.ts';
import { ALL_RIGHTS, CODE, DATA } from './system-machine.ts';

/** Where the page table of CODE is seen as data, and where the first frame is seen as well. */
const TABLE = 0x00a0_5000;
const ALIAS = 0x00a0_7000;
const TIERS = [
  ['the interpreter', INTERPRETER],
  ['regions', AGAIN],
  ['both', {}],
] as const;

/** Stores, and jumps on in its page to what tells the frames apart. */
const storing = (mark: string) =>
  listing(`
    48 89 03         mov [rbx], rax
    eb 03            jmp to the mark
    cc cc cc         int3
    b9 ${mark}000000  mov ecx, mark
    f4               hlt
  `);

/** A machine with such code at CODE; the other frame has it with another mark. */
function withTwoFrames(options: object): { machine: RegionMachine; first: number; other: number } {
  const machine = new RegionMachine('four-level', options, storing('01'));
  const first = machine.numberAt(CODE);
  const other = machine.allocate();
  machine.map(ALIAS, other);
  machine.load(ALIAS, storing('63'));
  machine.map(ALIAS, first);
  const table = (machine.memory.u32[machine.entryWord(CODE, 2)] as number) >>> 12;
  machine.map(TABLE, table);
  machine.loadRoot();
  return { machine, first, other };
}

/** Executes the code at CODE, which maps the other frame there in front of its jump; then all is as it was. */
function exchangeUnderway({ machine, first, other }: ReturnType<typeof withTwoFrames>): void {
  const entry = TABLE + ((CODE >>> 12) & 511) * 8;
  machine.execute({ rbx: entry, rax: other * PAGE_SIZE + ALL_RIGHTS }, CODE);
  machine.map(CODE, first);
  machine.loadRoot();
}

describe.each(TIERS)('code that exchanges its own page does not lead others astray, in %s', (_name, options) => {
  test('who executes the frame at another address', () => {
    const all = withTwoFrames(options);
    exchangeUnderway(all);
    all.machine.execute({ rbx: DATA }, ALIAS);
    expect(all.machine.processor.value(Register.rcx)).toBe(1);
  });

  test('a processor that the other frame does not exist for', () => {
    const all = withTwoFrames(options);
    exchangeUnderway(all);
    const { machine, other } = all;
    const stranger = machine.addProcessor();
    const { translation } = machine.processor;
    const frames = Int32Array.from(translation.frames);
    frames[other] = -1;
    stranger.translation = { format: 'four-level', frames };
    machine.loadRoot(stranger);
    stranger.setValue(Register.rbx, DATA);
    stranger.rip = CODE as GuestVirtual;
    expect(stranger.run(1000)).toBe(Exit.system);
    expect(stranger.value(Register.rcx)).toBe(1);
  });
});

test.each(FORMATS)('an entry that changes between turns, and the flush that comes later, %s', (format) => {
  const counting = (mark: string) =>
    listing(`
      83 e9 01         sub ecx, 1
      75 fb            jnz to the start
      eb 03            jmp to the mark
      cc cc cc         int3
      ba ${mark}000000  mov edx, mark
      f4               hlt
    `);
  const machine = new RegionMachine(format, {}, counting('01'));
  const first = machine.numberAt(CODE);
  const other = machine.allocate();
  machine.map(CODE, other);
  machine.load(CODE, counting('63'));
  machine.map(CODE, first);
  machine.loadRoot();
  machine.restart({ rcx: 1000 });
  expect(machine.processor.run(100)).toBe(Exit.budget);
  machine.map(CODE, other);
  expect(machine.processor.run(100_000)).toBe(Exit.system);
  machine.map(CODE, first);
  machine.loadRoot();
  machine.execute({ rcx: 3 });
  expect(machine.processor.value(Register.rdx)).toBe(1);
});

describe.each(TIERS)('an instruction that crosses from a frame into the same one, in %s', (_name, options) => {
  const last = CODE + PAGE_SIZE - 3;

  test.each(FORMATS)('is decoded again when its end changes, %s', (format) => {
    const machine = new RegionMachine(format, options, 'f4');
    machine.map(CODE + PAGE_SIZE, machine.numberAt(CODE));
    // mov eax, 0x22110000 with its last two bytes at the start of the frame; hlt
    machine.load(CODE, '1122 f4');
    machine.load(last, 'b8 0000');
    for (let round = 0; round < 5; round++) machine.execute({}, last);
    expect(machine.processor.value(Register.rax)).toBe(0x2211_0000);
    machine.load(CODE, '33');
    machine.execute({}, last);
    expect(machine.processor.value(Register.rax)).toBe(0x2233_0000);
  });

  test('is so when the guest itself stores there', () => {
    const machine = new RegionMachine('four-level', options, 'f4');
    machine.map(CODE + PAGE_SIZE, machine.numberAt(CODE));
    // The same, and mov byte [rbx], 0x33 in front of hlt.
    machine.load(CODE, '1122 c60333 f4');
    machine.load(last, 'b8 0000');
    machine.loadRoot();
    for (const value of [0x2211_0000, 0x2233_0000]) {
      machine.execute({ rbx: CODE }, last);
      expect(machine.processor.value(Register.rax)).toBe(value);
    }
  });
});
