import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { decodeCbor, encodeCbor } from '../src/archive/cbor.ts';
import type { PlainRecord } from '../src/archive/plain.ts';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { changed, dataOf, withoutPlace } from './archive-coverage.ts';
import { VmiMachine } from './vmi-machine.ts';

const KEPT: ReadonlySet<string> = new Set();

/** Data that is no state of the guest. */
const NO_STATE: ReadonlySet<string> = new Set([
  // What the interface is.
  'guest.hypercallNames',
  'guest.rom',
  'alarms.#kind',
  // Where the host has a window.
  'queues.#frame',
  'queues.#word',
]);

describe('the state of the VMI interface', () => {
  let source: VmiMachine;
  let target: VmiMachine;
  beforeEach(async () => {
    source = await VmiMachine.create();
    target = await VmiMachine.create();
  });
  afterEach(async () => {
    await source.end();
    await target.end();
  });

  it('is given back as it was saved, changed in every part', () => {
    const wanted = changed(save(source.vmi), KEPT);
    restore(target.vmi, decodeCbor(encodeCbor(wanted)) as PlainRecord);
    expect(save(target.vmi)).toEqual(wanted);
  });

  it('has every field that holds data', () => {
    const before = dataOf(source.vmi);
    restore(target.vmi, changed(save(target.vmi), KEPT));
    const after = dataOf(target.vmi);
    const forgotten = [...before]
      .filter(([path, data]) => after.get(path) === data)
      .map(([path]) => withoutPlace(path));
    expect(new Set(forgotten.filter((name) => !NO_STATE.has(name)))).toEqual(new Set());
    const names = new Set([...before.keys()].map(withoutPlace));
    expect([...NO_STATE].filter((name) => !names.has(name))).toEqual([]);
  });
});
