import { afterEach, describe, expect, test, vi } from 'vitest';
import { Access } from '../src/cpu/exits.ts';
import type { StatisticsReport } from '../src/inspect/statistics.ts';
import type { TraceLine } from '../src/inspect/trace.ts';
import { Errno } from '../src/interfaces/xen/errno.ts';
import { GrantStatus } from '../src/interfaces/xen/grant-table.ts';
import { PagingError } from '../src/paging/direct/errors.ts';
import { type Frame, type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import {
  assemble,
  BASE,
  CODE,
  DATA,
  DONE,
  destroyGuests,
  Hypercall,
  SELF,
  SmallGuest,
  smallPlan,
} from './xen-guest.ts';

const NOWHERE = 0x1000;
const WRITABLE = 0x63;
const READ_ONLY = 0x61;
const ABSENT = 0;
const UNKNOWN_COMMAND = 5;
const TABLE = 0x67;

afterEach(destroyGuests);

const report = (guest: SmallGuest) => guest.domain.figures(0) as StatisticsReport;

describe('hypercalls of a small guest', () => {
  test('an unknown one answers −ENOSYS and is counted', () => {
    const guest = new SmallGuest();
    expect(guest.hypercall(55)).toBe(-Errno.ENOSYS);
    expect(guest.hypercall(99)).toBe(-Errno.ENOSYS);
    expect(report(guest).hypercalls).toEqual({ 'unknown 55': 1, 'unknown 63': 1 });
  });

  test.each([
    ['version', 0, 0x4_0011],
    ['page size', 7, 4096],
    ['a command that does not exist', 77, -Errno.ENOSYS],
    ['extra version to where nothing is mapped', 1, -Errno.EFAULT],
  ])('xen_version: %s', (_what, command, expected) => {
    expect(new SmallGuest().hypercall(Hypercall.xenVersion, command, command === 1 ? NOWHERE : 0)).toBe(expected);
  });

  test('a program of the guest is carried out in order', () => {
    const text = new TextEncoder().encode('hello');
    const POWEROFF = 2;
    const program = [
      ...assemble.hypercall(Hypercall.consoleIo, 0, text.length, CODE + 200),
      ...assemble.hypercall(Hypercall.sched, POWEROFF, CODE + 208),
    ];
    const page = [...program, ...new Uint8Array(200 - program.length), ...text];
    const guest = new SmallGuest({}, smallPlan(page));
    guest.domain.turn();
    expect(guest.console).toBe('hello');
    expect(guest.domain.state).toEqual({ kind: 'poweroff' });
  });
});

test('a grant table does not grow when the host has no frame left', () => {
  const { grants, space, id } = new SmallGuest().domain;
  const taken: Frame[] = [];
  while (space.pool.available > 0) taken.push(space.pool.allocate());
  expect(grants.setupTable(id, 3)).toEqual({ status: GrantStatus.generalError, frames: [] });
  for (const frame of taken) space.pool.release(frame);
  expect(grants.setupTable(id, 3).frames).toHaveLength(3);
});

describe('VCPUOP_initialise', () => {
  const VCPU = 24;
  const INITIALISE = 0;
  const CR3 = 3;
  const IN_KERNEL = 4;
  const KERNEL_CS = 0xe033;
  const KERNEL_SS = 0xe02b;

  test('goes on in another call when its work is used up', () => {
    const guest = new SmallGuest({ vcpus: 2 });
    const { paging, abi, vcpus } = guest.domain;
    const { context, userRegisters } = abi.structures;
    guest.store(DATA + context.controlRegisters + CR3 * abi.longSize, paging.root(0) * PAGE_SIZE, 0);
    guest.store(DATA + context.flags, IN_KERNEL);
    guest.store(DATA + context.registers + userRegisters.cs, KERNEL_CS);
    guest.store(DATA + context.registers + userRegisters.ss, KERNEL_SS);
    const examine = vi.spyOn(paging, 'newBasePointer').mockReturnValueOnce(PagingError.preempted);
    expect(guest.hypercall(VCPU, INITIALISE, 1, DATA)).toBe(0);
    expect(examine).toHaveBeenCalledTimes(2);
    expect(report(guest).hypercalls).toEqual({ vcpu_op: 2 });
    expect(vcpus[1]?.initialised).toBe(true);
    expect(paging.recount()).toEqual([]);
  });
});

describe('multicall', () => {
  const ENTRY = 64;

  test('gives each entry its result and succeeds itself', () => {
    const guest = new SmallGuest();
    guest.store(DATA, Hypercall.xenVersion, 0, 0);
    guest.store(DATA + ENTRY, 55, 0);
    guest.store(DATA + 2 * ENTRY, Hypercall.multicall, 0, DATA, 1);
    guest.store(DATA + 3 * ENTRY, Hypercall.xenVersion, 0, 7);
    expect(guest.hypercall(Hypercall.multicall, DATA, 4)).toBe(0);
    const results = [0, 1, 2, 3].map((entry) => guest.load(DATA + entry * ENTRY + 8) | 0);
    expect(results).toEqual([0x4_0011, -Errno.ENOSYS, -Errno.EINVAL, 4096]);
    expect(report(guest).hypercalls).toMatchObject({ multicall: 2, xen_version: 2, 'unknown 55': 1 });
  });

  test('faults on a list that cannot be read', () => {
    expect(new SmallGuest().hypercall(Hypercall.multicall, NOWHERE, 1)).toBe(-Errno.EFAULT);
  });

  test('a preempted entry is continued, and those after it are done once', () => {
    const guest = new SmallGuest();
    const bytes = 40_000;
    guest.store(DATA, Hypercall.consoleIo, 0, 0, bytes, BASE + 0x10_0000);
    guest.store(DATA + ENTRY, Hypercall.consoleIo, 0, 0, 3, DATA);
    expect(guest.hypercall(Hypercall.multicall, DATA, 2)).toBe(0);
    expect(guest.console).toHaveLength(bytes + 3);
  });
});

describe('mmu_update', () => {
  const DATA_PAGE = DATA + 8 * PAGE_SIZE;

  test('sets an entry by the operation of its level', () => {
    const guest = new SmallGuest();
    const [root, upper, , last] = guest.path(DATA_PAGE);
    const page = guest.mfnAt(DATA_PAGE);
    expect(guest.update(guest.request(last, page, READ_ONLY))).toBe(0);
    expect(guest.update(guest.request({ table: root.table, index: 5 }, upper.table, TABLE))).toBe(0);
    expect(guest.load(DATA_PAGE)).toBe(0);
    expect(() => guest.store(DATA_PAGE, 1)).toThrow('not writable');
    expect(report(guest).operations).toEqual({ 'mmu.setPte': 1, 'mmu.setPgd': 1 });
  });

  const lastOf = (guest: SmallGuest, address: number) => guest.path(address)[3];

  test.each<[string, number, (guest: SmallGuest) => number]>([
    ['a foreign domain', -Errno.ESRCH, (guest) => guest.hypercall(Hypercall.mmuUpdate, DATA, 1, DONE, 9)],
    ['a list that is not mapped', -Errno.EFAULT, (guest) => guest.hypercall(Hypercall.mmuUpdate, NOWHERE, 1, 0, SELF)],
    [
      'a number that names no frame',
      -Errno.EINVAL,
      (guest) => guest.update(guest.request({ table: 0xf_0000, index: 0 }, 0, ABSENT)),
    ],
    [
      'a writable mapping of a page table',
      -Errno.EBUSY,
      (guest) => {
        const last = lastOf(guest, DATA_PAGE);
        return guest.update(guest.request(last, last.table, WRITABLE));
      },
    ],
    [
      'an entry of the host',
      -Errno.EINVAL,
      (guest) => guest.update(guest.request({ table: guest.domain.paging.root(0), index: 256 }, 0, ABSENT)),
    ],
    [
      'an unknown command',
      -Errno.ENOSYS,
      (guest) => {
        const { table, index } = lastOf(guest, DATA_PAGE);
        const pointer = (table << 12) | (index * 8) | UNKNOWN_COMMAND;
        const request = [
          [pointer, 0],
          [0, 0],
        ] as const;
        return guest.update(request);
      },
    ],
  ])('refuses %s', (_what, expected, attempt) => {
    const guest = new SmallGuest();
    expect(attempt(guest)).toBe(expected);
    expect(guest.load(DATA_PAGE)).toBe(0);
    expect(guest.domain.paging.recount()).toEqual([]);
  });

  test('tells how many requests were done before the one that was refused', () => {
    const guest = new SmallGuest();
    const last = lastOf(guest, DATA_PAGE);
    const good = guest.request(last, guest.mfnAt(DATA_PAGE), READ_ONLY);
    expect(guest.update(good, good, guest.request(last, last.table, WRITABLE), good)).toBe(-Errno.EBUSY);
    expect(guest.load(DONE)).toBe(2);
  });

  test('a batch beyond its bound goes on by itself', () => {
    const guest = new SmallGuest();
    const last = lastOf(guest, DATA_PAGE);
    const page = guest.mfnAt(DATA_PAGE);
    const requests = Array.from({ length: 3000 }, (_, index) =>
      guest.request(last, page, index % 2 === 0 ? READ_ONLY : WRITABLE),
    );
    guest.store(DATA + 9 * PAGE_SIZE, ...requests.flat());
    expect(guest.hypercall(Hypercall.mmuUpdate, DATA + 9 * PAGE_SIZE, requests.length, DONE, SELF)).toBe(0);
    expect(guest.load(DONE)).toBe(requests.length);
    expect(report(guest).operations).toEqual({ 'mmu.setPte': requests.length });
  });
});

test('a call that is preempted too often gives up the turn and is made again', () => {
  const guest = new SmallGuest();
  // 16 KiB of each console_io are written at once, and 64 continuations are made before the turn ends.
  const bytes = 70 * 16_384;
  guest.domain.turn();
  expect(guest.hypercall(Hypercall.consoleIo, 0, bytes, BASE + 0x10_0000)).toBe(0);
  expect(guest.console).toHaveLength(bytes);
  expect(report(guest).exits).toMatchObject({ syscall: 3 });
});

test('update_va_mapping sets the entry and flushes what it is asked to', () => {
  const guest = new SmallGuest({ vcpus: 2 });
  const address = DATA + 8 * PAGE_SIZE;
  const page = guest.mfnAt(address);
  const INVLPG_ALL = 2 | 4;
  guest.store(address, 1);
  expect(guest.hypercall(Hypercall.updateVaMapping, address, page * PAGE_SIZE + READ_ONLY, INVLPG_ALL)).toBe(0);
  expect(() => guest.store(address, 2)).toThrow('not writable');
  expect(guest.hypercall(Hypercall.updateVaMapping, NOWHERE, 0, 0)).toBe(-Errno.EINVAL);
  expect(report(guest).operations).toEqual({ 'mmu.setPteAt': 1, 'mmu.flushTlbSingle': 1, 'mmu.flushTlbOthers': 1 });
});

test('calls on registers become operations', () => {
  const guest = new SmallGuest();
  expect(guest.hypercall(Hypercall.stackSwitch, 0, DATA)).toBe(0);
  expect(guest.hypercall(Hypercall.setSegmentBase, 0, DATA)).toBe(0);
  expect(guest.hypercall(Hypercall.setSegmentBase, 0, 2 ** 47)).toBe(-Errno.EINVAL);
  expect(guest.hypercall(Hypercall.setSegmentBase, 4, 0)).toBe(-Errno.EINVAL);
  expect(report(guest).operations).toEqual({ 'cpu.loadSp0': 1, 'cpu.writeMsr': 2 });
});

describe('the trace', () => {
  test('has operations, the hypercalls that made them, and exits, as JSON Lines', () => {
    const pieces: string[] = [];
    const guest = new SmallGuest({ trace: (text) => pieces.push(text) });
    guest.hypercall(Hypercall.stackSwitch, 0x2b, DATA);
    destroyGuests();
    const text = pieces.join('');
    expect(text.endsWith('\n')).toBe(true);
    const lines = text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as TraceLine);
    expect(lines.slice(0, 3)).toMatchObject([
      { k: 'exit', n: 'syscall' },
      { k: 'operation', n: 'cpu.loadSp0', a: { segment: '0x2b', stack: '0xffffffff80101000' }, r: 0 },
      { k: 'hypercall', n: 'stack_switch', a: ['0x2b', '0xffffffff80101000'], r: 0 },
    ]);
  });
});

describe('checked contracts', () => {
  const PAGE = DATA + 8 * PAGE_SIZE;
  const OTHER = DATA + 9 * PAGE_SIZE;
  const reasonOf = (guest: SmallGuest) => {
    const { state } = guest.domain;
    return state.kind === 'crash' ? state.reason : state.kind;
  };

  test('pinning a level-1 table that is linked crashes the domain with the violation', () => {
    const guest = new SmallGuest({ check: true });
    const table = guest.path(PAGE)[3].table;
    guest.extended(0, table);
    expect(reasonOf(guest)).toMatch(/^contract of mmu.allocPt broken at .* on vcpu 0: announced-after-link: /);
    expect(guest.domain.crashReport()).toContain('announced-after-link');
  });

  /** Makes page and tables reachable at a user's address too: the lowest slot of the root links what the highest does. */
  function aliased(check: boolean): { guest: SmallGuest; low: number } {
    const guest = new SmallGuest({ check });
    const [root, upper] = guest.path(PAGE);
    expect(guest.update(guest.request({ table: root.table, index: 0 }, upper.table, TABLE))).toBe(0);
    return { guest, low: PAGE + 2 ** 39 };
  }

  function reuseAsTable(guest: SmallGuest, low: number, flush: boolean): void {
    const at = guest.path(PAGE)[3];
    const page = guest.mfnAt(PAGE);
    expect(guest.domain.vcpus[0]?.processor.memory.translate(low as GuestVirtual, Access.read)).toBeGreaterThan(0);
    guest.update(guest.request(at, page, ABSENT));
    if (flush) guest.extended(6, 0);
    guest.extended(0, page);
  }

  test('a page that becomes a table while a translation of it is stale crashes the domain', () => {
    const { guest, low } = aliased(true);
    reuseAsTable(guest, low, false);
    expect(reasonOf(guest)).toMatch(/^contract of mmu.setPte broken .*: missing-flush: .*event=retyped/);
  });

  test('the same with the flush is right, and so is everything without the check', () => {
    const checked = aliased(true);
    reuseAsTable(checked.guest, checked.low, true);
    expect(reasonOf(checked.guest)).toBe('running');
    const unchecked = aliased(false);
    reuseAsTable(unchecked.guest, unchecked.low, false);
    expect(reasonOf(unchecked.guest)).toBe('running');
  });

  /** Uses an address, takes its page away, and uses it again. */
  function useAfterUnmapping(flush: boolean): SmallGuest {
    const { guest, low } = aliased(true);
    const memory = guest.domain.vcpus[0]?.processor.memory;
    expect(memory?.readWord(low as GuestVirtual)).toBe(0);
    guest.update(guest.request(guest.path(PAGE)[3], guest.mfnAt(PAGE), ABSENT));
    if (flush) guest.extended(6, 0);
    expect(memory?.readWord(low as GuestVirtual)).toBe(-1);
    return guest;
  }

  test('a stale translation that is used crashes the domain', () => {
    expect(reasonOf(useAfterUnmapping(false))).toMatch(
      /^contract of mmu.setPte broken .*: missing-flush: .*event=used/,
    );
    expect(reasonOf(useAfterUnmapping(true))).toBe('running');
  });

  test('a page of the kernel alone may be reused before its flush', () => {
    const guest = new SmallGuest({ check: true });
    reuseAsTable(guest, PAGE, false);
    expect(reasonOf(guest)).toBe('running');
  });

  test('a store into a table above level 1 crashes the domain', () => {
    const guest = new SmallGuest({ check: true });
    const { table } = guest.path(PAGE)[2];
    // The builder mapped its tables read-only; one of them is mapped at OTHER as well.
    expect(guest.update(guest.request(guest.path(OTHER)[3], table, READ_ONLY))).toBe(0);
    guest.domain.vcpus[0]?.processor.memory.storeAt(OTHER as GuestVirtual, 8);
    expect(reasonOf(guest)).toMatch(/store-into-live-table/);
  });

  test('frame counts that do not add up crash the domain when it ends', () => {
    const guest = new SmallGuest({ check: true });
    const { references } = guest.domain.paging.types;
    references.add(guest.mfnAt(PAGE), 1); // a frame of the domain
    guest.store(DATA, 0);
    guest.hypercall(Hypercall.sched, 2, DATA);
    expect(reasonOf(guest)).toMatch(/^frame types do not add up: references of frame 0x[0-9a-f]+ is 2, counted are 1$/);
  });
});
