import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import packageJson from '../package.json' with { type: 'json' };
import { buildBzImage, buildElf, MACHINE_AARCH64 } from './boot-images.ts';

/** The command as a user has it: bin/ring1 and the bundle, which `npm test` builds first. */
const command = fileURLToPath(new URL('../bin/ring1', import.meta.url));
let directory = '';

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ring1-cli-'));
});

afterAll(() => rmSync(directory, { recursive: true }));

function ring1(args: readonly string[], environment: NodeJS.ProcessEnv = {}) {
  const started = performance.now();
  const { status, stdout, stderr } = spawnSync(command, args, {
    encoding: 'utf8',
    env: { ...process.env, ...environment },
    input: '',
  });
  return { status, stdout, stderr, milliseconds: performance.now() - started };
}

function file(name: string, content: Uint8Array): string {
  const path = join(directory, name);
  writeFileSync(path, content);
  return path;
}

const MIB = 1024 * 1024;
const bzImage = buildBzImage(gzipSync(buildElf()));

/** Times that a command may be too late because the machine had other work. */
const BUSY = 3;

describe('ring1', () => {
  it('explains itself on stdout', () => {
    expect(ring1(['--help'])).toMatchObject({ status: 0, stderr: '' });
    expect(ring1(['help', 'run']).stdout).toContain('--deterministic');
    expect(ring1(['profile', '--help']).stdout).toContain('--top');
    expect(ring1(['run', '--help']).stdout).toBe(ring1(['help', 'run']).stdout);
  });

  it('says its version', () => {
    expect(ring1(['--version'])).toMatchObject({ status: 0, stdout: `ring1 ${packageJson.version}\n` });
  });

  const initrd = (): string[] => ['--initrd', file('initrd', new Uint8Array(100))];
  it.each<[string, () => string[], string]>([
    ['no command', () => [], 'no command given; try "ring1 run"'],
    ['an unknown command', () => ['walk'], '"walk" is not a command'],
    ['help for an unknown command', () => ['help', 'walk'], '"walk" is not a command'],
    ['an unknown option', () => ['run', '--fast'], "unknown option '--fast'"],
    ['a missing kernel', () => ['run', '--kernel', '/no/vmlinuz', ...initrd()], 'cannot read the kernel /no/vmlinuz'],
    [
      'a directory as initrd',
      () => ['run', '--kernel', file('k', bzImage), '--initrd', directory],
      'it is a directory',
    ],
    [
      'a device as kernel',
      () => ['run', '--kernel', '/dev/zero', ...initrd()],
      'cannot read the kernel /dev/zero: it is a device',
    ],
    [
      'an empty initrd',
      () => ['run', '--kernel', file('k', bzImage), '--initrd', file('none', new Uint8Array())],
      'none is empty',
    ],
    [
      'a directory in place of statistics',
      () => ['run', '--kernel', file('k', bzImage), ...initrd(), '--stats', directory],
      'it is a directory',
    ],
    ['an empty file', () => ['run', '--kernel', file('empty', new Uint8Array()), ...initrd()], 'empty is empty'],
    [
      'a truncated bzImage',
      () => ['run', '--kernel', file('cut', bzImage.subarray(0, 1600)), ...initrd()],
      'the bzImage is cut short: it has 1600 bytes',
    ],
    [
      'an ELF file of another machine',
      () => ['run', '--kernel', file('arm', buildElf({ machine: MACHINE_AARCH64 })), ...initrd()],
      'the ELF file is for AArch64 (machine 183)',
    ],
    [
      'an initrd larger than memory',
      () => {
        const large = file('large', new Uint8Array(65 * MIB));
        return ['run', '--kernel', file('k', bzImage), '--initrd', large, '--memory', '64M'];
      },
      '64M of memory are not enough: the kernel needs 1M from 1M on, the initrd has 65M',
    ],
    [
      '8 MB of memory',
      () => ['run', '--kernel', file('k', bzImage), ...initrd(), '--memory', '8M'],
      '8M of memory are not enough',
    ],
    [
      'a kernel without Xen notes',
      () => ['run', '--kernel', file('plain', buildElf({ notes: [] })), ...initrd()],
      'the kernel has no Xen notes',
    ],
    [
      'a place where statistics cannot go',
      () => ['run', '--kernel', file('k', bzImage), ...initrd(), '--stats', '/no/stats.json'],
      'cannot write the statistics /no/stats.json',
    ],
    [
      'a place where a trace cannot go',
      () => ['run', '--kernel', file('k', bzImage), ...initrd(), '--trace', '/no/trace'],
      'cannot write the trace /no/trace',
    ],
  ])('refuses %s with one clear line and status 1 within two seconds', { retry: BUSY }, (_name, args, message) => {
    const { status, stdout, stderr, milliseconds } = ring1(args());
    expect(stderr).toContain(message);
    expect(stderr).toMatch(/^ring1: [^\n]+\n$/);
    expect(stdout).toBe('');
    expect(status).toBe(1);
    expect(milliseconds).toBeLessThan(2000);
  });

  it.each([
    ['xen', 'direct', 'Xen'],
    ['vmi', 'direct', 'VMI'],
  ])(
    'boots a reference guest for %s/%s where there is no package archive, and says how to give files',
    (name, paging, found) => {
      const path = join(directory, `bin for ${name}`);
      mkdirSync(path);
      symlinkSync(process.execPath, join(path, 'node'));
      const environment = { PATH: path, RING1_CACHE: join(directory, 'cache') };
      const { status, stdout, stderr } = ring1(
        ['run', '--interface', name, '--paging', paging, '--memory', '32M'],
        environment,
      );
      expect(stderr).toBe(
        'ring1: cannot get the Debian package linux-image-cloud-amd64: apt-get is not installed; give files instead: --kernel FILE --initrd FILE; this is the reference guest, which ends by itself\n',
      );
      expect(stdout).toMatch(/ring1 reference guest.*\ndone\n/s);
      expect(stdout).toContain(`\ninterface ${found}\n`);
      expect(status).toBe(0);
    },
  );

  it('boots a reference guest for lguest, which no kernel of the package archive speaks to', () => {
    const { status, stdout, stderr } = ring1(['run', '--interface', 'lguest', '--memory', '32M']);
    expect(stderr).toBe(
      'ring1: no kernel of the archive speaks to lguest; this is the reference guest, which ends by itself\n',
    );
    expect(stdout).toMatch(/ring1 reference guest.*\ninterface lguest\n.*\ndone\n/s);
    expect(status).toBe(0);
  });
});
