import { beforeEach, describe, expect, test } from 'vitest';
import { Access, Exit } from '../src/cpu/exits.ts';
import { type Processor, ProcessorGroup } from '../src/cpu/processor.ts';
import { TableGenerations } from '../src/cpu/table-generations.ts';
import type { Translation } from '../src/cpu/translation.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import type { Frame, GuestVirtual } from '../src/x86/brand.ts';
import { Cr4, Pte, Register } from '../src/x86/registers.ts';

/**
 * Two roots, `first` and `second`, share the level-3 table of their slot 0; slot 1 of each is its own. Table and page
 * numbers are frames of the pool.
 */
const enum Table {
  first = 1,
  second = 2,
  third = 3,
  sharedLevel3 = 4,
  sharedLevel2 = 5,
  sharedLevel1 = 6,
  firstLevel3 = 7,
  firstLevel2 = 8,
  firstLevel1 = 9,
  secondLevel3 = 10,
  secondLevel2 = 11,
  secondLevel1 = 12,
  page = 20,
  otherPage = 21,
  limit = 32,
}

const SHARED = 0x5000 as GuestVirtual;
const OWN = 0x80_0000_6000 as GuestVirtual;
const FLAGS = Pte.present | Pte.writable | Pte.user;
const USED = FLAGS | Pte.accessed;

let memory: HostMemory;
let group: ProcessorGroup;
let processor: Processor;
let pool: FramePool;
let generations: TableGenerations;

function entry(table: number, index: number, target: number, flags = FLAGS): void {
  const word = pool.addressOf(table as Frame) / 4 + index * 2;
  memory.u32[word] = target * 4096 + flags;
  memory.u32[word + 1] = 0;
}

function flagsOf(table: number, index: number): number {
  return (memory.u32[pool.addressOf(table as Frame) / 4 + index * 2] as number) & 0xfff;
}

/** As a paging does it: the entry, and the table's generation. */
function change(table: number, index: number, target: number, flags = FLAGS): void {
  entry(table, index, target, flags);
  generations.changed(table);
}

function build(tlbRoots: number, dated = true): void {
  memory = new HostMemory(80 << 20);
  pool = new FramePool(memory, Table.limit);
  group = new ProcessorGroup(memory, pool, { tlbEntries: 64, tlbRoots, codeBytes: 1 << 20 });
  generations = new TableGenerations(Table.limit);
  const frames = Int32Array.from({ length: Table.limit }, (_, number) => number);
  const translation: Translation = { format: 'four-level', frames };
  processor = group.create();
  processor.translation = dated ? { ...translation, tableGenerations: generations } : translation;
  for (const root of [Table.first, Table.second]) entry(root, 0, Table.sharedLevel3, USED);
  entry(Table.sharedLevel3, 0, Table.sharedLevel2);
  entry(Table.sharedLevel2, 0, Table.sharedLevel1);
  entry(Table.sharedLevel1, 5, Table.page);
  entry(Table.first, 1, Table.firstLevel3);
  entry(Table.firstLevel3, 0, Table.firstLevel2);
  entry(Table.firstLevel2, 0, Table.firstLevel1);
  entry(Table.firstLevel1, 6, Table.page);
  entry(Table.second, 1, Table.secondLevel3);
  entry(Table.secondLevel3, 0, Table.secondLevel2);
  entry(Table.secondLevel2, 0, Table.secondLevel1);
  entry(Table.secondLevel1, 6, Table.otherPage);
}

const load = (root: number) => processor.setRoots(root, -1);

/** The frame behind an address, and whether it took a walk. */
function look(address: GuestVirtual, access = Access.read): { frame: number; walked: boolean } {
  const { fills } = processor.memory.tlbCounters;
  const at = processor.memory.translate(address, access);
  return { frame: at < 0 ? -1 : pool.frameAt(at), walked: processor.memory.tlbCounters.fills !== fills };
}

function goAwayAndBack(meanwhile: () => void = () => {}): void {
  load(Table.second);
  meanwhile();
  load(Table.first);
}

describe('translations of a root that comes back', () => {
  beforeEach(() => {
    build(4);
    load(Table.first);
    look(OWN, Access.write);
  });

  test('are still there', () => {
    goAwayAndBack();
    expect(look(OWN, Access.write)).toEqual({ frame: Table.page, walked: false });
  });

  test('are not those of the root between', () => {
    load(Table.second);
    expect(look(OWN)).toEqual({ frame: Table.otherPage, walked: true });
  });

  test.each([
    ['level 1', Table.firstLevel1, 6, Table.otherPage],
    ['level 2', Table.firstLevel2, 0, Table.secondLevel1],
    ['level 3', Table.firstLevel3, 0, Table.secondLevel2],
    ['level 4', Table.first, 1, Table.secondLevel3],
  ])('are walked for again when an entry of %s changed', (_level, table, index, target) => {
    goAwayAndBack(() => change(table, index, target));
    expect(look(OWN)).toEqual({ frame: Table.otherPage, walked: true });
  });

  test('are dropped when the entry changed before the root went away', () => {
    change(Table.firstLevel1, 6, Table.otherPage);
    goAwayAndBack();
    expect(look(OWN).frame).toBe(Table.otherPage);
  });

  test('set the accessed and dirty bits again that were cleared meanwhile', () => {
    goAwayAndBack(() => change(Table.firstLevel1, 6, Table.page));
    look(OWN, Access.write);
    expect(flagsOf(Table.firstLevel1, 6)).toBe(FLAGS | Pte.accessed | Pte.dirty);
  });

  test('do not lead to a frame that was taken away', () => {
    goAwayAndBack(() => group.invalidateFrame(Table.page as Frame));
    expect(look(OWN).walked).toBe(true);
  });

  test('do not lead to a frame that was taken away before more others than are remembered', () => {
    goAwayAndBack(() => {
      group.invalidateFrame(Table.page as Frame);
      for (let other = 0; other < 1000; other++) {
        look(OWN);
        group.invalidateFrame(Table.otherPage as Frame);
      }
    });
    expect(look(OWN).walked).toBe(true);
  });

  test('allow no store to a frame that became read-only, but loads', () => {
    goAwayAndBack(() => group.invalidateWritable(Table.page as Frame));
    expect(look(OWN).walked).toBe(false);
    expect(look(OWN, Access.write).walked).toBe(true);
  });

  test('are gone when more roots were used than are kept', () => {
    load(Table.second);
    for (const root of [3, 13, 14, 15]) load(root);
    load(Table.first);
    expect(look(OWN).walked).toBe(true);
  });

  test('are gone with the tables of another domain', () => {
    processor.translation = { ...processor.translation };
    load(Table.first);
    expect(look(OWN).walked).toBe(true);
  });
});

describe('a root that was not loaded before', () => {
  beforeEach(() => {
    build(4);
    load(Table.first);
    look(SHARED);
  });

  test('begins with the translations of the top-level entries that it shares', () => {
    load(Table.second);
    expect(look(SHARED)).toEqual({ frame: Table.page, walked: false });
  });

  test('walks where its own accessed bit is not set', () => {
    entry(Table.second, 0, Table.sharedLevel3, FLAGS);
    load(Table.second);
    look(SHARED);
    expect(flagsOf(Table.second, 0)).toBe(USED);
  });

  test('takes over nothing that is out of date', () => {
    change(Table.sharedLevel1, 5, Table.otherPage);
    load(Table.second);
    expect(look(SHARED)).toEqual({ frame: Table.otherPage, walked: true });
  });

  test('takes over nothing when the top level of the other one changed', () => {
    entry(Table.firstLevel2, 0, Table.firstLevel1);
    entry(Table.firstLevel1, 5, Table.otherPage);
    change(Table.first, 0, Table.firstLevel3);
    entry(Table.second, 0, Table.firstLevel3);
    load(Table.second);
    expect(look(SHARED)).toEqual({ frame: Table.otherPage, walked: true });
  });

  test('takes over nothing from top-level entries that differ', () => {
    look(OWN);
    load(Table.second);
    expect(look(OWN)).toEqual({ frame: Table.otherPage, walked: true });
  });
});

describe('a flush', () => {
  beforeEach(() => {
    build(4);
    load(Table.first);
    look(OWN);
    look(SHARED);
  });

  test('drops what changed and keeps what a walk would find again', () => {
    change(Table.firstLevel1, 6, Table.otherPage);
    processor.flushTlb();
    expect(look(OWN)).toEqual({ frame: Table.otherPage, walked: true });
    expect(look(SHARED).walked).toBe(false);
  });

  test('keeps what came through other entries of a table that changed', () => {
    change(Table.firstLevel1, 7, Table.otherPage);
    processor.flushTlb();
    expect(look(OWN).walked).toBe(false);
    change(Table.firstLevel1, 6, Table.otherPage, FLAGS);
    processor.flushTlb();
    expect(look(OWN)).toEqual({ frame: Table.otherPage, walked: true });
  });

  test.each([
    ['cannot be written any more', Table.firstLevel1, USED & ~Pte.writable],
    ['was not accessed', Table.firstLevel1, FLAGS],
    ["is the kernel's alone", Table.firstLevel1, USED & ~Pte.user],
  ])('drops a page that %s', (_what, table, flags) => {
    change(table, 6, Table.page, flags);
    processor.flushTlb();
    expect(look(OWN).walked).toBe(true);
  });

  test('drops what changed before more changes than are remembered', () => {
    change(Table.firstLevel1, 6, Table.otherPage);
    for (let other = 0; other < 1000; other++) change(Table.secondLevel1, 7, Table.page + (other % 2));
    processor.flushTlb();
    expect(look(OWN)).toEqual({ frame: Table.otherPage, walked: true });
    expect(look(SHARED).walked).toBe(false);
  });

  test('drops what came through an entry above that changed', () => {
    change(Table.firstLevel2, 1, Table.otherPage);
    processor.flushTlb();
    expect(look(OWN).walked).toBe(true);
  });

  test('is what loading the same root again is', () => {
    change(Table.firstLevel1, 6, Table.otherPage);
    load(Table.first);
    expect(look(OWN).frame).toBe(Table.otherPage);
  });

  test('of one page drops it', () => {
    processor.invalidatePage(OWN);
    expect(look(OWN).walked).toBe(true);
  });
});

describe.each([
  ['tables without generations', 4, false],
  ['one root kept', 1, true],
])('with %s', (_what, roots, dated) => {
  beforeEach(() => {
    build(roots, dated);
    load(Table.first);
    look(OWN);
  });

  test('a change of the root drops everything', () => {
    goAwayAndBack();
    expect(look(OWN).walked).toBe(true);
  });

  test('a flush drops everything', () => {
    processor.flushTlb();
    expect(look(OWN).walked).toBe(true);
  });
});

describe('the translations of a process context', () => {
  const CONTEXTS = 4;
  const enter = (number: number, root: number, keep = true) => processor.setRoots(root, -1, { number, keep });
  const away = (meanwhile: () => void = () => {}): void => {
    enter(2, Table.second, false);
    meanwhile();
    enter(1, Table.first);
  };

  beforeEach(() => {
    build(CONTEXTS, false);
    entry(Table.sharedLevel1, 5, Table.page, FLAGS | Pte.global);
    processor.cr4 |= Cr4.globalPages;
    enter(1, Table.first, false);
    look(OWN, Access.write);
    look(SHARED);
  });

  test('are there again when the kernel keeps them, though it has changed the tables', () => {
    away(() => {
      expect(look(OWN)).toEqual({ frame: Table.otherPage, walked: true });
      entry(Table.firstLevel1, 6, Table.otherPage);
    });
    expect(look(OWN, Access.write)).toEqual({ frame: Table.page, walked: false });
  });

  test('stay when the same root is loaded in it, or are gone, as the kernel says', () => {
    enter(1, Table.first);
    expect(look(OWN).walked).toBe(false);
    enter(1, Table.first, false);
    expect(look(OWN).walked).toBe(true);
  });

  test('are gone when the kernel does not keep them, but for global pages', () => {
    enter(2, Table.second, false);
    enter(1, Table.first, false);
    expect(look(OWN).walked).toBe(true);
    expect(look(SHARED).walked).toBe(false);
  });

  test('are not those of another root, even when the kernel keeps them', () => {
    enter(1, Table.second);
    expect(look(OWN)).toEqual({ frame: Table.otherPage, walked: true });
  });

  test('are not those of another context with the same root', () => {
    entry(Table.firstLevel1, 6, Table.otherPage);
    enter(2, Table.first, false);
    expect(look(OWN)).toEqual({ frame: Table.otherPage, walked: true });
  });

  test.each([
    ['a flush of everything', () => processor.flushTlb(), true],
    ['a flush of the page', () => processor.invalidatePage(OWN), false],
    ['a frame that was taken away', () => group.invalidateFrame(Table.page as Frame), true],
  ])('do not outlive %s meanwhile', (_what, happen, sharedToo) => {
    away(happen);
    expect(look(OWN).walked).toBe(true);
    expect(look(SHARED).walked).toBe(sharedToo);
  });

  test('allow no store to a frame that became read-only meanwhile', () => {
    away(() => group.invalidateWritable(Table.page as Frame));
    expect(look(OWN).walked).toBe(false);
    expect(look(OWN, Access.write).walked).toBe(true);
  });

  test('give way to those of contexts that were used later', () => {
    for (let number = 2; number <= CONTEXTS + 1; number++) enter(number, Table.second, false);
    enter(1, Table.first);
    expect(look(OWN).walked).toBe(true);
  });
});

test('code changed through another address of its page, cached as writable before, is executed as changed', () => {
  memory = new HostMemory(80 << 20);
  pool = new FramePool(memory, 8);
  group = new ProcessorGroup(memory, pool, { codeBytes: 1 << 20 });
  processor = group.create();
  processor.translation = { format: 'none', frames: Int32Array.of(0, 1, 1, 2, 3) };
  const write = (frame: number, offset: number, bytes: number[]) =>
    memory.u8.set(bytes, pool.addressOf(frame as Frame) + offset);
  // 0x1000, also at 0x2000: mov eax, 1; ret
  write(1, 0, [0xb8, 1, 0, 0, 0, 0xc3]);
  const store = (address: number, value: number) => [0xc6, 0x04, 0x25, address & 0xff, address >> 8, 0, 0, value];
  const call = (from: number) => [0xe8, ...new Uint8Array(Int32Array.of(0x1000 - (0x3000 + from + 5)).buffer)];
  write(2, 0, [...store(0x2fff, 0), ...call(8), ...store(0x2001, 7), ...call(21), 0xf4]);
  processor.setValue(Register.rsp, 0x4ff0);
  processor.rip = 0x3000 as GuestVirtual;
  expect(processor.run(1000)).toBe(Exit.system);
  expect(processor.low(Register.rax)).toBe(7);
});
