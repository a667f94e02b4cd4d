import { beforeEach, describe, expect, it } from 'vitest';
import { ProcessorGroup } from '../src/cpu/processor.ts';
import { ApicBus } from '../src/devices/pc/apic-bus.ts';
import { LocalApic } from '../src/devices/pc/local-apic.ts';
import { Preempted, StealTime } from '../src/interfaces/kvm/abi.ts';
import { EndOfInterruptArea } from '../src/interfaces/kvm/end-of-interrupt.ts';
import { type AreaOwner, GuestArea } from '../src/interfaces/kvm/guest-area.ts';
import { StealTimeArea } from '../src/interfaces/kvm/steal-time.ts';
import { ABSENT_FRAME, FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MachineSpace } from '../src/memory/machine-space.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import { NestedPaging } from '../src/paging/nested/nested-paging.ts';
import type { GuestPhysical, Mfn } from '../src/x86/brand.ts';

const PAGES = 4;
const AREA = 0x2040;

let owner: AreaOwner;
let memory: HostMemory;

beforeEach(() => {
  memory = new HostMemory(48 << 20);
  const pool = new FramePool(memory, 16);
  const group = new ProcessorGroup(memory, pool);
  const space = new MachineSpace(pool, PAGES);
  for (let number = 0; number < PAGES; number++) space.attach(number as Mfn, pool.allocate());
  owner = { paging: new NestedPaging(space, group), group };
});

/** Host address of guest-physical memory. */
const at = (physical: number): number => owner.paging.addressOf(physical as GuestPhysical);

describe('an area that a guest shares with its host', () => {
  it.each([
    ['is not aligned', 0x2020],
    ['leaves its page', 0x2fe0],
    ['begins behind RAM', PAGES * 0x1000],
  ])('is refused where it %s', (_what, physical) => {
    expect(new GuestArea(owner, 64, 64).name(physical)).toBe(false);
  });

  it('stands where the guest says, until it is forgotten', () => {
    const area = new GuestArea(owner, 64, 64);
    expect(area.name(AREA)).toBe(true);
    expect(area.address).toBe(at(AREA));
    area.forget();
    expect([area.isNamed, area.address]).toEqual([false, -1]);
  });

  it('asks for its page', () => {
    owner.paging.space.frames[2] = ABSENT_FRAME;
    const area = new GuestArea(owner, 64, 64);
    area.name(AREA);
    expect(() => area.address).toThrow(PageAbsent);
  });
});

describe('steal time', () => {
  const read = (field: number): number => memory.view.getUint32(at(AREA) + field, true);
  let steal: StealTimeArea;

  beforeEach(() => {
    steal = new StealTimeArea(owner);
    steal.area.name(AREA);
  });

  it('is what a processor waited although it had work', () => {
    steal.suspend(1000, true);
    steal.resume(1500);
    steal.suspend(2000, false);
    steal.resume(9000);
    steal.suspend(9500, true);
    steal.resume(9600);
    expect(read(StealTime.nanoseconds)).toBe(600);
  });

  it('has an even version whenever the guest can look', () => {
    for (const now of [1, 2, 3]) {
      steal.resume(now);
      expect(read(StealTime.version) % 2).toBe(0);
    }
    expect(read(StealTime.version)).toBe(6);
  });

  it('tells others that the processor does not run', () => {
    steal.suspend(1, false);
    expect(memory.u8[at(AREA) + StealTime.preempted]).toBe(Preempted.notRunning);
    steal.resume(2);
    expect(memory.u8[at(AREA) + StealTime.preempted]).toBe(0);
  });

  it('passes on a flush that was asked for meanwhile', () => {
    steal.suspend(1, false);
    expect(steal.resume(2)).toBe(false);
    steal.suspend(3, false);
    memory.u8[at(AREA) + StealTime.preempted] = Preempted.notRunning | Preempted.flushTlb;
    expect(steal.resume(4)).toBe(true);
  });
});

describe('the end of an interrupt through memory', () => {
  let apic: LocalApic;
  let area: EndOfInterruptArea;
  let bus: ApicBus;

  beforeEach(() => {
    bus = new ApicBus();
    const processor = { nonMaskable: () => {}, reset: () => {}, startUp: () => {} };
    apic = new LocalApic(0, bus, processor, () => 0);
    apic.write(0xf0, 4, 0x1ff);
    area = new EndOfInterruptArea(owner);
    area.area.name(AREA);
  });

  function raise(vector: number, level = false): void {
    bus.send({ vector, mode: 0, destination: 0, logical: false, level });
  }

  function take(vector: number): void {
    apic.acknowledge(vector);
    area.acknowledged(apic, vector);
  }

  const bit = (): number => (memory.u32[at(AREA) >>> 2] as number) & 1;
  const inService = (): number => apic.read(0x120);

  it('is offered, and carried out when the guest has said it', () => {
    raise(0x41);
    take(0x41);
    expect([bit(), inService()]).toEqual([1, 2]);
    memory.u32[at(AREA) >>> 2] = 0;
    area.refresh(apic);
    expect(inService()).toBe(0);
  });

  it('waits for the guest', () => {
    raise(0x41);
    take(0x41);
    area.refresh(apic);
    expect([bit(), inService()]).toEqual([1, 2]);
  });

  it('is not offered when another interrupt waits for it', () => {
    raise(0x41);
    raise(0x31);
    take(0x41);
    expect(bit()).toBe(0);
  });

  it('is taken back when another interrupt comes to wait for it', () => {
    raise(0x41);
    take(0x41);
    raise(0x31);
    area.refresh(apic);
    expect([bit(), inService()]).toEqual([0, 2]);
  });

  it('is not offered when a line waits for it', () => {
    raise(0x41, true);
    take(0x41);
    expect(bit()).toBe(0);
  });
});
