import { describe, expect, test } from 'vitest';
import { formatViolation } from '../src/inspect/violation-text.ts';
import type { RuleName } from '../src/ops/contracts.ts';
import { UNKNOWN_TABLE } from '../src/ops/schema.ts';
import type { GuestVirtual } from '../src/x86/brand.ts';
import { entryHigh, entryLow } from '../src/x86/page-table.ts';
import { PTE_NO_EXECUTE_HIGH, Pte } from '../src/x86/registers.ts';
import {
  ADDRESS,
  INDEX,
  LEVEL1,
  LEVEL2,
  MmuWorld,
  OTHER_ROOT,
  PAGE,
  PAGE_FLAGS,
  PRESENT_READ_ONLY,
  ROOT,
  SPARE,
  TABLE_FLAGS,
} from './inspect-mmu-world.ts';

const pageLow = entryLow(PAGE, PAGE_FLAGS);
const pageHigh = entryHigh(PAGE);

interface Case {
  /** What a guest that keeps the contract does. */
  readonly kept: (world: MmuWorld) => void;
  readonly broken: (world: MmuWorld) => void;
  /** Part of the state that must be named. */
  readonly state: Readonly<Record<string, unknown>>;
}

/** One case a rule; the type makes a rule without a case an error. */
const cases: Readonly<Record<RuleName, Case>> = {
  'store-into-active-root': {
    kept: ({ operations }) => operations.mmu.setPgd(0, ROOT, 3, 0, 0),
    broken: ({ checker }) => checker.directStore(0, ROOT, 3),
    state: { table: ROOT, index: 3, walkedBy: 1, instead: 'mmu.setPgd' },
  },
  'store-into-live-table': {
    kept: ({ checker }) => checker.directStore(0, LEVEL1, 3),
    broken: ({ checker }) => checker.directStore(0, LEVEL2, 3),
    state: { table: LEVEL2, type: 'level2', instead: 'mmu.setPmd' },
  },
  'read-without-accessor': {
    kept: ({ checker }) => checker.directRead(0, LEVEL1, 3, true),
    broken: ({ checker }) => checker.directRead(0, LEVEL1, 3, false),
    state: { table: LEVEL1, instead: 'mmu.getPte' },
  },
  'missing-flush': {
    kept: (world) => {
      world.fill(0, ADDRESS, PAGE);
      world.operations.mmu.setPteAt(0, ROOT, ADDRESS, LEVEL1, INDEX, 0, 0);
      world.operations.mmu.flushTlbSingle(0, ADDRESS);
      world.checker.pageFreed(0, PAGE);
    },
    broken: (world) => {
      world.fill(0, ADDRESS, PAGE);
      world.operations.mmu.setPteAt(0, ROOT, ADDRESS, LEVEL1, INDEX, 0, 0);
      world.checker.pageFreed(0, PAGE);
    },
    state: { event: 'freed', page: PAGE, address: ADDRESS, cachedBy: 0, changedAt: 0x1000 },
  },
  'lazy-section-twice': {
    kept: ({ operations }) => {
      operations.misc.setLazyMode(0, 'mmu');
      operations.misc.setLazyMode(1, 'mmu');
    },
    broken: ({ operations }) => {
      operations.misc.setLazyMode(0, 'mmu');
      operations.misc.setLazyMode(0, 'cpu');
    },
    state: { open: 'mmu', entering: 'cpu' },
  },
  'lazy-section-not-open': {
    kept: ({ operations }) => {
      operations.cpu.startContextSwitch(0);
      operations.cpu.endContextSwitch(0);
    },
    broken: ({ operations }) => operations.misc.setLazyMode(0, 'none'),
    state: { leaving: 'none' },
  },
  'lazy-updates-left': {
    kept: ({ operations }) => operations.misc.flushLazyMode(0),
    broken: (world) => {
      world.putOff = 2;
      world.operations.misc.flushLazyMode(0);
    },
    state: { left: 2 },
  },
  'table-freed-while-walked': {
    kept: (world) => world.checker.pageFreed(0, SPARE),
    broken: (world) => world.checker.pageFreed(0, OTHER_ROOT),
    state: { table: OTHER_ROOT, walkedBy: 2 },
  },
  'address-mismatch': {
    kept: ({ operations }) => operations.mmu.setPteAt(0, UNKNOWN_TABLE, ADDRESS, LEVEL1, INDEX, pageLow, pageHigh),
    broken: ({ operations }) =>
      operations.mmu.setPteAt(0, ROOT, 0x6000 as GuestVirtual, LEVEL1, INDEX, pageLow, pageHigh),
    state: { address: 0x6000, index: INDEX, endedAtLevel: 1, reachedTable: LEVEL1, reachedIndex: 6 },
  },
  'announced-after-link': {
    kept: ({ operations }) => {
      operations.mmu.allocPt(0, ROOT, SPARE);
      operations.mmu.setPmd(0, LEVEL2, 1, entryLow(SPARE, TABLE_FLAGS), 0);
    },
    broken: ({ operations }) => {
      operations.mmu.setPmd(0, LEVEL2, 1, entryLow(SPARE, TABLE_FLAGS), 0);
      operations.mmu.allocPt(0, ROOT, SPARE);
    },
    state: { table: SPARE, links: 1 },
  },
  'released-before-unlink': {
    kept: ({ operations }) => {
      operations.mmu.setPmd(0, LEVEL2, 0, 0, 0);
      operations.mmu.releasePt(0, LEVEL1);
    },
    broken: ({ operations }) => operations.mmu.releasePt(0, LEVEL1),
    state: { table: LEVEL1, links: 1 },
  },
  'active-root-released': {
    kept: (world) => {
      world.operations.mmu.writeCr3(1, ROOT, false, false);
      world.operations.mmu.exitMmap(0, OTHER_ROOT);
      world.builderRoot = ROOT;
      world.operations.mmu.exitMmap(0, ROOT);
    },
    broken: ({ operations }) => operations.mmu.exitMmap(0, OTHER_ROOT),
    state: { root: OTHER_ROOT, walkedBy: 2 },
  },
  'root-not-validated': {
    kept: ({ operations }) => {
      operations.mmu.writeCr3(0, OTHER_ROOT, false, false);
      operations.mmu.writeCr3(0, UNKNOWN_TABLE, true, false);
    },
    broken: ({ operations }) => operations.mmu.writeCr3(0, SPARE, false, false),
    state: { root: SPARE, type: 'none' },
  },
  'root-read-back': {
    kept: ({ operations }) => operations.mmu.readCr3(0),
    broken: (world) => {
      world.losesEntries = true;
      world.operations.mmu.readCr3(0);
    },
    state: { read: 0, walked: ROOT },
  },
  'wrong-level': {
    kept: ({ operations }) => operations.mmu.setPte(0, SPARE, 1, 0, 0),
    broken: ({ operations }) => operations.mmu.setPte(0, LEVEL2, 1, 0, 0),
    state: { table: LEVEL2, type: 'level2', expected: 'level1' },
  },
  'entry-not-stored': {
    kept: ({ operations }) => operations.mmu.setPte(0, LEVEL1, 7, pageLow, pageHigh),
    broken: (world) => {
      world.losesEntries = true;
      world.operations.mmu.setPte(0, LEVEL1, 7, pageLow, pageHigh);
    },
    state: { table: LEVEL1, index: 7, wantedLow: pageLow, foundLow: 0 },
  },
  'pin-not-held': {
    kept: ({ operations }) => operations.mmu.activateMm(0, OTHER_ROOT),
    broken: (world) => {
      world.losesEntries = true;
      world.pinned.delete(OTHER_ROOT);
      world.operations.mmu.activateMm(0, OTHER_ROOT);
    },
    state: { root: OTHER_ROOT, pinned: false },
  },
};

describe.each(Object.entries(cases))('rule %s', (rule, { kept, broken, state }) => {
  test('is silent while the contract is kept', () => {
    const world = new MmuWorld();
    kept(world);
    expect(world.violations).toEqual([]);
  });

  test('reports the rule and the state that broke it', () => {
    const world = new MmuWorld();
    broken(world);
    expect(world.violations).toHaveLength(1);
    expect(world.violations[0]).toMatchObject({ rule, rip: 0x1000, vcpu: 0, state });
  });
});

describe('a flush', () => {
  const replaceByReadOnly = (world: MmuWorld) =>
    world.operations.mmu.setPteAt(0, ROOT, ADDRESS, LEVEL1, INDEX, entryLow(PAGE, PRESENT_READ_ONLY), pageHigh);

  test('is not asked for when nothing has the old translation', () => {
    const world = new MmuWorld();
    replaceByReadOnly(world);
    expect(world.checker.flushesAwaited).toBe(0);
  });

  test('is not asked for when the new entry allows more', () => {
    const world = new MmuWorld();
    replaceByReadOnly(world);
    world.fill(0, ADDRESS, PAGE, false);
    world.operations.mmu.setPteAt(0, ROOT, ADDRESS, LEVEL1, INDEX, pageLow, pageHigh);
    expect(world.checker.flushesAwaited).toBe(0);
  });

  test('is no longer asked for when the old entry is restored', () => {
    const world = new MmuWorld();
    world.fill(0, ADDRESS, PAGE);
    replaceByReadOnly(world);
    expect(world.checker.flushesAwaited).toBe(1);
    world.operations.mmu.setPteAt(0, ROOT, ADDRESS, LEVEL1, INDEX, pageLow, pageHigh);
    expect(world.checker.flushesAwaited).toBe(0);
  });

  test('is missed when the page becomes a table while a writable translation is cached', () => {
    const world = new MmuWorld();
    world.fill(0, ADDRESS, PAGE);
    replaceByReadOnly(world);
    world.checker.pageRetyped(0, PAGE, 'level1');
    expect(world.violations).toMatchObject([{ rule: 'missing-flush', state: { event: 'retyped' } }]);
  });

  test('is not missed by stores where the host itself removes writable translations of tables', () => {
    const world = new MmuWorld();
    world.removesWritable = true;
    world.fill(0, ADDRESS, PAGE);
    // It loses execution as well.
    world.operations.mmu.setPteAt(0, ROOT, ADDRESS, LEVEL1, INDEX, pageLow & ~Pte.writable, PTE_NO_EXECUTE_HIGH);
    world.checker.tlbMissed(0, ADDRESS, true);
    expect(world.violations).toMatchObject([{ rule: 'missing-flush', state: { event: 'used' } }]);
    world.operations.mmu.setPteAt(0, ROOT, ADDRESS, LEVEL1, INDEX, pageLow, pageHigh);
    world.fill(0, ADDRESS, PAGE);
    world.operations.mmu.setPteAt(0, ROOT, ADDRESS, LEVEL1, INDEX, pageLow & ~Pte.writable, PTE_NO_EXECUTE_HIGH);
    world.checker.pageRetyped(0, PAGE, 'level1');
    world.checker.tlbMissed(0, ADDRESS, true);
    expect(world.violations).toHaveLength(1);
  });

  test('need not follow an operation whose host drops the translation', () => {
    const world = new MmuWorld();
    world.dropsWhatIsTold = true;
    world.fill(0, ADDRESS, PAGE);
    world.operations.mmu.setPteAt(0, ROOT, ADDRESS, LEVEL1, INDEX, 0, 0);
    expect(world.checker.flushesAwaited).toBe(0);
  });

  test('on this processor alone does not serve the others', () => {
    const world = new MmuWorld();
    world.fill(0, ADDRESS, PAGE);
    world.fill(1, ADDRESS, PAGE);
    world.operations.mmu.pteClear(0, ROOT, ADDRESS, LEVEL1, INDEX);
    world.operations.mmu.flushTlbUser(0);
    world.checker.pageFreed(0, PAGE);
    expect(world.violations).toMatchObject([{ rule: 'missing-flush', state: { cachedBy: 1, changedBy: 0 } }]);
  });

  test('on the others completes one on this processor', () => {
    const world = new MmuWorld();
    world.fill(0, ADDRESS, PAGE);
    world.fill(1, ADDRESS, PAGE);
    world.operations.mmu.pteClear(0, ROOT, ADDRESS, LEVEL1, INDEX);
    world.operations.mmu.flushTlbUser(0);
    world.operations.mmu.flushTlbOthers(0, 2, ROOT, ADDRESS, false);
    world.checker.pageFreed(0, PAGE);
    expect(world.violations).toEqual([]);
  });

  test('is missed at once when the processor that changed the entry uses the translation', () => {
    const world = new MmuWorld();
    world.fill(0, ADDRESS, PAGE);
    world.operations.mmu.pteClear(0, ROOT, ADDRESS, LEVEL1, INDEX);
    expect(world.watched).toEqual([`0:${ADDRESS}`]);
    world.checker.tlbMissed(0, ADDRESS, false);
    expect(world.violations).toMatchObject([
      { rule: 'missing-flush', operation: 'mmu.pteClear', state: { event: 'used' } },
    ]);
  });

  test('is missed by a store where the new entry is read-only, not by a load', () => {
    const world = new MmuWorld();
    world.fill(0, ADDRESS, PAGE);
    replaceByReadOnly(world);
    world.checker.tlbMissed(0, ADDRESS, false);
    expect(world.violations).toEqual([]);
    world.checker.tlbMissed(0, ADDRESS, true);
    expect(world.violations).toMatchObject([{ rule: 'missing-flush', state: { event: 'used' } }]);
  });

  test('is not missed when the translation is used after it', () => {
    const world = new MmuWorld();
    world.fill(0, ADDRESS, PAGE);
    world.operations.mmu.pteClear(0, ROOT, ADDRESS, LEVEL1, INDEX);
    world.operations.mmu.flushTlbSingle(0, ADDRESS);
    world.checker.tlbMissed(0, ADDRESS, false);
    expect(world.violations).toEqual([]);
  });

  const returnToUser = (world: MmuWorld) => {
    world.userMode = 1;
    world.operations.cpu.iret(0);
  };

  test('is owed to other processors from when the one that changed the entry returns to user mode', () => {
    const world = new MmuWorld();
    world.fill(1, ADDRESS, PAGE);
    world.operations.mmu.pteClear(0, ROOT, ADDRESS, LEVEL1, INDEX);
    world.operations.cpu.iret(0);
    world.checker.tlbMissed(1, ADDRESS, false);
    expect(world.violations).toEqual([]);
    returnToUser(world);
    // What was used in between is in the TLB again, made from the new entry; a processor might still have the old one.
    expect(world.watched).toEqual([`1:${ADDRESS}`, `1:${ADDRESS}`]);
    world.checker.tlbMissed(1, ADDRESS, false);
    expect(world.violations).toMatchObject([{ rule: 'missing-flush', state: { event: 'used', cachedBy: 1 } }]);
  });

  test('is awaited without a limit when the one that changed the entry switches to another task', () => {
    const world = new MmuWorld();
    world.fill(1, ADDRESS, PAGE);
    world.operations.mmu.pteClear(0, ROOT, ADDRESS, LEVEL1, INDEX);
    world.operations.cpu.loadSp0(0, 0x2b, 0x8000 as GuestVirtual);
    returnToUser(world);
    world.checker.tlbMissed(1, ADDRESS, false);
    expect(world.violations).toEqual([]);
    world.checker.pageFreed(0, PAGE);
    expect(world.violations).toMatchObject([{ rule: 'missing-flush', state: { event: 'freed' } }]);
  });

  describe('where no operation tells of a return to user mode', () => {
    const changedByThread = (thread: number | undefined) => {
      const world = new MmuWorld();
      world.threads[0] = thread;
      world.fill(1, ADDRESS, PAGE);
      world.operations.mmu.pteClear(0, ROOT, ADDRESS, LEVEL1, INDEX);
      world.checker.turnEnded(0);
      world.checker.tlbMissed(1, ADDRESS, false);
      expect(world.violations).toEqual([]);
      return world;
    };

    test.each([0, 1])('is owed to others from when processor %i is seen in user mode for the same thread', (vcpu) => {
      const world = changedByThread(7);
      world.userMode = 1 << vcpu;
      world.threads[vcpu] = 7;
      world.checker.turnEnded(vcpu);
      world.checker.tlbMissed(1, ADDRESS, false);
      expect(world.violations).toMatchObject([{ rule: 'missing-flush', state: { cachedBy: 1, changedBy: 0 } }]);
    });

    test.each([
      ['another thread', 7, 8],
      ['one that nobody knows', 7, undefined],
      ['one, after a change by one that nobody knew', undefined, undefined],
    ])('is not owed yet when a processor is seen there for %s', (_whom, changing, seen) => {
      const world = changedByThread(changing);
      world.userMode = 1;
      world.threads[0] = seen;
      world.checker.turnEnded(0);
      world.checker.tlbMissed(1, ADDRESS, false);
      expect(world.violations).toEqual([]);
    });
  });

  test('is asked for after a change by an instruction of the guest', () => {
    const world = new MmuWorld();
    world.fill(0, ADDRESS, PAGE);
    world.write(LEVEL1, INDEX, 0, 0);
    world.checker.entryChanged(0, LEVEL1, INDEX, pageLow, pageHigh, 0, 0);
    world.checker.pageFreed(0, PAGE);
    expect(world.violations).toMatchObject([{ rule: 'missing-flush', operation: 'mmu.pteUpdate' }]);
  });

  test('is not asked for where another entry still maps the page at the cached address', () => {
    const world = new MmuWorld();
    world.fill(0, ADDRESS, PAGE);
    world.store(LEVEL1, 9, PAGE, PAGE_FLAGS);
    world.operations.mmu.setPte(0, LEVEL1, 9, 0, 0);
    world.checker.pageRetyped(0, PAGE, 'segmentDescriptors');
    expect(world.violations).toEqual([]);
  });
});

test('a host that does not examine tables has no opinion on their types', () => {
  const world = new MmuWorld();
  world.examinesTables = false;
  cases['wrong-level'].broken(world);
  cases['root-not-validated'].broken(world);
  expect(world.violations).toEqual([]);
});

test('a violation is one line that names operation, place, rule and state', () => {
  const world = new MmuWorld();
  cases['released-before-unlink'].broken(world);
  const [violation] = world.violations;
  expect(violation && formatViolation(violation)).toBe(
    'contract of mmu.releasePt broken at change_entry+0x4 (0x1000) on vcpu 0: released-before-unlink: ' +
      'A page table is released after the last entry that linked to it was cleared. (table=0x13 links=1)',
  );
});
