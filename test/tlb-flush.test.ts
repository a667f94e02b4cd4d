import { describe, expect, it } from 'vitest';
import { Access, Exit } from '../src/cpu/exits.ts';
import type { PhysicalDevices } from '../src/cpu/translation.ts';
import { ABSENT_FRAME } from '../src/memory/frame-pool.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import { type GuestVirtual, highWord, lowWord } from '../src/x86/brand.ts';
import { Cr4, Pte, Register } from '../src/x86/registers.ts';
import { ALL_RIGHTS, CODE, DATA, LARGE_NUMBER, TestMachine } from './system-machine.ts';

const LARGE_PAGE = 0x0100_0000;

function kernelMachine(cr4 = 0): TestMachine {
  const machine = new TestMachine('four-level', 0);
  machine.processor.cr4 |= cr4;
  return machine;
}

/** Whether a page is cached for reads of the kernel. */
function isCached({ processor }: TestMachine, address: number): boolean {
  return processor.memory.kernelTlb.find(lowWord(address), highWord(address), Access.read) >= 0;
}

function touch({ processor }: TestMachine, address: number): void {
  expect(processor.memory.translate(address as GuestVirtual, Access.read)).toBeGreaterThan(0);
}

describe('a change of the root', () => {
  it('keeps global pages', () => {
    const machine = kernelMachine(Cr4.globalPages);
    machine.map(DATA, machine.allocate(), ALL_RIGHTS | Pte.global);
    touch(machine, DATA);
    machine.loadRoot();
    expect(isCached(machine, DATA)).toBe(true);
  });

  it('drops all others', () => {
    const machine = kernelMachine(Cr4.globalPages);
    machine.map(DATA, machine.allocate());
    touch(machine, DATA);
    machine.loadRoot();
    expect(isCached(machine, DATA)).toBe(false);
  });

  it('drops global pages when CR4.PGE is clear', () => {
    const machine = kernelMachine();
    machine.map(DATA, machine.allocate(), ALL_RIGHTS | Pte.global);
    touch(machine, DATA);
    machine.loadRoot();
    expect(isCached(machine, DATA)).toBe(false);
  });
});

describe('a flush of one page', () => {
  it('drops a global page', () => {
    const machine = kernelMachine(Cr4.globalPages);
    machine.map(DATA, machine.allocate(), ALL_RIGHTS | Pte.global);
    touch(machine, DATA);
    machine.processor.invalidatePage(DATA as GuestVirtual);
    expect(isCached(machine, DATA)).toBe(false);
  });

  it.each([
    ['2 MiB', 'four-level', LARGE_PAGE, 0x1f_f000],
    ["2 MiB in a kernel's half", 'four-level', LARGE_PAGE - 2 ** 47, 0x1f_f000],
    ['4 MiB', 'two-level', LARGE_PAGE, 0x3f_f000],
  ] as const)('drops all pieces of a page of %s', (_size, format, start, last) => {
    const machine = new TestMachine(format, 0);
    machine.map(start, LARGE_NUMBER, ALL_RIGHTS | Pte.large, 0, 2);
    const pieces = [0, 0x5000, last].map((offset) => start + offset);
    for (const flushed of [0x1_2345, last]) {
      for (const piece of pieces) touch(machine, piece);
      for (const piece of pieces) expect(isCached(machine, piece)).toBe(true);
      machine.processor.invalidatePage((start + flushed) as GuestVirtual);
      for (const piece of pieces) expect(isCached(machine, piece)).toBe(false);
    }
  });
});

/** Remembers what it is asked; reads give the address. */
class Recorder implements PhysicalDevices {
  readonly accesses: (readonly (string | number)[])[] = [];

  load(address: number, bytes: number): number {
    this.accesses.push(['load', address, bytes]);
    return address;
  }

  store(address: number, bytes: number, value: number): void {
    this.accesses.push(['store', address, bytes, value]);
  }
}

describe('a page without a frame', () => {
  const DEVICE = 0xf_ed00;
  const PHYSICAL = DEVICE * 0x1000;

  function machineWithDevice(): { machine: TestMachine; recorder: Recorder } {
    const machine = kernelMachine();
    const recorder = new Recorder();
    machine.processor.translation = { ...machine.processor.translation, devices: recorder };
    machine.loadRoot();
    machine.map(DATA, DEVICE);
    machine.processor.setValue(Register.rbx, DATA);
    return { machine, recorder };
  }

  it('is read and written by the device, each time', () => {
    const { machine, recorder } = machineWithDevice();
    // mov eax, [rbx+0x20]; mov eax, [rbx+0x20]; mov byte [rbx+1], 7; hlt
    machine.load(CODE, '8b4320 8b4320 c6430107 f4');
    expect(machine.run().vector).toBeNull();
    expect(recorder.accesses).toEqual([
      ['load', PHYSICAL + 0x20, 4],
      ['load', PHYSICAL + 0x20, 4],
      ['store', PHYSICAL + 1, 1, 7],
    ]);
    expect(machine.processor.value(Register.rax)).toBe(PHYSICAL + 0x20);
  });

  it('is left to the host again when its device could not answer yet', () => {
    const { machine, recorder } = machineWithDevice();
    const { processor } = machine;
    let isAbsent = true;
    const store = recorder.store.bind(recorder);
    recorder.store = (...access) => {
      if (isAbsent) throw new PageAbsent(7, false);
      store(...access);
    };
    // mov byte [rbx+1], 7; mov byte [rbx+2], 8; hlt
    machine.load(CODE, 'c6430107 c6430208 f4');
    processor.rip = CODE as GuestVirtual;
    expect(processor.run(100)).toBe(Exit.device);
    expect(() => processor.stepWithDevices()).toThrow(PageAbsent);
    // Nothing of the attempt is left: neither access to devices nor single steps.
    processor.rip = CODE as GuestVirtual;
    expect(processor.run(100)).toBe(Exit.device);
    isAbsent = false;
    expect(processor.stepWithDevices()).toBe(Exit.budget);
    expect(processor.run(100)).toBe(Exit.device);
    expect(machine.run((CODE + 4) as GuestVirtual).vector).toBeNull();
    expect(recorder.accesses).toEqual([
      ['store', PHYSICAL + 1, 1, 7],
      ['store', PHYSICAL + 2, 1, 8],
    ]);
  });

  it('is accessed by words, the lower first', () => {
    const { machine, recorder } = machineWithDevice();
    machine.processor.set(Register.rax, 0x8765_4321, 0xfedc_ba98);
    // mov [rbx], rax; mov rax, [rbx]; mov [rbx+2], ax; mov [rbx+3], eax; hlt
    machine.load(CODE, '488903 488b03 66894302 894303 f4');
    expect(machine.run().vector).toBeNull();
    expect(recorder.accesses).toEqual([
      ['store', PHYSICAL, 4, 0x8765_4321],
      ['store', PHYSICAL + 4, 4, 0xfedc_ba98],
      ['load', PHYSICAL, 4],
      ['load', PHYSICAL + 4, 4],
      ['store', PHYSICAL + 2, 2, 0],
      ['store', PHYSICAL + 3, 1, 0],
      ['store', PHYSICAL + 4, 2, 0xd000],
      ['store', PHYSICAL + 6, 1, 0xfe],
    ]);
  });

  it('takes a read-modify-write as a load and a store', () => {
    const { machine, recorder } = machineWithDevice();
    // or dword [rbx+8], 1; hlt
    machine.load(CODE, '834b0801 f4');
    expect(machine.run().vector).toBeNull();
    expect(recorder.accesses).toEqual([
      ['load', PHYSICAL + 8, 4],
      ['store', PHYSICAL + 8, 4, PHYSICAL + 9],
    ]);
  });

  it('holds no code', () => {
    const { machine } = machineWithDevice();
    expect(machine.run(DATA).vector).toBe(14);
  });
});

describe('a page or a table that the host has taken', () => {
  function pagedMachine(): { machine: TestMachine; frames: Int32Array; writeProtected: Uint8Array } {
    const machine = kernelMachine();
    const { frames } = machine.processor.translation;
    const writeProtected = new Uint8Array(frames.length);
    machine.processor.translation = { ...machine.processor.translation, writeProtected };
    machine.loadRoot();
    machine.map(DATA, machine.allocate(), ALL_RIGHTS);
    machine.processor.setValue(Register.rbx, DATA);
    return { machine, frames, writeProtected };
  }

  const tableOf = (machine: TestMachine, address: number): number =>
    (machine.memory.u32[machine.entryWord(address, 2)] as number) >>> 12;

  /** Where a run from the code's start leaves: the exit, its detail and its error. */
  function leave({ processor }: TestMachine): number[] {
    processor.rip = CODE as GuestVirtual;
    return [processor.run(100), processor.exitDetail, processor.exitError];
  }

  it('is asked for when a walk needs the table', () => {
    const { machine, frames } = pagedMachine();
    machine.load(CODE, '8b03 f4'); // mov eax, [rbx]; hlt
    const table = tableOf(machine, DATA);
    frames[table] = ABSENT_FRAME;
    expect(leave(machine)).toEqual([Exit.hostFault, table, 0]);
  });

  it('is asked for, to be written, when a walk has to mark an entry of a protected table', () => {
    const { machine, writeProtected } = pagedMachine();
    machine.load(CODE, '8b03 f4');
    const table = tableOf(machine, DATA);
    writeProtected[table] = 1;
    expect(leave(machine)).toEqual([Exit.hostFault, table, 1]);
    expect(machine.flagsAt(DATA) & Pte.accessed).toBe(0);
  });

  it('is not needed to see the instruction that has just left', () => {
    const { machine, frames } = pagedMachine();
    machine.load(CODE, '0fa2 f4'); // cpuid; hlt
    expect(leave(machine)[0]).toBe(Exit.system);
    frames[tableOf(machine, CODE)] = ABSENT_FRAME;
    expect(machine.processor.currentInstruction().operation).toBe('cpuid');
  });

  it('is asked for when the host must see an instruction whose translation has gone', () => {
    const { machine, frames } = pagedMachine();
    machine.load(CODE, '0fa2 f4');
    leave(machine);
    const table = tableOf(machine, CODE);
    frames[table] = ABSENT_FRAME;
    machine.processor.flushTlb();
    expect(() => machine.processor.currentInstruction()).toThrow(new PageAbsent(table, false));
  });
});
