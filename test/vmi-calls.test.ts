import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SystemResult } from '../src/cpu/operands.ts';
import { Alarm, ApState, CALL_NAMES, Call, Cycles } from '../src/interfaces/vmi/abi.ts';
import { type HostCall, PrivateCall } from '../src/interfaces/vmi/host-call.ts';
import { HOST_CALLS } from '../src/interfaces/vmi/host-calls.ts';
import { MOST_RECORDS, WINDOW, WindowField } from '../src/interfaces/vmi/window.ts';
import type { MicrovmVcpu } from '../src/microvm/vcpu.ts';
import { type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { Pte, Register } from '../src/x86/registers.ts';
import { PAGES } from './shadow-world.ts';
import { createVmiMachine, endVmiMachine, SHADOW_PAGES, type VmiMachine } from './vmi-machine.ts';

const STACK = 0x9000;
const MEMORY = PAGES * PAGE_SIZE;
const FLAT = [0, 0, 0, 0, 0xffff, 0x00cf_9b00, 0xffff, 0x00cf_9300];
const GDT = 0xa000;
const STATE = 0xb000;
const CODE = 0x10;
const DATA = 0x18;
/** A root with large pages that map all addresses to themselves. */
const ROOT = 0xc;
const ENTRIES = 1024;

let machine: VmiMachine;
let vcpu: MicrovmVcpu;

beforeEach(async () => {
  machine = await createVmiMachine();
  vcpu = machine.domain.running;
  vcpu.enter({ rip: 0x1000 as GuestVirtual, root: undefined, descriptors: FLAT });
});
afterEach(() => endVmiMachine(machine));

interface Arguments {
  readonly eax?: number;
  readonly edx?: number;
  readonly ecx?: number;
  readonly stack?: readonly number[];
  readonly esp?: number;
}

function poke(address: number, value: number): void {
  vcpu.processor.memory.writeWord(address as GuestVirtual, value);
}

/** The stack has EBX and the return address in front of what the kernel left there. */
function call(
  number: HostCall | number,
  { eax = 0, edx = 0, ecx = 0, stack = [], esp = STACK }: Arguments = {},
): SystemResult {
  const { processor } = vcpu;
  for (const [index, word] of stack.entries()) poke(esp + 8 + index * 4, word);
  processor.set(Register.rax, eax, 0);
  processor.set(Register.rdx, edx, 0);
  processor.set(Register.rcx, ecx, 0);
  processor.set(Register.rbx, number, 0);
  processor.set(Register.rsp, esp, 0);
  return machine.vmi.hypercall(vcpu);
}

const eax = (): number => vcpu.processor.low(Register.rax);
const edx = (): number => vcpu.processor.low(Register.rdx);

/** Paging with the tables of a kernel that has everything where it is. */
function switchPagingOn(): void {
  for (let index = 0; index < ENTRIES; index++) {
    poke(ROOT * PAGE_SIZE + index * 4, ((index << 22) | Pte.present | Pte.writable | Pte.large) >>> 0);
  }
  const { cpu, mmu } = machine.domain.operations;
  cpu.writeCr4(0, 0x10);
  mmu.writeCr3(0, ROOT as never, false);
  cpu.writeCr0(0, 0x8001_0011);
}

describe('the calls of the VMI interface', () => {
  it('are refused in ring 3, with numbers that there are not, and in 16-bit code', () => {
    expect(call(0x7f)).toBe(SystemResult.interface);
    expect(call(Call.setCr0)).toBe(SystemResult.interface);
    vcpu.reset();
    expect(call(PrivateCall.initialise)).toBe(SystemResult.interface);
  });

  it('tell the cycles that others had, and count those that were left without them', () => {
    vcpu.halted = false;
    machine.vmi.suspend(vcpu);
    machine.domain.clock.now = () => 1000;
    machine.vmi.resume(vcpu);
    const read = (eaxValue: Cycles): number => {
      call(Call.getCycleCounter, { eax: eaxValue });
      return eax() + edx() * 2 ** 32;
    };
    expect([read(Cycles.real), read(Cycles.available), read(Cycles.stolen), read(7 as Cycles)]).toEqual([
      1000, 0, 1000, 0,
    ]);
  });

  it('tell the time in nanoseconds', () => {
    call(Call.getWallclock);
    expect((BigInt(edx()) << 32n) | BigInt(eax())).toBe(1_000_000_000_000_000_005n);
  });

  it('set an alarm for each counter that has one, and bound how often it comes', () => {
    const { vmi, domain } = machine;
    call(Call.setAlarm, { eax: Alarm.periodic | Cycles.real, edx: 500, ecx: 0, stack: [1, 0] });
    expect(vmi.deadline).toBe(500);
    domain.clock.now = () => 600;
    vmi.expire();
    expect(vmi.deadline).toBeGreaterThanOrEqual(600 + 90_000);
    call(Call.cancelAlarm, { eax: Cycles.available });
    expect(vmi.deadline).toBeLessThan(Number.POSITIVE_INFINITY);
    call(Call.cancelAlarm, { eax: Cycles.real });
    expect(vmi.deadline).toBe(Number.POSITIVE_INFINITY);
    call(Call.setAlarm, { eax: Cycles.stolen, edx: 500, ecx: 0, stack: [1, 0] });
    expect(vmi.deadline).toBe(Number.POSITIVE_INFINITY);
  });

  it('leave a page fault where the stack ends', () => {
    switchPagingOn();
    poke(ROOT * PAGE_SIZE + (0x4000_0000 >>> 22) * 4, 0);
    for (const number of [Call.setAlarm, Call.setLinearMapping]) {
      expect(call(number, { esp: 0x4000_0000 })).toBe(SystemResult.fault);
      expect(vcpu.processor.exitDetail).toBe(14);
    }
    expect(call(Call.setInitialApState, { eax: 0x4000_0000, edx: 1 })).toBe(SystemResult.fault);
  });

  it('end the machine', () => {
    call(Call.shutDown);
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
    for (const [index, half] of FLAT.entries()) poke(GDT + index * 4, half);
    for (let word = 0; word < 96; word += 4) poke(STATE + word, bytes.getUint32(word, true));
    expect(call(Call.setInitialApState, { eax: STATE, edx: 1 })).toBe(SystemResult.done);
    const other = machine.domain.vcpus[1] as MicrovmVcpu;
    other.startUp(0x99);
    return other.processor.rip === 0x1234;
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
    expect(machine.domain.vcpus[1]?.processor.rip).toBe(0);
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

describe('a hostile kernel', () => {
  const word = fc.oneof(
    fc.nat(PAGES + 2),
    fc.constantFrom(
      0,
      1,
      2,
      3,
      Alarm.periodic,
      Alarm.periodic | 1,
      Alarm.localTimer,
      STATE,
      GDT,
      MEMORY - 4,
      WINDOW,
      0x4000_0000,
    ),
    fc.integer({ min: 0, max: 0xffff_ffff }),
  );
  const ends: ReadonlySet<HostCall> = new Set([Call.reboot, Call.shutDown]);
  const attack = fc.record({
    number: fc.constantFrom<number>(...[...HOST_CALLS.keys()].filter((number) => !ends.has(number)), 0x7f),
    args: fc.record({
      eax: word,
      edx: word,
      ecx: word,
      stack: fc.array(word, { maxLength: 3 }),
      esp: fc.constantFrom(STACK, MEMORY - 16, 0x4000_0000),
    }),
    count: word,
    records: fc.array(word, { maxLength: 4 }),
    flushes: fc.boolean(),
  });

  it('reaches each call with success and leaves the host as it was', () => {
    const { domain, vmi, queues, world } = machine;
    switchPagingOn();
    poke(ROOT * PAGE_SIZE + (0x4000_0000 >>> 22) * 4, 0);
    call(PrivateCall.initialise);
    const seen = new Map<number, Set<SystemResult>>();
    let now = 0;
    domain.clock.now = () => now;
    fc.assert(
      fc.property(fc.array(attack, { minLength: 20, maxLength: 60, size: 'max' }), (attacks) => {
        for (const { number, args, count, records, flushes } of attacks) {
          poke(WINDOW + WindowField.count, count);
          for (const [index, record] of records.entries()) poke(WINDOW + WindowField.records + index * 4, record);
          const result = call(number, args);
          seen.set(number, (seen.get(number) ?? new Set()).add(result));
          if (flushes) vcpu.processor.flushTlb();
          now += 1000;
          vmi.expire();
          expect(vmi.deadline).toBeGreaterThan(now);
          expect(world.paging.shadow.statistics().pages).toBeLessThanOrEqual(SHADOW_PAGES);
        }
        for (const queue of queues.all) queue.drain('turn');
        expect(vcpu.processor.memory.readWord((WINDOW + WindowField.count) as GuestVirtual)).toBe(0);
      }),
      { numRuns: 60 },
    );
    expect(domain.state).toEqual({ kind: 'running' });
    for (const number of HOST_CALLS.keys()) {
      if (!ends.has(number)) expect(seen.get(number), CALL_NAMES[number as Call]).toContain(SystemResult.done);
    }
    for (const number of [Call.setAlarm, Call.setLinearMapping]) {
      expect(seen.get(number), CALL_NAMES[number]).toContain(SystemResult.fault);
    }
    const { records, batches } = queues.statistics.report() as { records: number; batches: { flush: number } };
    expect(records).toBeGreaterThan(MOST_RECORDS);
    expect(batches.flush).toBeGreaterThan(0);
  });
});
