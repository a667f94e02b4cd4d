import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openNode, ring1Command } from '../bench/command.ts';
import { choosePeers, parsePeersOptions } from '../bench/peers/options.ts';
import { requireV86 } from '../bench/peers/systems.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
let directory = '';

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ring1-bench-'));
});

afterAll(() => rmSync(directory, { recursive: true }));

function executable(name: string, script: string): string {
  const path = join(directory, name);
  writeFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return path;
}

describe('the Node.js of a benchmark', () => {
  it('is the file that was given, with the flags and settings that ring1 asks for', () => {
    const node = openNode(
      executable('other-name', '[ "$1" = --version ] && echo v99.1.2 || echo "$MALLOC_ARENA_MAX $@"'),
      directory,
    );
    expect(node.version).toBe('v99.1.2');
    const { program, args } = ring1Command(node, ['run', '--check']);
    const { stdout } = spawnSync(program, args, { encoding: 'utf8' });
    expect(stdout).toMatch(/^3 --v8-pool-size=1 .*bin\/ring1 run --check\n$/);
  });

  it('says its version', () => {
    expect(openNode(process.execPath, directory).version).toBe(process.version);
  });

  it('is refused when it is none', () => {
    const missing = join(directory, 'missing');
    expect(() => openNode(missing, directory)).toThrow(`cannot execute the Node.js ${missing}: there is no such file`);
    const plain = join(directory, 'plain');
    writeFileSync(plain, '', { mode: 0o644 });
    expect(() => openNode(plain, directory)).toThrow('permission denied');
    expect(() => openNode(executable('python', 'echo Python 3.11.2'), directory)).toThrow('python is no Node.js');
  });
});

describe('bench/peers.ts', () => {
  it('measures everything without options', () => {
    const { items, runs, peers, ring1Options } = parsePeersOptions([]);
    expect({ runs, peers, ring1Options }).toEqual({ runs: 3, peers: undefined, ring1Options: [] });
    expect(items).toContain('fork');
  });

  it('leaves what stands behind -- to ring1', () => {
    const { ring1Options, items } = parsePeersOptions(['--only', 'fork', '--', '--only', 'x']);
    expect({ ring1Options, items }).toEqual({ ring1Options: ['--only', 'x'], items: ['fork'] });
  });

  it.each([
    [['--cold', '--only', 'fork'], '--cold has no items'],
    [['--only', 'fork,spoon'], '--only knows no "spoon"'],
    [['--runs', '0'], '--runs 0 is not a number'],
    [['--clock', 'sun'], '--clock knows no "sun"'],
    [['--flavour', 'sweet'], '--flavour knows no "sweet"'],
    [['--colds'], "Unknown option '--colds'"],
    [['fork'], "Unexpected argument 'fork'"],
  ])('refuses %j', (args, message) => {
    expect(() => parsePeersOptions(args)).toThrow(message);
  });

  it('takes peers by parts of their names, and refuses parts that are in none', () => {
    const peers = ['ring1', 'qemu microvm', 'qemu q35'].map((name) => ({
      name,
      command: () => ({ program: '', args: [] }),
    }));
    const chosen = (...words: string[]) => choosePeers(peers, words, ['it is missing']).map(({ name }) => name);
    expect(chosen('qemu')).toEqual(['qemu microvm', 'qemu q35']);
    expect(chosen('q35', 'ring1')).toEqual(['ring1', 'qemu q35']);
    expect(() => chosen('q35', 'v86')).toThrow(
      '--peers knows no "v86"; there are ring1, qemu microvm, qemu q35; it is missing',
    );
    expect(() => chosen('')).toThrow('--peers knows no ""');
  });

  it('looks whether v86 is where it is said to be', () => {
    const v86 = join(directory, 'v86');
    mkdirSync(join(v86, 'build'), { recursive: true });
    expect(() => requireV86(v86)).toThrow(`--v86 ${v86} is no directory of the package v86: no build/libv86.mjs`);
  });
});

it.each([
  ['peers.ts', ['--json', '/nowhere/figures'], 'cannot write the figures /nowhere/figures: there is no such file'],
  ['soak.ts', ['--minutes', '5'], '--minutes 5 is not a whole number above 5'],
  ['soak.ts', ['--minutes', 'ten'], '--minutes ten is not a whole number above 5'],
])('bench/%s ends with one line and status 1 after %j', (bench, args, message) => {
  const command = ['--import', 'tsx', `bench/${bench}`, ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { cwd: root, encoding: 'utf8' });
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
  expect(stderr.trimEnd().split('\n')).toEqual([expect.stringContaining(message)]);
});
