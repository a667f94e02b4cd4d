import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { SystemType } from '../src/cpu/descriptor.ts';
import { SystemResult } from '../src/cpu/operands.ts';
import { DomainCrash } from '../src/domain/crash.ts';
import type { LiveTableObserver } from '../src/inspect/live-table-observer.ts';
import { ApState, Call } from '../src/interfaces/vmi/abi.ts';
import { ABSENT_FRAME } from '../src/memory/frame-pool.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import type { MicrovmVcpu } from '../src/microvm/vcpu.ts';
import { FrameType } from '../src/paging/direct/frame-types.ts';
import { type GuestVirtual, type Mfn, PAGE_SIZE, type Pfn } from '../src/x86/brand.ts';
import { Cr4 } from '../src/x86/registers.ts';
import {
  DIRECTORY,
  DirectMachine,
  FREE,
  group,
  KERNEL,
  PAGES,
  PAGING,
  PRESENT,
  ROOT,
  TABLE,
} from './vmi-direct-machine.ts';
import { CODE, DATA, FLAT } from './vmi-machine.ts';

const LARGE = 0x80;
const APIC_PAGE = 0xfee00;
/** Where the second processor's state stands, its segments, and its code. */
const [AP_STATE, GDT, START] = [0x5000, 0x6000, 0x7000];

let machine: DirectMachine;
beforeEach(() => {
  machine = new DirectMachine();
});
afterEach(() => machine.end());

describe('VMI with direct paging', () => {
  it('examines the tables that the kernel goes to, and makes them read-only where they are mapped', () => {
    machine.begin();
    expect([ROOT, DIRECTORY, TABLE].map((page) => machine.typeOf(page))).toEqual([3, 2, 1]);
    expect([ROOT, DIRECTORY, TABLE, FREE].map((page) => machine.low(TABLE, page) & 2)).toEqual([0, 0, 0, 2]);
    expect(machine.tables.paging.recount()).toEqual([]);
  });

  it('leaves alone what a kernel does that has not adopted the ROM', () => {
    machine.domain.operations.cpu.writeCr4(0, Cr4.physicalAddressExtension);
    machine.vcpu.state.cr3 = ROOT * PAGE_SIZE;
    machine.domain.operations.cpu.writeCr0(0, PAGING);
    expect([machine.tables.isLive, machine.typeOf(TABLE)]).toEqual([false, FrameType.none]);
  });

  it.each([
    ['large pages', () => machine.put(DIRECTORY, 1, LARGE | PRESENT), undefined, undefined, 'maps large pages'],
    ['two levels', () => {}, undefined, Cr4.pageSizeExtensions, 'needs a kernel with PAE; give --paging shadow'],
    ['a top table amid a page', () => {}, ROOT * PAGE_SIZE + 32, undefined, 'at the start of a page'],
    [
      'a table that it cannot have',
      () => machine.put(DIRECTORY, 0, 0x4000_0000 | PRESENT),
      undefined,
      undefined,
      'refuses',
    ],
  ])('ends a kernel with %s', (_what, prepare, root, cr4, reason) => {
    prepare();
    let end: unknown;
    try {
      machine.begin(root, cr4);
    } catch (error) {
      end = error;
    }
    expect(end).toBeInstanceOf(DomainCrash);
    expect(String(end)).toContain(reason);
  });

  it('leaves the control registers alone while a table is absent, so that they can be written again', () => {
    machine.tell();
    const { state, processor } = machine.vcpu;
    const { cpu, mmu } = machine.domain.operations;
    const examine = state.onTables;
    const registers = () => [processor.cr0, state.cr3, processor.cr4];
    for (const write of [
      () => cpu.writeCr4(0, Cr4.physicalAddressExtension),
      () => mmu.writeCr3(0, ROOT as Pfn, false, false),
      () => cpu.writeCr0(0, PAGING),
    ]) {
      const before = registers();
      state.onTables = () => {
        throw new PageAbsent(TABLE, true);
      };
      expect(write).toThrow(PageAbsent);
      expect(registers()).toEqual(before);
      state.onTables = examine;
      write();
      expect(registers()).not.toEqual(before);
    }
    expect([machine.tables.isLive, machine.typeOf(TABLE)]).toEqual([true, FrameType.level1]);
  });

  it('lets another processor begin as it is told once its tables are there', () => {
    machine.begin();
    for (const [index, half] of FLAT.entries()) machine.poke(GDT + index * 4, half);
    for (const [offset, value] of [
      [ApState.cr0, PAGING],
      [ApState.cr3, ROOT * PAGE_SIZE],
      [ApState.cr4, Cr4.physicalAddressExtension],
      [ApState.eip, START],
      [ApState.cs, CODE | (DATA << 16)],
      [ApState.gs + 2, (FLAT.length * 4 - 1) << 16],
      [ApState.gdtBase, GDT],
    ] as const) {
      machine.poke(AP_STATE + offset, value);
    }
    expect(machine.call(Call.setInitialApState, { eax: AP_STATE, edx: 1 })).toBe(SystemResult.done);
    const other = machine.domain.vcpus[1] as MicrovmVcpu; // there are two
    const examine = other.state.onTables;
    other.state.onTables = () => {
      throw new PageAbsent(ROOT, true);
    };
    expect(() => other.startUp(0x99)).toThrow(PageAbsent);
    expect(other.waitsForStartUp).toBe(true);
    other.state.onTables = examine;
    other.startUp(0x99);
    expect([other.waitsForStartUp, other.state.format, other.processor.rip]).toEqual([false, 'pae', START]);
    expect(machine.tables.paging.root(1)).toBe(ROOT);
  });

  it('stores entries that it has examined, for the kernel to read as it wrote them', () => {
    machine.begin();
    machine.set(TABLE, FREE, (FREE + 1) * PAGE_SIZE + PRESENT, 0x8000_0000);
    expect(machine.low(TABLE, FREE)).toBe((FREE + 1) * PAGE_SIZE + PRESENT);
    machine.set(TABLE, FREE + 1, APIC_PAGE * PAGE_SIZE + PRESENT + 0x18);
    expect(machine.low(TABLE, FREE + 1) >>> 12).toBe(APIC_PAGE);
    expect([machine.reason, machine.tables.paging.recount()]).toEqual([undefined, []]);
  });

  it('gives nobody a table to write to', () => {
    machine.begin();
    machine.set(TABLE, FREE, TABLE * PAGE_SIZE + PRESENT);
    expect(machine.low(TABLE, FREE) & 3).toBe(1);
    expect(machine.reason).toBeUndefined();
  });

  it('makes tables of pages that are announced, and of those that are not when they are linked', () => {
    machine.begin();
    machine.announce(FREE, 1);
    expect([machine.typeOf(FREE), machine.low(TABLE, FREE) & 2]).toEqual([FrameType.level1, 0]);
    machine.set(DIRECTORY, 5, (FREE + 1) * PAGE_SIZE + PRESENT);
    expect([machine.typeOf(FREE + 1), machine.low(TABLE, FREE + 1) & 2]).toEqual([FrameType.level1, 0]);
    machine.announce(ROOT, 2);
    machine.announce(PAGES + 5, 1);
    expect([machine.reason, machine.typeOf(ROOT)]).toEqual([undefined, FrameType.level3]);
  });

  it('keeps a top table that is announced as a copy, between the times that processors have it', () => {
    machine.put(FREE, 3, DIRECTORY * PAGE_SIZE + 1);
    machine.begin();
    machine.announce(FREE, 0x22);
    expect(machine.typeOf(FREE)).toBe(FrameType.level3);
    machine.load(FREE);
    machine.load(ROOT);
    expect(machine.typeOf(FREE)).toBe(FrameType.level3);
    machine.retract(FREE, 2);
    expect(machine.typeOf(FREE)).toBe(FrameType.none);
  });

  it('lets the kernel write to a page again that is no table any more', () => {
    machine.begin();
    machine.announce(FREE, 1);
    machine.retract(FREE, 1);
    expect(machine.low(TABLE, FREE) & 2).toBe(0);
    expect(machine.store(KERNEL + FREE * PAGE_SIZE + 8, 0x1234)).toBe(true);
    expect([machine.low(FREE, 1), machine.low(TABLE, FREE) & 2]).toEqual([0x1234, 2]);
  });

  it('asks for a page first that is no table any more and has left memory', () => {
    machine.begin();
    machine.announce(FREE, 1);
    machine.retract(FREE, 1);
    const { frames } = machine.paging.space;
    const frame = frames[FREE] as number;
    const store = () => machine.store(KERNEL + FREE * PAGE_SIZE + 8, 0x1234);
    frames[FREE] = ABSENT_FRAME;
    expect(store).toThrow(PageAbsent);
    frames[FREE] = frame;
    expect(store()).toBe(true);
    expect(machine.low(FREE, 1)).toBe(0x1234);
  });

  it('examines stores to live tables of any level', () => {
    machine.begin();
    expect(machine.store(KERNEL + TABLE * PAGE_SIZE + FREE * 8, 0)).toBe(true);
    expect(machine.low(TABLE, FREE)).toBe(0);
    expect(machine.store(KERNEL + DIRECTORY * PAGE_SIZE + 8, FREE * PAGE_SIZE + PRESENT)).toBe(true);
    expect(machine.typeOf(FREE)).toBe(FrameType.level1);
    expect(machine.tables.paging.recount()).toEqual([]);
  });

  it('leaves a page read-only that the kernel has made so', () => {
    machine.begin();
    machine.set(TABLE, FREE, FREE * PAGE_SIZE + 0x61);
    expect(machine.store(KERNEL + FREE * PAGE_SIZE, 1)).toBe(false);
    expect(machine.low(FREE, 0)).toBe(0);
  });

  it('ends a kernel that has a table written to by a way around it', () => {
    machine.begin();
    machine.put(TABLE, FREE, 0);
    group.frameWritten(machine.paging.space.frameOf(TABLE as Mfn), FREE * 8, 8);
    expect(machine.reason).toBe('the page table in page 0xe was written to by a way around it');
  });

  it('ends a kernel whose table leads to a page that cannot be one, and says which', () => {
    machine.begin();
    machine.set(TABLE, FREE + 1, FREE * PAGE_SIZE + PRESENT);
    machine.set(DIRECTORY, 7, FREE * PAGE_SIZE + PRESENT);
    expect(machine.reason).toBe(
      'the kernel set entry 0x7 of the page table in page 0xd to 0x14063, which direct paging refuses',
    );
  });

  it('goes on from its state as it was', async () => {
    machine.begin();
    machine.announce(FREE, 1);
    const saved = save(machine.vmi);
    const other = new DirectMachine();
    try {
      restore(other.vmi, saved);
      expect([other.tables.isLive, other.typeOf(FREE)]).toEqual([true, FrameType.level1]);
      expect(save(other.vmi)).toEqual(saved);
    } finally {
      await other.end();
    }
  });

  it('keeps its counts whatever a kernel asks for', async () => {
    const page = fc.nat({ max: PAGES + 2 });
    const flags = fc.constantFrom(0, 1, 3, 0x63, 0x67, 0x61, 0xe3, 0x7b);
    const place = fc.tuple(fc.constantFrom(ROOT, DIRECTORY, TABLE, FREE, FREE + 1, FREE + 2), fc.nat({ max: 40 }));
    const step = fc.oneof(
      fc.tuple(fc.constant('set' as const), place, page, flags),
      fc.tuple(fc.constant('store' as const), place, page, flags),
      fc.tuple(fc.constant('announce' as const), place, fc.constantFrom(1, 2, 0x22), flags),
      fc.tuple(fc.constant('retract' as const), place, fc.constantFrom(1, 2), flags),
      fc.tuple(fc.constant('load' as const), place, page, flags),
    );
    await fc.assert(
      fc.asyncProperty(fc.boolean(), fc.array(step, { maxLength: 40 }), async (usesMachineFrames, steps) => {
        const guest = new DirectMachine(usesMachineFrames);
        try {
          guest.begin();
          for (const [what, [table, index], target, bits] of steps) {
            const low = target * PAGE_SIZE + bits;
            if (what === 'set') guest.set(table, index, low);
            else if (what === 'store') guest.store(KERNEL + table * PAGE_SIZE + index * 8, low);
            else if (what === 'announce') guest.announce(table, target);
            else if (what === 'retract') guest.retract(table, target);
            else guest.load(table);
            if (guest.reason !== undefined) return;
            expect(guest.tables.paging.recount()).toEqual([]);
          }
        } catch (error) {
          if (!(error instanceof DomainCrash)) throw error;
          expect(guest.tables.paging.recount()).toEqual([]);
        } finally {
          await guest.end();
        }
      }),
      { numRuns: 300 },
    );
  });
});

/** Where the task of a processor stands, in the linear mapping; then the kernel's stack for its thread. */
const TASK = 0x8000;
const THREAD = 0xc000_9000;
const USED = KERNEL + FREE * PAGE_SIZE;

describe.each([false, true])('VMI with direct paging, checked; with machine frames: %s', (usesMachineFrames) => {
  let checked: DirectMachine;
  let other: MicrovmVcpu;
  beforeEach(() => {
    checked = new DirectMachine(usesMachineFrames, true);
    checked.begin();
    const { vcpu, domain } = checked;
    Object.assign(vcpu.state.task, { type: SystemType.busyTask, base: KERNEL + TASK, limit: 0x67 });
    checked.poke(TASK + 4, THREAD);
    other = domain.vcpus[1] as MicrovmVcpu; // there are two
    domain.operations.cpu.writeCr4(1, Cr4.physicalAddressExtension);
    other.state.cr3 = ROOT * PAGE_SIZE;
    domain.operations.cpu.writeCr0(1, PAGING);
    other.processor.memory.readWord(USED as GuestVirtual);
    // What the second processor has a translation of goes, as far as the first one is concerned.
    checked.set(TABLE, FREE, 0);
  });
  afterEach(() => checked.end());

  const use = () => other.processor.memory.readWord(USED as GuestVirtual);
  const endTurn = (userMode: boolean) => {
    const { processor } = checked.vcpu;
    processor.userMode = userMode;
    (processor.memory.observed as LiveTableObserver).turnEnded(0);
  };

  it('lets another processor use what it has until the thread that took it away is a program again', () => {
    endTurn(false);
    use();
    expect(checked.reason).toBeUndefined();
  });

  it('ends a kernel that has not flushed it there by then', () => {
    endTurn(true);
    use();
    expect(checked.reason).toMatch(/mmu\.setPte broken .* missing-flush: .*event=used .*cachedBy=1 changedBy=0/);
  });

  it('goes on with one that has', () => {
    checked.domain.operations.mmu.flushTlbUser(1);
    endTurn(true);
    use();
    expect(checked.reason).toBeUndefined();
  });

  it('does not take another thread in user mode for the one that is at work', () => {
    checked.poke(TASK + 4, THREAD + PAGE_SIZE);
    endTurn(true);
    use();
    expect(checked.reason).toBeUndefined();
  });
});
