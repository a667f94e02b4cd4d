import { readFile } from 'node:fs/promises';
import { setTimeout as wait } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { initramfs, kernel } from '../../guests/recipes.ts';
import type { InterfaceName, PagingName } from '../../src/api.ts';
import type { Machine } from '../../src/domain/machine.ts';
import { createHost } from '../../src/index.ts';
import type { XenDomain } from '../../src/interfaces/xen/domain.ts';
import type { MachineSpace } from '../../src/memory/machine-space.ts';
import type { MicrovmDomain } from '../../src/microvm/domain.ts';
import { type Frame, PAGE_SIZE } from '../../src/x86/brand.ts';
import { hasPackageArchive } from '../debian-kernel.ts';

const MEMORY = 96 << 20;
const ROUNDS = 12;
const INSTRUCTIONS_PER_ROUND = 30_000_000;

/** Contents of a guest's memory as they were, to find out by looking at every byte what was written since. */
class Contents {
  readonly #space: MachineSpace;
  readonly #pages = new Map<number, Buffer>();

  constructor(space: MachineSpace) {
    this.#space = space;
  }

  /** Pages that are not as they were at the last call. Those that the host has brought in since cannot be compared. */
  changed(): number[] {
    const { frames, pool } = this.#space;
    const changed: number[] = [];
    for (const [page, frame] of frames.entries()) {
      if (frame < 0) continue;
      const start = pool.addressOf(frame as Frame);
      const bytes = Buffer.from(pool.memory.u8.buffer, start, PAGE_SIZE);
      const before = this.#pages.get(page);
      if (before?.equals(bytes)) continue;
      if (before) changed.push(page);
      this.#pages.set(page, Buffer.from(bytes));
    }
    return changed;
  }
}

function spaceOf(machine: Machine): MachineSpace {
  const domain = machine.domain as XenDomain | MicrovmDomain;
  return 'space' in domain ? domain.space : domain.paging.space;
}

function instructionsOf({ domain }: Machine): number {
  return (domain as XenDomain | MicrovmDomain).instructions;
}

describe.skipIf(!hasPackageArchive)('the log of written pages', () => {
  it.each<[InterfaceName, PagingName]>([
    ['xen', 'direct'],
    ['xen', 'shadow'],
    ['kvm', 'nested'],
    ['kvm', 'shadow'],
    ['native', 'native'],
  ])('lists every page that a kernel on %s with %s paging writes between two reads', async (name, paging) => {
    const host = await createHost({ memory: MEMORY });
    const machine = (await host.boot({
      kernel: await readFile(await kernel('cloud-amd64')),
      initrd: await initramfs(),
      commandLine: 'quiet console=ttyS0 console=hvc0',
      memory: MEMORY,
      vcpus: 1,
      deterministic: true,
      interface: name,
      paging,
    })) as Machine;
    const contents = new Contents(spaceOf(machine));
    machine.startDirtyLog();
    contents.changed();
    let changes = 0;
    for (let round = 0; round < ROUNDS; round++) {
      while (instructionsOf(machine) < (round + 1) * INSTRUCTIONS_PER_ROUND) await wait(1);
      const log = new Set(machine.readDirtyLog());
      const changed = contents.changed();
      expect(changed.filter((page) => !log.has(page))).toEqual([]);
      changes += changed.length;
    }
    machine.stopDirtyLog();
    expect(machine.readDirtyLog()).toEqual([]);
    await host.close();
    expect(changes).toBeGreaterThan(50);
  });
});
