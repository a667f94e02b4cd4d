import { describe } from 'vitest';
import { MemoryStore } from '../src/devices/block/memory-store.ts';
import { itIsSavedWhole } from './archive-coverage.ts';
import { LguestHost } from './lguest-domain.ts';

const PAGES = 64;

const createDomain = () => new LguestHost(PAGES).createDomain(new MemoryStore(new Uint8Array(512)));

/** What says which disk and which kernel it is, and is compared or looked up. */
const KEPT = new Set(['sectors', 'era', 'format', 'deviceFormat']);

/** Data that is no state of the guest: what it is built with, and what the host keeps for itself. */
const NO_STATE: ReadonlySet<string> = new Set([
  // Numbers and places given by the host.
  'guest.id',
  'guest.#observer',
  'guest.ramPages',
  'guest.#wallclock',
  'bus.#firstPage',
  'devices.rings',
  'pager.order',
  'vcpu.index',
  'processor.index',
  'processor.timeSource',
  'processor.faultAddress',
  'system.#callsInCode',
  'system.#inNonMaskable',
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
  itIsSavedWhole({ create: createDomain, kept: KEPT, noState: NO_STATE, fixed: FIXED_CONFIGURATIONS });
});
