import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import type { GuestMemory } from '../src/cpu/translation.ts';
import { TSC_FREQUENCY, VirtualClock } from '../src/domain/clock.ts';
import { encodeVcpuTime, publishVcpuTime, timeScale } from '../src/domain/pvclock.ts';
import { EventChannels, Virq } from '../src/interfaces/xen/event-channels.ts';
import { RUNSTATE_32, RUNSTATE_64, RunState, Runstates } from '../src/interfaces/xen/runstate.ts';
import { SHARED_INFO_32, SHARED_INFO_64, SharedInfo } from '../src/interfaces/xen/shared-info.ts';
import { Timers } from '../src/interfaces/xen/timers.ts';
import { publishWallclock } from '../src/interfaces/xen/wallclock.ts';
import type { GuestVirtual, HostAddress, Mfn } from '../src/x86/brand.ts';
import { TestMachine } from './xen-events-machine.ts';

let machine: TestMachine;
let page: Mfn;
let shared: SharedInfo;

beforeEach(() => {
  machine = new TestMachine();
  page = machine.page();
  shared = new SharedInfo(machine.shared, page, SHARED_INFO_64, 2);
});

/** What a guest computes from a time info (vcpu_time_info, public/xen.h). */
function guestTime(bytes: Uint8Array, tsc: bigint): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const shift = view.getInt8(0x1c);
  const ticks = tsc - view.getBigUint64(8, true);
  const shifted = shift >= 0 ? ticks << BigInt(shift) : ticks >> BigInt(-shift);
  return view.getBigUint64(0x10, true) + ((shifted * BigInt(view.getUint32(0x18, true))) >> 32n);
}

describe('pvclock', () => {
  it('gives the guest exactly the system time', () => {
    const value = fc.integer({ min: 0, max: 2 ** 52 });
    fc.assert(
      fc.property(value, value, (then, later) => {
        const bytes = encodeVcpuTime(new VirtualClock(() => then), 2, 1);
        expect(guestTime(bytes, BigInt(then + later))).toBe(BigInt(then + later));
      }),
    );
  });

  it.each([
    [TSC_FREQUENCY, 1, 0x8000_0000],
    [2_000_000_000, 0, 0x8000_0000],
    [2_600_000_000, -1, Math.floor((1e9 / 1.3e9) * 2 ** 32)],
    [33_000_000, 5, Math.floor((1e9 / 1.056e9) * 2 ** 32)],
  ])('scales %i Hz as Xen does', (frequency, shift, multiplier) => {
    expect(timeScale(frequency)).toEqual({ shift, multiplier });
  });

  it('writes with the version odd and leaves it even, two more than before', () => {
    const address = (shared.vcpuInfo(1) + 0x20) as HostAddress;
    const clock = new VirtualClock(() => 2 ** 33 + 5);
    publishVcpuTime(machine.memory, address, clock, 1);
    publishVcpuTime(machine.memory, address, clock, 1);
    expect(machine.u32(page, 0x60)).toBe(4);
    expect(machine.u32(page, 0x68)).toBe(5);
    expect(machine.u32(page, 0x6c)).toBe(2);
    expect(machine.u32(page, 0x70)).toBe(5);
    expect(machine.u8(page, 0x7d)).toBe(1);
    machine.setU32(page, 0x60, 0xffff_ffff);
    publishVcpuTime(machine.memory, address, clock, 1);
    expect(machine.u32(page, 0x60)).toBe(0);
  });

  it.each([
    ['64-bit', SHARED_INFO_64, 0xc00, 0xc0c],
    ['32-bit', SHARED_INFO_32, 0x900, 0x924],
  ])('publishes the wall clock of a %s guest', (_name, layout, at, high) => {
    const info = new SharedInfo(machine.shared, machine.page(), layout, 1);
    publishWallclock(info, 2 ** 32 + 9, 123);
    expect(machine.u32(info.mfn, at)).toBe(2);
    expect(machine.u32(info.mfn, at + 4)).toBe(9);
    expect(machine.u32(info.mfn, at + 8)).toBe(123);
    expect(machine.u32(info.mfn, high)).toBe(1);
    expect(machine.untold()).toEqual([]);
  });
});

describe('timers', () => {
  let events: EventChannels;
  let timers: Timers;
  let woken: number[];
  let ports: number[];

  beforeEach(() => {
    woken = [];
    const waker = { wake: (vcpu: number) => void woken.push(vcpu) };
    events = new EventChannels(1, shared, waker);
    timers = new Timers(events, waker);
    ports = [events.bindVirq(Virq.timer, 0), events.bindVirq(Virq.timer, 1)];
  });

  const fired = (vcpu: number) => {
    const port = ports[vcpu]!;
    const was = events.isPending(port);
    machine.setBytes(page, 0x800, new Uint8Array(8));
    return was;
  };

  it('tick the first processor at 100 Hz until that is stopped', () => {
    expect(timers.nextDeadline()).toBe(10_000_000);
    timers.expire(9_999_999);
    expect(fired(0)).toBe(false);
    timers.expire(10_000_001);
    expect(fired(0)).toBe(true);
    expect(fired(1)).toBe(false);
    expect(timers.nextDeadline()).toBe(20_000_001);
    expect(timers.stopPeriodic(0)).toBe(0);
    expect(timers.nextDeadline()).toBe(Number.POSITIVE_INFINITY);
  });

  it('do not tick a processor that sleeps, and make up for one tick', () => {
    timers.asleep[0] = 1;
    expect(timers.nextDeadline()).toBe(Number.POSITIVE_INFINITY);
    timers.expire(95_000_000);
    expect(fired(0)).toBe(false);
    timers.asleep[0] = 0;
    timers.expire(95_000_000);
    expect(fired(0)).toBe(true);
    timers.expire(95_000_001);
    expect(fired(0)).toBe(false);
  });

  it('refuse periods below a millisecond', () => {
    expect(timers.setPeriodic(0, 999_999, 0)).toBe(-22);
    expect(timers.setPeriodic(0, -1, 0)).toBe(-22);
    expect(timers.setPeriodic(0, 1_000_000, 5)).toBe(0);
    expect(timers.nextDeadline()).toBe(1_000_005);
  });

  it('fire a single shot once, a sleeping processor included', () => {
    timers.stopPeriodic(0);
    timers.asleep[1] = 1;
    expect(timers.setSingleShot(1, 500)).toBe(0);
    expect(timers.nextDeadline()).toBe(500);
    timers.expire(500);
    expect(fired(1)).toBe(true);
    expect(woken).toEqual([1]);
    timers.expire(1000);
    expect(fired(1)).toBe(false);
  });

  it('fire a deadline in the past at once', () => {
    timers.setSingleShot(0, 5);
    timers.expire(1000);
    expect(fired(0)).toBe(true);
  });

  it('forget a single shot that was stopped', () => {
    timers.stopPeriodic(0);
    timers.setSingleShot(0, 5);
    expect(timers.stopSingleShot(0)).toBe(0);
    timers.expire(1000);
    expect(fired(0)).toBe(false);
  });

  it('set_timer_op cancels with 0 and fires implausible deadlines after 100 ms', () => {
    timers.stopPeriodic(0);
    timers.setTimer(0, 700, 10);
    expect(timers.nextDeadline()).toBe(700);
    timers.setTimer(0, 0, 10);
    expect(timers.nextDeadline()).toBe(Number.POSITIVE_INFINITY);
    timers.setTimer(0, -5, 10);
    expect(timers.nextDeadline()).toBe(100_000_010);
    timers.setTimer(0, 2 ** 52, 10);
    expect(timers.nextDeadline()).toBe(100_000_010);
  });

  it('end a poll whose time is up', () => {
    timers.stopPeriodic(0);
    events.poll(1, [events.bindIpi(1)], 300);
    expect(timers.nextDeadline()).toBe(300);
    timers.expire(299);
    expect(events.isPolling(1)).toBe(true);
    timers.expire(300);
    expect(events.isPolling(1)).toBe(false);
    expect(woken).toEqual([1]);
    expect(timers.nextDeadline()).toBe(Number.POSITIVE_INFINITY);
  });
});

/** Guest memory of one page at address 0x1000 that keeps what was written, in order. */
class OnePage implements GuestMemory {
  readonly bytes = new Uint8Array(4096);
  readonly writes: { at: number; bytes: Uint8Array }[] = [];
  mapped = true;
  translate(): HostAddress {
    return -1 as HostAddress;
  }
  read(): boolean {
    return false;
  }
  write(address: GuestVirtual, source: Uint8Array): boolean {
    const at = address - 0x1000;
    if (!this.mapped || at < 0 || at + source.length > 4096) return false;
    this.bytes.set(source, at);
    this.writes.push({ at, bytes: source.slice() });
    return true;
  }
  readWord(): number {
    return -1;
  }
  writeWord(): boolean {
    return false;
  }
  readLong(): boolean {
    return false;
  }
  writeLong(address: GuestVirtual, low: number, high: number): boolean {
    return this.write(address, new Uint8Array(new Uint32Array([low, high]).buffer));
  }
}

describe('runstates', () => {
  const area = 0x1100 as GuestVirtual;
  const long = (bytes: Uint8Array, at: number) => new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(at, true);

  it('account the time in each state', () => {
    const memory = new OnePage();
    const states = new Runstates(2, RUNSTATE_64);
    if (states.change(0, RunState.running, 10)) states.publish(0, memory);
    if (states.change(0, RunState.blocked, 110)) states.publish(0, memory);
    if (states.change(0, RunState.runnable, 150)) states.publish(0, memory);
    const bytes = states.info(0, 155);
    expect(bytes.length).toBe(48);
    expect(bytes[0]).toBe(RunState.runnable);
    expect(long(bytes, 8)).toBe(150n);
    expect([0, 1, 2, 3].map((state) => long(bytes, 16 + state * 8))).toEqual([100n, 15n, 40n, 0n]);
    expect(states.info(1, 155)[0]).toBe(RunState.offline);
    expect(memory.writes).toEqual([]);
  });

  it('have the packed layout of a 32-bit guest', () => {
    const states = new Runstates(1, RUNSTATE_32);
    if (states.change(0, RunState.running, 7)) states.publish(0, new OnePage());
    const bytes = states.info(0, 9);
    expect(bytes.length).toBe(44);
    expect(long(bytes, 4)).toBe(7n);
    expect(long(bytes, 12)).toBe(2n);
    expect(long(bytes, 20)).toBe(7n);
  });

  it('follow changes in the registered area until it is given up', () => {
    const memory = new OnePage();
    const states = new Runstates(1, RUNSTATE_64);
    expect(states.register(0, area, memory)).toBe(0);
    expect(memory.bytes[0x100]).toBe(RunState.runnable);
    if (states.change(0, RunState.running, 5)) states.publish(0, memory);
    expect(memory.bytes[0x100]).toBe(RunState.running);
    expect(long(memory.bytes, 0x108)).toBe(5n);
    expect(states.register(0, 0 as GuestVirtual, memory)).toBe(0);
    if (states.change(0, RunState.blocked, 6)) states.publish(0, memory);
    expect(memory.bytes[0x100]).toBe(RunState.running);
  });

  it('show the update flag only while they write', () => {
    const memory = new OnePage();
    const states = new Runstates(1, RUNSTATE_64);
    states.register(0, area, memory);
    states.updateFlag = true;
    memory.writes.length = 0;
    if (states.change(0, RunState.running, 2 ** 40)) states.publish(0, memory);
    const entries = memory.writes.map(({ at, bytes }) => long(bytes, 0x108 - at));
    expect(entries).toEqual([(1n << 63n) | (1n << 40n), (1n << 63n) | (1n << 40n), 1n << 40n]);
    expect(long(memory.bytes, 0x108)).toBe(1n << 40n);
  });

  it('refuse an area that is not mapped, and skip one that went away', () => {
    const memory = new OnePage();
    const states = new Runstates(1, RUNSTATE_64);
    expect(states.register(0, 0x5000 as GuestVirtual, memory)).toBe(-14);
    states.register(0, area, memory);
    memory.mapped = false;
    for (const flag of [false, true]) {
      states.updateFlag = flag;
      if (states.change(0, flag ? RunState.blocked : RunState.running, 1)) states.publish(0, memory);
    }
    expect(memory.bytes[0x100]).toBe(RunState.runnable);
  });
});
