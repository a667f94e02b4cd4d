import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole } from './console.ts';

const MIB = 1024 * 1024;

/** The tools of e2fsprogs, which Debian keeps where only root looks. */
const environment = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`, LC_ALL: 'C' };

function tool(name: string, ...args: readonly string[]): Buffer {
  return execFileSync(name, args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 64 * MIB });
}

function hasTool(name: string): boolean {
  try {
    tool(name, '-V');
    return true;
  } catch {
    return false;
  }
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Bytes that look like nothing, the same each time. */
function noise(length: number): Uint8Array {
  let state = 1;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state >>> 16;
  });
}

/** Debian's own drivers on files of the host. The tests follow one another on one console. */
describe.skipIf(!hasPackageArchive || !hasTool('debugfs'))('disks of a guest', () => {
  let directory: string;
  let guest: GuestConsole;
  const path = (name: string): string => join(directory, name);
  const fixed = noise(2 * MIB);

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'ring1-disks-'));
    writeFileSync(path('written.img'), new Uint8Array(32 * MIB));
    writeFileSync(path('fixed.img'), fixed);
    writeFileSync(path('lost.img'), fixed);
    const disks = [path('written.img'), `${path('fixed.img')},readonly`, `${path('lost.img')},snapshot`];
    guest = await GuestConsole.boot('--interface', 'kvm', ...disks.flatMap((disk) => ['--disk', disk]));
  }, 240_000);

  afterAll(async () => {
    await guest?.kill();
    rmSync(directory, { recursive: true });
  });

  it('are found in order, with their sizes and names', async () => {
    expect(await guest.command('cat /sys/block/vd?/size')).toBe('65536\n4096\n4096');
    expect(await guest.command('for disk in a b c; do echo $(cat /sys/block/vd$disk/serial); done')).toBe(
      'written.img\nfixed.img\nlost.img',
    );
    expect(await guest.command('cat /sys/block/vd?/ro')).toBe('0\n1\n0');
  });

  it('read as what is in their files', async () => {
    expect(await guest.command('sha256sum /dev/vdb')).toBe(`${sha256(fixed)}  /dev/vdb`);
  });

  it('cannot be written when they are read-only', async () => {
    expect(await guest.command('dd if=/dev/zero of=/dev/vdb bs=512 count=1; echo $?')).toMatch(
      /not permitted[\s\S]*1$/,
    );
  });

  it('take writes that are lost at the end when they are snapshots', async () => {
    await guest.command('dd if=/dev/zero of=/dev/vdc bs=4096 seek=3 count=200 conv=fsync,notrunc');
    const expected = fixed.slice().fill(0, 3 * 4096, 203 * 4096);
    await guest.command('echo 3 > /proc/sys/vm/drop_caches');
    expect(await guest.command('sha256sum /dev/vdc')).toBe(`${sha256(expected)}  /dev/vdc`);
  });

  it('carry a file system that the host finds in order, with the files that the guest wrote', async () => {
    await guest.command('mke2fs /dev/vda 2>/dev/null >/dev/null && mkdir /mnt && mount -t ext4 /dev/vda /mnt; echo $?');
    await guest.command('echo written by the guest > /mnt/note');
    await guest.command('dd if=/dev/urandom of=/mnt/large bs=64k count=128 2>/dev/null');
    const sum = (await guest.command('sha256sum < /mnt/large', 120)).slice(0, 64);
    await guest.command('for i in 1 2 3 4 5 6; do (cp /mnt/large /mnt/copy$i; rm /mnt/copy$i) & done; wait', 120);
    await guest.command('umount /mnt');
    expect(tool('e2fsck', '-fn', path('written.img')).toString()).toMatch(/13\/\d+ files/);
    expect(tool('debugfs', '-R', 'cat note', path('written.img')).toString()).toBe('written by the guest\n');
    expect(sha256(tool('debugfs', '-R', 'cat large', path('written.img')))).toBe(sum);
  });

  it('outlast a reboot, and snapshots do not outlast the guest', async () => {
    guest.send('reboot -f');
    await guest.waitForShell();
    await guest.command('mkdir /mnt; mount -t ext4 -o ro /dev/vda /mnt');
    expect(await guest.command('cat /mnt/note')).toBe('written by the guest');
    expect(await guest.command('sha256sum /dev/vdc')).not.toContain(sha256(fixed));
    guest.send('poweroff -f');
    expect(await guest.ended).toEqual({ status: 0, stderr: '' });
    expect(guest.complaints).toEqual([]);
    for (const name of ['fixed.img', 'lost.img']) expect(sha256(readFileSync(path(name)))).toBe(sha256(fixed));
  }, 240_000);

  it('give random numbers beside them', async () => {
    const run = 'cat /sys/class/misc/hw_random/rng_current; head -c 64 /dev/hwrng | sha256sum';
    const sums: string[] = [];
    for (let time = 0; time < 2; time++) {
      const other = await GuestConsole.start('--interface', 'native', '--append', `quiet ring1.run="${run}"`);
      const { status } = await other.ended;
      expect(status).toBe(0);
      expect(other.text).toContain('virtio_rng.0');
      sums.push(/[0-9a-f]{64}/.exec(other.text)?.[0] ?? '');
    }
    expect(sums[0]).toMatch(/^[0-9a-f]{64}$/);
    expect(sums[0]).not.toBe(sums[1]);
  }, 480_000);
});

describe.skipIf(!hasPackageArchive || !hasTool('debugfs'))('disks of a guest of Xen', () => {
  it('carry a file system that the host finds in order, read as their files, and keep their rights', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'ring1-disks-'));
    try {
      const [written, fixed] = ['written.img', 'fixed.img'].map((name) => join(directory, name)) as [string, string];
      writeFileSync(written, new Uint8Array(16 * MIB));
      writeFileSync(fixed, noise(2 * MIB));
      const commands = [
        'cat /sys/block/xvd?/size /sys/block/xvd?/ro',
        'sha256sum /dev/xvdb',
        'dd if=/dev/zero of=/dev/xvdb bs=512 count=1; echo refused $?',
        'mke2fs /dev/xvda >/dev/null 2>&1; mkdir /mnt; mount -t ext4 /dev/xvda /mnt; echo written by the guest >/mnt/note',
        'dd if=/dev/urandom of=/mnt/large bs=64k count=64 2>/dev/null; sha256sum /mnt/large; umount /mnt',
      ];
      const guest = await GuestConsole.start(
        ...['--interface', 'xen', '--disk', written, '--disk', `${fixed},readonly`],
        ...['--append', `quiet ring1.run="${commands.join('; ')}"`],
      );
      expect(await guest.ended).toEqual({ status: 0, stderr: '' });
      expect(guest.text).toContain('32768\n4096\n0\n1\n');
      expect(guest.text).toContain(`${sha256(noise(2 * MIB))}  /dev/xvdb`);
      expect(guest.text).toContain('refused 1');
      expect(tool('e2fsck', '-fn', written).toString()).toMatch(/13\/\d+ files/);
      expect(tool('debugfs', '-R', 'cat note', written).toString()).toBe('written by the guest\n');
      const sum = /([0-9a-f]{64}) {2}\/mnt\/large/.exec(guest.text)?.[1];
      expect(sha256(tool('debugfs', '-R', 'cat large', written))).toBe(sum);
    } finally {
      rmSync(directory, { recursive: true });
    }
  }, 240_000);
});

describe.skipIf(!hasPackageArchive)('with virtual time, disks', () => {
  it.each([
    ['native', 'vda'],
    ['xen', 'xvda'],
  ])(
    'of guests of %s make no difference by how long they take',
    async (name, device) => {
      const directory = mkdtempSync(join(tmpdir(), 'ring1-disks-'));
      const texts: string[] = [];
      try {
        for (let time = 0; time < 2; time++) {
          const disk = join(directory, 'disk.img');
          writeFileSync(disk, noise(8 * MIB));
          const run = `for i in 1 2 3 4; do dd if=/dev/${device} bs=64k skip=$i count=20 | sha256sum & done; wait; dd if=/dev/urandom of=/dev/${device} bs=4k count=99 conv=fsync; cat /proc/uptime /proc/diskstats`;
          const options = ['--interface', name, '--deterministic', '--disk', disk];
          const guest = await GuestConsole.start(...options, '--append', `ring1.run="${run}"`);
          expect((await guest.ended).status).toBe(0);
          texts.push(`${guest.text}${sha256(readFileSync(disk))}`);
        }
      } finally {
        rmSync(directory, { recursive: true });
      }
      expect(texts[0]).toContain(` ${device} `);
      expect(texts[1]).toBe(texts[0]);
    },
    480_000,
  );
});
