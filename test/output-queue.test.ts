import { readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { imagePath } from '../guests/reference/build.ts';
import { OutputQueue } from '../src/domain/output-queue.ts';
import { createHost } from '../src/index.ts';
import type { StatisticsReport } from '../src/inspect/statistics.ts';
import { type Guest, HostileHost, type Variant } from './hostile/host.ts';

const ROOM = 256 << 10;
const MEMORY = 32 << 20;

describe('output that nobody reads', () => {
  it('fills its queue, and there is room again when it is read', async () => {
    const queue = new OutputQueue();
    let rooms = 0;
    queue.onRoom = () => void rooms++;
    queue.push(new Uint8Array(ROOM - 1));
    expect(queue.isFull).toBe(false);
    queue.push(new Uint8Array(1));
    expect(queue.isFull).toBe(true);
    await queue.stream.getReader().read();
    expect([queue.isFull, rooms]).toEqual([false, 1]);
  });

  it('fills nothing when its reader wants no more', async () => {
    const queue = new OutputQueue();
    let rooms = 0;
    queue.onRoom = () => void rooms++;
    queue.push(new Uint8Array(2 * ROOM));
    await queue.stream.cancel();
    queue.push(new Uint8Array(2 * ROOM));
    expect([queue.isFull, rooms]).toEqual([false, 1]);
  });
});

/** One for each kind of domain and console: Xen's ring, the serial port, lguest's calls. */
const GUESTS: readonly Variant[] = [
  { interface: 'xen', paging: 'direct', image: 'x86-64', vcpus: 2 },
  { interface: 'kvm', paging: 'nested', image: 'x86-64', vcpus: 2 },
  { interface: 'lguest', paging: 'shadow', image: 'i386', vcpus: 1 },
];

describe.each(GUESTS)('a guest of $interface', ({ image, vcpus, ...cell }) => {
  it('that prints for ever stands still until somebody reads', async () => {
    const host = await createHost({ memory: MEMORY });
    const machine = await host.boot({
      kernel: readFileSync(imagePath(image)),
      ...cell,
      memory: MEMORY,
      vcpus,
      commandLine: 'chatter',
      deterministic: true,
    });
    const instructions = (): number => (machine.statistics() as StatisticsReport).instructions;
    const untilStill = async (): Promise<number> => {
      for (let before = -1; ; ) {
        // Each time everything that the event loop has to do is done once.
        for (let turn = 0; turn < 20; turn++) await setImmediate();
        if (instructions() === before) return before;
        before = instructions();
      }
    };
    const first = await untilStill();
    const reader = machine.console.output.getReader();
    let bytes = 0;
    while (bytes < ROOM / 2) bytes += (await reader.read()).value?.length ?? 0;
    expect(await untilStill()).toBeGreaterThan(first);
    machine.stop();
    let left = 0;
    for (let next = await reader.read(); !next.done; next = await reader.read()) left += next.value.length;
    // Something of what was printed last is more than there was room for.
    expect(left).toBeGreaterThanOrEqual(ROOM);
    expect(left).toBeLessThan(2 * ROOM);
    await host.close();
  });

  it('does not notice how fast somebody reads, with virtual time', async () => {
    const host = new HostileHost();
    const end = async (guest: Guest): Promise<readonly unknown[]> => {
      const { domain } = guest;
      while (domain.state.kind === 'running') {
        domain.catchUp();
        while (domain.idle && !domain.isSettled) await setImmediate();
        domain.turn();
      }
      const result = [domain.state, domain.instructions, domain.clock.now(), guest.printed()];
      await domain.destroy();
      return result;
    };
    let asked = 0;
    const now = await end(await host.boot({ image, vcpus, ...cell }, ''));
    // Full at every seventh look, whenever that is.
    const held = await end(await host.boot({ image, vcpus, ...cell }, '', undefined, () => ++asked % 7 === 0));
    expect(held.slice(1)).toEqual(now.slice(1));
    expect(held[0]).toEqual({ kind: 'poweroff' });
  });
});
