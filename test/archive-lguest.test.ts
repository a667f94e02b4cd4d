import { describe, expect, it } from 'vitest';
import { decodeCbor, encodeCbor } from '../src/archive/cbor.ts';
import type { PlainRecord } from '../src/archive/plain.ts';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { MemoryStore } from '../src/devices/block/memory-store.ts';
import { changed, dataOf, withoutPlace } from './archive-coverage.ts';
import { LguestHost } from './lguest-domain.ts';

const PAGES = 64;

const createDomain = () => new LguestHost(PAGES).createDomain(new MemoryStore(new Uint8Array(512)));

/** What says which disk and which kernel it is, and is compared or looked up. */
const KEPT = new Set(['sectors', 'era', 'format', 'deviceFormat']);

/** Data that is no state of the guest: what it is built with, and what the host keeps for itself. */
const NO_STATE: ReadonlySet<string> = new Set([
  // Numbers and places given by the host.
  'guest.id',
  'guest.ramPages',
  'guest.#wallclock',
  'bus.#firstPage',
  'devices.rings',
  'pager.order',
  'vcpu.index',
  'processor.index',
  'processor.timeSource',
  'processor.state',
  'processor.word',
  'clock.#nanoseconds',
  // What a device is.
  'device.kind',
  'device.features',
  'device.queueSizes',
  // Scratch that nothing survives in.
  'hypercalls.#arguments',
  'vcpu.rootLow',
  'queues.#bytes',
  // Always the same while a domain is saved: it runs, and nothing is waited for.
  'guest.state',
  'vcpu.awaitsHost',
  'pager.#ended',
  'device.isBusy',
  'device.#life',
  'device.#pending',
  'device.#stale',
  // Figures.
  'guest.#wallSeconds',
]);

/** Of a disk the configuration says what it is; a console's is the size of the terminal. */
const FIXED_CONFIGURATIONS: ReadonlySet<string> = new Set(
  [1, 2].map((device) => `guest.bus.devices[${device}].device.configuration`),
);

describe('the state of a guest of lguest', () => {
  it('is given back as it was saved, changed in every part', async () => {
    const target = await createDomain();
    const wanted = changed(save(await createDomain()), KEPT);
    restore(target, decodeCbor(encodeCbor(wanted)) as PlainRecord);
    expect(save(target)).toEqual(wanted);
  });

  it('has every field that holds data', async () => {
    const before = dataOf(await createDomain());
    const target = await createDomain();
    restore(target, changed(save(target), KEPT));
    const after = dataOf(target);
    expect([...after.keys()]).toEqual([...before.keys()]);
    const forgotten = [...before]
      .filter(([path, data]) => after.get(path) === data && !FIXED_CONFIGURATIONS.has(path))
      .map(([path]) => withoutPlace(path));
    const unnamed = new Set(forgotten.filter((name) => !NO_STATE.has(name)));
    expect(unnamed, 'fields that `archive` forgets; those that are no state belong into NO_STATE').toEqual(new Set());
  });
});
