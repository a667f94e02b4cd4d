import { beforeEach, describe, expect, it } from 'vitest';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { ProcessorGroup } from '../src/cpu/processor.ts';
import { EntropyDevice } from '../src/devices/virtio/entropy.ts';
import { HostClock } from '../src/domain/clock.ts';
import { createKvmInterface } from '../src/interfaces/kvm/kvm-interface.ts';
import { createNativeInterface } from '../src/interfaces/native/native-interface.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MicrovmDomain, type MicrovmOptions } from '../src/microvm/domain.ts';
import { Port } from '../src/microvm/layout.ts';
import { createLinearPaging } from '../src/paging/native/linear-paging.ts';

const PAGES = 64;
const MILLISECOND = 1e6;
const SECOND = 1e9;

/** Of the local APIC. */
const enum Apic {
  spuriousVector = 0xf0,
  localTimer = 0x320,
  initialCount = 0x380,
  divide = 0x3e0,
}

let milliseconds: number;

beforeEach(() => {
  milliseconds = 0;
});

/** A machine whose only processor waits for ever, while its timer ticks every 10 ms. */
function createDomain(absence: number, createInterface: MicrovmOptions['createInterface'], device?: EntropyDevice) {
  const memory = new HostMemory(24 << 20);
  const pool = new FramePool(memory, PAGES);
  const group = new ProcessorGroup(memory, pool, { tlbEntries: 64, tlbRoots: 1, codeBytes: 1 << 20 });
  const none = (): void => {};
  const clock = new HostClock(() => milliseconds, absence);
  restore(clock, save(new HostClock(() => milliseconds)));
  const domain = new MicrovmDomain({
    id: 1,
    vcpus: 1,
    group,
    paging: createLinearPaging(pool, group, PAGES),
    createInterface,
    clock,
    wallclock: { seconds: 0, nanoseconds: 0 },
    random: none,
    consoleSink: none,
    devices: device ? [device] : [],
    console: undefined,
    exactTurns: false,
    symbolize: () => undefined,
  });
  const { apic } = domain.running;
  apic.write(Apic.spuriousVector, 4, 0x1ff);
  apic.write(Apic.localTimer, 4, 0x2_0030);
  apic.write(Apic.divide, 4, 0xb);
  apic.write(Apic.initialCount, 4, 10 * MILLISECOND);
  return domain;
}

/** What a guest reads from its clocks: nanoseconds that the TSC says, and those that ACPI's timer and the date are off. */
function readClocks({ clock, ports }: MicrovmDomain): { tsc: number; powerTimer: number; date: number } {
  const tsc = clock.tsc();
  const powerTimer = (ports.load(Port.powerTimer, 4) * SECOND) / 3_579_545;
  const decimal = (register: number): number => {
    ports.store(Port.realTimeClock, 1, register);
    const value = ports.load(Port.realTimeClock + 1, 1);
    return (value >> 4) * 10 + (value & 15);
  };
  return { tsc, powerTimer: powerTimer - tsc, date: decimal(2) * 60 * SECOND + decimal(0) * SECOND - tsc };
}

describe('an idle machine that is behind its host', () => {
  it('goes from deadline to deadline without waiting, by all of its clocks', () => {
    const domain = createDomain(4 * SECOND, createNativeInterface);
    for (let tick = 1; tick <= 400; tick++) {
      expect(domain.catchUp()).toBe(true);
      const { tsc, powerTimer, date } = readClocks(domain);
      expect(tsc).toBe(tick * 10 * MILLISECOND);
      expect(domain.clock.behind).toBe(4 * SECOND - tsc);
      expect(Math.abs(powerTimer)).toBeLessThan(SECOND / 1e6);
      expect(date).toBeGreaterThan(-SECOND);
      expect(date).toBeLessThanOrEqual(0);
    }
  });

  it('sleeps again when it has caught up', () => {
    const domain = createDomain(25 * MILLISECOND, createNativeInterface);
    while (domain.catchUp());
    expect(domain.clock.now()).toBe(25 * MILLISECOND);
    expect(domain.millisecondsToDeadline()).toBe(5);
    milliseconds = 5;
    expect(domain.catchUp()).toBe(false);
    expect(domain.millisecondsToDeadline()).toBe(10);
  });

  it('does not hurry while a device is at work, whose answer takes its time', () => {
    const device = Object.assign(new EntropyDevice(() => {}), { isBusy: true });
    const domain = createDomain(SECOND, createNativeInterface, device);
    expect(domain.catchUp()).toBe(false);
    expect(domain.millisecondsToDeadline()).toBe(10);
    Object.assign(device, { isBusy: false });
    expect(domain.catchUp()).toBe(true);
    expect(domain.clock.now()).toBe(10 * MILLISECOND);
  });

  it('is there at once when its kernel can be told that it was stopped', () => {
    const domain = createDomain(100 * SECOND, createKvmInterface);
    domain.interface.noteAbsence?.();
    expect(domain.clock.behind).toBe(0);
    expect(domain.clock.now()).toBe(100 * SECOND);
  });
});
