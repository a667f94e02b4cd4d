import { describe, expect, it } from 'vitest';
import type { PlainRecord } from '../src/archive/plain.ts';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { ProcessorGroup } from '../src/cpu/processor.ts';
import { State } from '../src/cpu/state.ts';
import { MemoryStore } from '../src/devices/block/memory-store.ts';
import { EthernetSwitch } from '../src/devices/network/switch.ts';
import { VirtualClock } from '../src/domain/clock.ts';
import { createKvmInterface } from '../src/interfaces/kvm/kvm-interface.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MicrovmDomain } from '../src/microvm/domain.ts';
import { createGuestDevices } from '../src/microvm/guest-devices.ts';
import { createLinearPaging } from '../src/paging/native/linear-paging.ts';
import { itIsSavedWhole } from './archive-coverage.ts';

const PAGES = 64;

function createDomain(): MicrovmDomain {
  const memory = new HostMemory(24 << 20);
  const pool = new FramePool(memory, PAGES);
  const group = new ProcessorGroup(memory, pool, { tlbEntries: 64, tlbRoots: 1, codeBytes: 1 << 20 });
  const none = (): void => {};
  const options = {
    commandLine: 'console=hvc0',
    disks: [new MemoryStore(new Uint8Array(512))],
    adapters: [{ network: new EthernetSwitch() }],
  };
  return new MicrovmDomain({
    id: 1,
    vcpus: 2,
    group,
    paging: createLinearPaging(pool, group, PAGES),
    createInterface: createKvmInterface,
    clock: new VirtualClock(() => 0),
    wallclock: { seconds: 0, nanoseconds: 0 },
    random: none,
    consoleSink: none,
    ...createGuestDevices(options, 1, none, none),
    exactTurns: true,
    profiler: undefined,
    symbolize: () => undefined,
  });
}

/** What says which disk it is, and is compared. */
const KEPT = new Set(['sectors']);

/** Data that is no state of the guest: what it is built with, and what the host keeps for itself. */
const NO_STATE: ReadonlySet<string> = new Set([
  // Numbers and places given by the host.
  'guest.id',
  'guest.#observer',
  'guest.wallclock',
  'interface.hypercallNames',
  'vcpus.index',
  'processor.index',
  'processor.timeSource',
  'processor.faultAddress',
  'system.#callsInCode',
  'processor.state',
  'processor.word',
  'apic.identifier',
  'area.#bytes',
  'area.#alignment',
  'time.#bytes',
  'time.#alignment',
  'wallclock.#bytes',
  'wallclock.#alignment',
  'clock.#nanoseconds',
  // What a device is.
  'device.kind',
  'device.features',
  'device.queueSizes',
  'transports.#features',
  // Scratch that nothing survives in.
  'vcpus.cr3Low',
  'queues.#bytes',
  // Always the same while a domain is saved: it runs, and nothing is waited for.
  'guest.state',
  'vcpus.awaitsHost',
  'device.isBusy',
  'device.#life',
  'device.#pending',
  'device.#stale',
  // Figures, and what is told of an end.
  'guest.#crashed',
  'guest.#wallSeconds',
  'guest.#services',
]);

/** Of a disk and an adapter the configuration says what they are; a console's is the size of the terminal. */
const FIXED_CONFIGURATIONS: ReadonlySet<string> = new Set(
  [0, 1, 3].map((device) => `guest.virtio.transports[${device}].device.configuration`),
);

describe('the state of a microVM', () => {
  itIsSavedWhole({ create: createDomain, kept: KEPT, noState: NO_STATE, fixed: FIXED_CONFIGURATIONS });

  it('has all of a processor that a run does not make anew', () => {
    const [source, target] = [createDomain(), createDomain()].map(({ running, group }) => {
      const { processor } = running;
      return { processor, block: group.parts.memory.u8.subarray(processor.state, processor.state + State.size) };
    }) as [Block, Block];
    source.block.forEach((_, index) => {
      source.block[index] = index * 7;
    });
    restore(target.processor, save(source.processor));
    const ofTheHost = (index: number): boolean =>
      (index >= State.tlb && index < State.stepping) ||
      (index >= State.budget && index < State.fpuTrap) ||
      (index >= State.codeMode && index < State.xmm) ||
      index >= State.missAddress;
    const different = [...source.block.keys()].filter((index) => source.block[index] !== target.block[index]);
    expect(different.filter((index) => !ofTheHost(index))).toEqual([]);
  });

  it('does not fit a machine of another kind', () => {
    const { vcpus, ...others } = save(createDomain());
    const oneLess = { ...others, vcpus: (vcpus as PlainRecord[]).slice(1) };
    expect(() => restore(createDomain(), oneLess)).toThrow('the guest.vcpus are 1 and not 2');
    expect(() => restore(createDomain(), others)).toThrow('the guest.vcpus is missing');
    expect(() => restore(createDomain(), { ...save(createDomain()), more: 1 })).toThrow('the guest.more is unknown');
  });
});

interface Block {
  readonly processor: MicrovmDomain['running']['processor'];
  readonly block: Uint8Array;
}
