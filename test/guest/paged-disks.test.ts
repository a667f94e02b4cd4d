import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { initramfs, kernelModules } from '../../guests/recipes.ts';
import { createHost } from '../../src/index.ts';
import { FileStore } from '../../src/node/file-store.ts';
import { createSwapFile } from '../../src/node/swap-file.ts';
import { debianKernel, hasPackageArchive } from '../debian-kernel.ts';
import { outputOf } from './output.ts';

const MIB = 1 << 20;

/** More data than the host has room for: in the guest's memory, on its way to a disk, and back. */
const COMMANDS = [
  'dd if=/dev/urandom of=/tmp/data bs=64k count=480 2>/dev/null',
  'sha256sum < /tmp/data',
  'dd if=/tmp/data of=/dev/vda bs=256k conv=fsync 2>/dev/null',
  'echo 3 > /proc/sys/vm/drop_caches',
  'dd if=/dev/vda bs=64k 2>/dev/null | sha256sum',
  'sha256sum < /tmp/data',
].join('; ');

interface Figures {
  readonly dma: { readonly taken: number };
}

describe.skipIf(!hasPackageArchive)('a guest with more memory than its host', () => {
  it('has its disk read and written through entries that the host takes away meanwhile', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'ring1-paged-'));
    const path = join(directory, 'disk.img');
    writeFileSync(path, new Uint8Array(30 * MIB));
    const disk = await FileStore.open(path, { isReadOnly: false, report: () => {} });
    const swap = await createSwapFile(join(directory, 'swap'), 512 * MIB);
    const host = await createHost({ memory: 60 * MIB, swap });
    try {
      const machine = await host.boot({
        kernel: await debianKernel('cloud-amd64'),
        initrd: await initramfs({ modules: await kernelModules('cloud-amd64') }),
        commandLine: `console=ttyS0 quiet ring1.run="${COMMANDS}"`,
        memory: 128 * MIB,
        vcpus: 1,
        interface: 'kvm',
        disks: [disk],
      });
      const text = await outputOf(machine);
      expect(await machine.done).toEqual({ kind: 'poweroff' });
      const sums = text.match(/^[0-9a-f]{64}(?= )/gm);
      expect(sums).toHaveLength(3);
      expect(new Set(sums).size).toBe(1);
      expect((machine.statistics() as Figures).dma.taken).toBeGreaterThan(0);
      const { swap: figures } = host.statistics() as { swap: { swappedOut: number; swappedIn: number } };
      expect(Math.min(figures.swappedOut, figures.swappedIn)).toBeGreaterThan(0);
    } finally {
      await host.close();
      await disk.close();
      rmSync(directory, { recursive: true });
    }
  }, 480_000);
});
