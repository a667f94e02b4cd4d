import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SystemResult } from '../src/cpu/operands.ts';
import { Alarm, ApState, Call, Cycles } from '../src/interfaces/vmi/abi.ts';
import { PrivateCall } from '../src/interfaces/vmi/host-call.ts';
import { MOST_RECORDS, WINDOW, WindowField } from '../src/interfaces/vmi/window.ts';
import { type GuestVirtual, PAGE_SIZE, type Pfn } from '../src/x86/brand.ts';
import { Vector } from '../src/x86/registers.ts';
import { PAGES } from './shadow-world.ts';
import { CODE, DATA, FLAT, ROOT, UNMAPPED, VmiMachine } from './vmi-machine.ts';

const GDT = 0xa000;
const STATE = 0xb000;

let machine: VmiMachine;
beforeEach(async () => {
  machine = await VmiMachine.create();
});
afterEach(() => machine.end());

describe('the calls of the VMI interface', () => {
  it('are refused in ring 3, with numbers that there are not, and in 16-bit code', () => {
    expect(machine.call(0x7f)).toBe(SystemResult.interface);
    expect(machine.call(Call.setCr0)).toBe(SystemResult.interface);
    machine.vcpu.reset();
    expect(machine.call(PrivateCall.initialise)).toBe(SystemResult.interface);
  });

  it('tell the cycles that others had, and count those that were left without them', () => {
    machine.vmi.suspend(machine.vcpu);
    machine.now = 1000;
    machine.vmi.resume(machine.vcpu);
    const read = (eaxValue: Cycles): number => {
      machine.call(Call.getCycleCounter, { eax: eaxValue });
      return machine.eax + machine.edx * 2 ** 32;
    };
    expect([read(Cycles.real), read(Cycles.available), read(Cycles.stolen), read(7 as Cycles)]).toEqual([
      1000, 0, 1000, 0,
    ]);
  });

  it('tell the time in nanoseconds', () => {
    machine.call(Call.getWallclock);
    expect((BigInt(machine.edx) << 32n) | BigInt(machine.eax)).toBe(1_000_000_000_000_000_005n);
  });

  it('set an alarm for each counter that has one, and bound how often it comes', () => {
    const { vmi } = machine;
    machine.call(Call.setAlarm, { eax: Alarm.periodic | Cycles.real, edx: 500, ecx: 0, stack: [1, 0] });
    expect(vmi.deadline).toBe(500);
    machine.now = 600;
    vmi.expire();
    expect(vmi.deadline).toBeGreaterThanOrEqual(600 + 90_000);
    machine.call(Call.cancelAlarm, { eax: Cycles.available });
    expect(vmi.deadline).toBeLessThan(Number.POSITIVE_INFINITY);
    machine.call(Call.cancelAlarm, { eax: Cycles.real });
    expect(vmi.deadline).toBe(Number.POSITIVE_INFINITY);
    machine.call(Call.setAlarm, { eax: Cycles.stolen, edx: 500, ecx: 0, stack: [1, 0] });
    expect(vmi.deadline).toBe(Number.POSITIVE_INFINITY);
  });

  it('set no alarm for a time that never comes', () => {
    const { vmi } = machine;
    const set = (time: number, period: number) =>
      machine.call(Call.setAlarm, { eax: Alarm.periodic, edx: 0, ecx: time, stack: [0, period] });
    set(0xffff_ffff, 0);
    expect(vmi.deadline).toBe(Number.POSITIVE_INFINITY);
    set(0, 0xffff_ffff);
    expect(vmi.deadline).toBe(0);
    vmi.expire();
    expect(vmi.deadline).toBe(Number.POSITIVE_INFINITY);
  });

  it('leave a page fault where the stack ends', () => {
    machine.switchPagingOn();
    for (const number of [Call.setAlarm, Call.setLinearMapping]) {
      expect(machine.call(number, { esp: UNMAPPED })).toBe(SystemResult.fault);
      expect(machine.vcpu.processor.exitDetail).toBe(Vector.pageFault);
    }
    expect(machine.call(Call.setInitialApState, { eax: UNMAPPED, edx: 1 })).toBe(SystemResult.fault);
  });

  it('end the machine', () => {
    machine.call(Call.shutDown);
    expect(machine.domain.state).toEqual({ kind: 'poweroff' });
  });
});

describe('the state that a processor is to begin with', () => {
  const begin = (changes: readonly (readonly [offset: ApState, value: number, bytes: 2 | 4])[]): boolean => {
    const bytes = new DataView(new ArrayBuffer(96));
    const state: readonly (readonly [ApState, number, 2 | 4])[] = [
      [ApState.cr0, 0x11, 4],
      [ApState.cs, CODE, 2],
      [ApState.ss, DATA, 2],
      [ApState.ds, DATA, 2],
      [ApState.eip, 0x1234, 4],
      [ApState.gdtLimit, FLAT.length * 4 - 1, 2],
      [ApState.gdtBase, GDT, 4],
      ...changes,
    ];
    for (const [offset, value, size] of state) {
      if (size === 2) bytes.setUint16(offset, value, true);
      else bytes.setUint32(offset, value, true);
    }
    for (const [index, half] of FLAT.entries()) machine.poke(GDT + index * 4, half);
    for (let word = 0; word < 96; word += 4) machine.poke(STATE + word, bytes.getUint32(word, true));
    expect(machine.call(Call.setInitialApState, { eax: STATE, edx: 1 })).toBe(SystemResult.done);
    machine.other.startUp(0x99);
    return machine.other.processor.rip === 0x1234;
  };

  it('is taken at the next start', () => {
    expect(begin([])).toBe(true);
  });

  it.each([
    ['a code segment of ring 3', ApState.cs, CODE | 3, 2],
    ['a code segment that is data', ApState.cs, DATA, 2],
    ['no stack segment', ApState.ss, 0, 2],
    ['a stack segment that is code', ApState.ss, CODE, 2],
    ['a segment beyond the table', ApState.gs, 0x20, 2],
    ['a segment that is not present', ApState.fs, 0x08, 2],
    ['a segment of a local table', ApState.es, DATA | 4, 2],
    ['a local table', ApState.ldtr, 0x30, 2],
  ] as const)('is not taken with %s: the processor begins as others do', (_what, offset, value, bytes) => {
    expect(begin([[offset, value, bytes]])).toBe(false);
    expect(machine.other.processor.rip).toBe(0);
  });

  it.each([
    ['paging without protection', ApState.cr0, 0x8000_0000],
    ['bits of CR4 that there are not', ApState.cr4, 0x8000_0000],
    ['long mode', ApState.efer, 0x100],
  ] as const)('crashes the guest with %s, and says why', (_what, offset, value) => {
    expect(() => begin([[offset, value, 4]])).toThrow(
      'SetInitialAPState named values that control registers cannot have',
    );
  });
});

describe('the window', () => {
  beforeEach(() => {
    for (const vcpu of machine.domain.vcpus) machine.switchPagingOn(vcpu);
  });

  it('is not there before a kernel has decided to use the ROM', () => {
    const before = machine.peek(WINDOW + WindowField.records);
    machine.call(PrivateCall.initialise);
    machine.poke(WINDOW + WindowField.records, before + 1);
    expect(machine.peek(WINDOW + WindowField.records)).toBe(before + 1);
  });

  it("is each processor's own", () => {
    machine.call(PrivateCall.initialise);
    machine.poke(WINDOW + WindowField.records, 1);
    machine.poke(WINDOW + WindowField.records, 2, machine.other);
    expect(machine.peek(WINDOW + WindowField.records)).toBe(1);
    expect(machine.peek(WINDOW + WindowField.records, machine.other)).toBe(2);
  });
});

describe('the queue', () => {
  const ENTRY = 0xd000;
  const told: number[] = [];
  const record = (count: number, entry = ENTRY): void => {
    machine.poke(WINDOW + WindowField.count, count);
    for (let index = 0; index < count; index++) machine.poke(WINDOW + WindowField.records + index * 4, entry);
  };
  const batches = (): object => machine.queues.statistics.report();

  beforeEach(() => {
    machine.switchPagingOn();
    machine.call(PrivateCall.initialise);
    machine.call(Call.setLinearMapping, { eax: 0, edx: 0, ecx: PAGES, stack: [0] });
    told.length = 0;
    vi.spyOn(machine.world.paging.shadow, 'told').mockImplementation((...args) => void told.push(...args));
  });

  it.each([
    ['a flush', 'flush', () => machine.vcpu.processor.flushTlb()],
    ['the flush of a page', 'flush', () => machine.vcpu.processor.invalidatePage(0 as GuestVirtual)],
    ['another root', 'flush', () => machine.domain.operations.mmu.writeCr3(0, ROOT as Pfn, false, false)],
    ['a page fault', 'fault', () => machine.peek(UNMAPPED)],
    ['the end of a lazy section', 'lazy', () => machine.call(PrivateCall.drainLazy)],
    ['a call for the lack of room', 'full', () => machine.call(PrivateCall.drainFull)],
    ['the end of a turn', 'turn', () => machine.vmi.suspend(machine.vcpu)],
    ['a change of the mapping by which entries are named', 'flush', () => machine.call(Call.setLinearMapping)],
  ] as const)('is drained by %s', (_what, reason, act) => {
    record(3, ENTRY + 8);
    act();
    expect(told).toEqual([ENTRY / PAGE_SIZE, 8, 4, ENTRY / PAGE_SIZE, 8, 4, ENTRY / PAGE_SIZE, 8, 4]);
    expect(machine.peek(WINDOW + WindowField.count)).toBe(0);
    expect(batches()).toMatchObject({ records: 3, batches: { [reason]: 1 }, batchesBySize: { 'to 4': 1 } });
  });

  it('has no more records than fit, whatever the kernel says', () => {
    record(MOST_RECORDS);
    machine.poke(WINDOW + WindowField.count, 0xffff_ffff);
    machine.vcpu.processor.flushTlb();
    expect(batches()).toMatchObject({ records: MOST_RECORDS });
  });

  it('makes all shadows go where an entry is in no mapping, or in one beyond the memory', () => {
    const dropAll = vi.spyOn(machine.world.paging.shadow, 'dropAll');
    record(1, PAGES * PAGE_SIZE);
    machine.vcpu.processor.flushTlb();
    machine.call(Call.setLinearMapping, { eax: 3, edx: PAGES * PAGE_SIZE, ecx: 1, stack: [PAGES] });
    record(1, PAGES * PAGE_SIZE);
    machine.vcpu.processor.flushTlb();
    expect(dropAll).toHaveBeenCalledTimes(2);
    expect(told).toEqual([]);
  });

  it('finds entries by every mapping that there is', () => {
    for (let slot = 0; slot < 5; slot++) {
      machine.call(Call.setLinearMapping, { eax: slot, edx: 0x100_0000 * (slot + 1), ecx: 1, stack: [slot] });
    }
    for (let slot = 0; slot < 4; slot++) {
      record(1, 0x100_0000 * (slot + 1) + 4);
      machine.vcpu.processor.flushTlb();
    }
    expect(told).toEqual([0, 4, 4, 1, 4, 4, 2, 4, 4, 3, 4, 4]);
  });
});
