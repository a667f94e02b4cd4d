import { afterEach, describe } from 'vitest';
import { itIsSavedWhole } from './archive-coverage.ts';
import { VmiMachine } from './vmi-machine.ts';

/** Data that is no state of the guest. */
const NO_STATE: ReadonlySet<string> = new Set([
  // What the interface is.
  'guest.hypercallNames',
  'guest.rom',
  'guest.#entryCode',
  // Of guests with direct paging alone.
  'guest.tables',
  'alarms.#kind',
  // Where the host has a window.
  'queues.#frame',
  'queues.#word',
]);

describe('the state of the VMI interface', () => {
  const machines: VmiMachine[] = [];
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.end();
  });

  itIsSavedWhole({
    create: async () => {
      const machine = await VmiMachine.create();
      machines.push(machine);
      return machine.vmi;
    },
    noState: NO_STATE,
  });
});
