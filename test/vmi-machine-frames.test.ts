import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { SystemResult } from '../src/cpu/operands.ts';
import { Call } from '../src/interfaces/vmi/abi.ts';
import { PrivateCall } from '../src/interfaces/vmi/host-call.ts';
import { createRom } from '../src/interfaces/vmi/rom.ts';
import { MachineNumbers } from '../src/memory/machine-numbers.ts';
import { Physical } from '../src/microvm/layout.ts';
import { FrameType } from '../src/paging/direct/frame-types.ts';
import type { GuestVirtual } from '../src/x86/brand.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { Register } from '../src/x86/registers.ts';
import { DIRECTORY, DirectMachine, FREE, KERNEL, PAGES, PRESENT, ROOT, TABLE } from './vmi-direct-machine.ts';

const APIC_PAGE = 0xfee00;
/** What the calls give back. */
const answerOf = ({ vcpu }: DirectMachine) => [vcpu.processor.low(Register.rax), vcpu.processor.low(Register.rdx)];
const numbers = new MachineNumbers(PAGES);
numbers.begin();

describe('machine frame numbers', () => {
  const pages = Array.from({ length: PAGES }, (_none, page) => page);

  it('are as many as there are pages, and none is its page or what its page is the number of', () => {
    expect(new Set(pages.map((page) => numbers.numberOf(page))).size).toBe(PAGES);
    for (const page of pages) {
      const number = numbers.numberOf(page);
      expect([numbers.pageOf(number), number < PAGES]).toEqual([page, true]);
      expect([number, numbers.numberOf(number)]).not.toContain(page);
    }
  });

  it('leave devices and entries that are not present as they are', () => {
    expect([numbers.numberOf(APIC_PAGE), numbers.pageOf(APIC_PAGE)]).toEqual([APIC_PAGE, APIC_PAGE]);
    const entry = Uint32Array.of(FREE * PAGE_SIZE, 0x8000_0000);
    numbers.putInto(entry);
    expect([...entry]).toEqual([FREE * PAGE_SIZE, 0x8000_0000]);
  });

  it('are put into entries and taken out without a change of other bits', () => {
    const entry = Uint32Array.of(FREE * PAGE_SIZE + 0xe67, 0x8000_0000);
    numbers.putInto(entry);
    expect([...entry]).toEqual([numbers.numberOf(FREE) * PAGE_SIZE + 0xe67, 0x8000_0000]);
    numbers.takeOutOf(entry);
    expect([...entry]).toEqual([FREE * PAGE_SIZE + 0xe67, 0x8000_0000]);
  });
});

describe('VMI with direct paging, for a kernel that reads entries by GetPxELong', () => {
  let machine: DirectMachine;
  beforeEach(() => {
    machine = new DirectMachine(true);
  });
  afterEach(() => machine.end());

  const named = (page: number, index: number) => machine.low(page, index) >>> 12;
  const swap = (table: number, index: number, low: number, high = 0) =>
    machine.call(Call.swapEntryLong, { eax: low, edx: high, ecx: KERNEL + table * PAGE_SIZE + index * 8 });

  it('has machine frame numbers in all tables that it goes to', () => {
    machine.begin();
    expect([named(ROOT, 0), named(ROOT, 3), named(DIRECTORY, 0), named(TABLE, FREE)]).toEqual(
      [DIRECTORY, DIRECTORY, TABLE, FREE].map((page) => numbers.numberOf(page)),
    );
    expect(machine.tables.holdsMachineFrames).toBe(true);
    expect([ROOT, DIRECTORY, TABLE].map((page) => machine.typeOf(page))).toEqual([3, 2, 1]);
    expect(machine.tables.paging.recount()).toEqual([]);
  });

  it('walks them to the pages that the kernel means', () => {
    machine.begin();
    const { processor } = machine.vcpu;
    machine.poke(FREE * PAGE_SIZE, 0x1234);
    expect(processor.memory.readWord((KERNEL + FREE * PAGE_SIZE) as GuestVirtual)).toBe(0x1234);
  });

  it('has them in tables that were announced before and are not linked', () => {
    machine.put(FREE, 7, (FREE + 1) * PAGE_SIZE + PRESENT);
    machine.call(PrivateCall.initialise);
    machine.announce(FREE, 1);
    machine.begin();
    expect([machine.typeOf(FREE), named(FREE, 7)]).toEqual([FrameType.level1, numbers.numberOf(FREE + 1)]);
  });

  it('translates entries that the kernel sets, in tables and in pages that are none yet', () => {
    machine.begin();
    machine.set(TABLE, FREE, (FREE + 1) * PAGE_SIZE + PRESENT, 0x8000_0000);
    machine.set(FREE + 2, 5, (FREE + 1) * PAGE_SIZE + PRESENT);
    expect([named(TABLE, FREE), machine.high(TABLE, FREE)]).toEqual([numbers.numberOf(FREE + 1), 0x8000_0000]);
    expect(named(FREE + 2, 5)).toBe(numbers.numberOf(FREE + 1));
    machine.set(TABLE, FREE + 1, APIC_PAGE * PAGE_SIZE + PRESENT + 0x18);
    expect(named(TABLE, FREE + 1)).toBe(APIC_PAGE);
    expect([machine.reason, machine.tables.paging.recount()]).toEqual([undefined, []]);
  });

  it('gives back what an entry was when it is replaced, writable where only the host has made it read-only', () => {
    machine.begin();
    expect(machine.low(TABLE, DIRECTORY) & 2).toBe(0);
    expect(swap(TABLE, DIRECTORY, 0)).toBe(SystemResult.done);
    expect(answerOf(machine)).toEqual([DIRECTORY * PAGE_SIZE + PRESENT, 0]);
    expect([machine.low(TABLE, DIRECTORY), machine.high(TABLE, DIRECTORY)]).toEqual([0, 0]);
    swap(TABLE, FREE, 0x5000, 0x12);
    swap(TABLE, FREE, 0);
    expect(answerOf(machine)).toEqual([0x5000, 0x12]);
  });

  it('leaves an entry as it is when there is none to be replaced', () => {
    machine.begin();
    expect(machine.call(Call.swapEntryLong, { eax: 1, ecx: 0x4000_0000 })).toBe(SystemResult.fault);
  });

  it('takes stores of the kernel for entries as they stand', () => {
    machine.begin();
    const low = numbers.numberOf(FREE + 3) * PAGE_SIZE + PRESENT;
    expect(machine.store(KERNEL + TABLE * PAGE_SIZE + FREE * 8, low)).toBe(true);
    expect(machine.low(TABLE, FREE)).toBe(low);
    expect([machine.reason, machine.tables.paging.recount()]).toEqual([undefined, []]);
  });

  it('protects the table that an entry leads to, and not the page that has its machine number', () => {
    machine.begin();
    machine.set(DIRECTORY, 5, FREE * PAGE_SIZE + PRESENT);
    expect([machine.typeOf(FREE), machine.low(TABLE, FREE) & 2]).toEqual([FrameType.level1, 0]);
    expect(machine.low(TABLE, numbers.numberOf(FREE)) & 2).toBe(2);
  });

  it('tells the ROM of the numbers where it reads entries, and not before', () => {
    const at = Physical.optionRom + (createRom('direct').numbers ?? Number.NaN);
    const words = () => [machine.peek(at), machine.peek(at + 4)];
    machine.tell();
    expect(words()).toEqual([0, 0]);
    machine.begin();
    expect(words()).toEqual([PAGES, numbers.distance]);
  });

  it('refuses a kernel that asks for it when its tables are examined already', async () => {
    const late = new DirectMachine(false);
    try {
      late.begin();
      late.call(PrivateCall.useMachineFrames);
      expect([answerOf(late)[0], late.tables.holdsMachineFrames]).toEqual([1, false]);
    } finally {
      await late.end();
    }
  });

  it('goes on from its state as it was', async () => {
    machine.begin();
    const saved = save(machine.vmi);
    const other = new DirectMachine();
    try {
      restore(other.vmi, saved);
      expect([other.tables.isLive, other.tables.holdsMachineFrames]).toEqual([true, true]);
      expect(save(other.vmi)).toEqual(saved);
    } finally {
      await other.end();
    }
  });
});
