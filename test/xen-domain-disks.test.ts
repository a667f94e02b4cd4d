import { expect, it } from 'vitest';
import { MemoryStore } from '../src/devices/block/memory-store.ts';
import { Xenstore } from '../src/devices/xenstore.ts';
import { DomainDisks, type DomainDisksOptions } from '../src/interfaces/xen/domain-disks.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';

const FRONT = '/local/domain/1/device/vbd/51712';
const BACK = '/local/domain/0/backend/vbd/1/51712';

it('disks that met an absent page are busy until it has come, and go on then', () => {
  const memory = new HostMemory(1 << 20);
  const store = new Xenstore();
  let isThere = false;
  const options = {
    disks: [new MemoryStore(new Uint8Array(512))],
    domain: 1,
    store,
    pages: {
      memory,
      space: {
        pin: () => {
          if (!isThere) throw new PageAbsent(7, true);
        },
      },
      addressOf: () => 0,
      written: () => {},
    },
    grants: { begin: (reference: number, write: boolean) => ({ reference, mfn: 7, write }), end: () => {} },
    events: { registerService: () => {}, bindService: () => 0, raise: () => {} },
    memory: { memory: { isWaiting: false }, counters: {} },
    pageOf: () => 7,
    onWork: () => {},
  } as unknown as DomainDisksOptions;
  const disks = new DomainDisks(options);
  disks.introduce();
  const nodes = { 'ring-ref': '8', 'event-channel': '3', protocol: 'x86_64-abi', state: '3' };
  for (const [name, value] of Object.entries(nodes)) store.write(`${FRONT}/${name}`, value);

  expect(() => disks.poll()).toThrow(PageAbsent);
  expect(disks.isBusy).toBe(true);

  isThere = true;
  disks.resume();
  expect([disks.isBusy, disks.hasWork]).toEqual([false, true]);
  disks.poll();
  expect(store.read(`${BACK}/state`)).toBe('4');
});
