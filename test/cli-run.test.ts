import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

/** `ring1 run` around a host that boots nothing (cli-fake-host.ts), as a process of its own. */

const root = fileURLToPath(new URL('..', import.meta.url));
let directory = '';
let files: string[] = [];

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ring1-cli-'));
  writeFileSync(join(directory, 'kernel'), 'k');
  writeFileSync(join(directory, 'initrd'), 'i');
  files = ['--kernel', join(directory, 'kernel'), '--initrd', join(directory, 'initrd')];
});

afterAll(() => rmSync(directory, { recursive: true }));

class Run {
  stdout = '';
  stderr = '';
  readonly process: ChildProcess;
  readonly ended: Promise<number | string | null>;

  constructor(command: string, args: readonly string[]) {
    this.process = spawn(command, args, { cwd: root });
    this.process.stdout?.on('data', (chunk: Buffer) => {
      this.stdout += chunk.toString();
    });
    this.process.stderr?.on('data', (chunk: Buffer) => {
      this.stderr += chunk.toString();
    });
    this.process.stdin?.on('error', () => {});
    this.ended = once(this.process, 'close').then(([status, signal]) => (status ?? signal) as number | string);
  }

  /** Waits until stdout has the text. */
  sees(text: string): Promise<void> {
    return this.#until(text, () => this.stdout.includes(text));
  }

  /** Waits until stderr has the text that often. */
  complains(text: string, times: number): Promise<void> {
    return this.#until(text, () => this.stderr.split(text).length > times);
  }

  async #until(text: string, isThere: () => boolean): Promise<void> {
    for (let attempt = 0; attempt < 500; attempt++) {
      if (isThere()) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`no "${text}" in ${JSON.stringify(this.stdout)} and ${JSON.stringify(this.stderr)}`);
  }
}

const fakeHost = ['--import', 'tsx', 'test/cli-fake-host.ts'];

function start(guest: string, ...options: readonly string[]): Run {
  return new Run(process.execPath, [...fakeHost, guest, ...files, ...options]);
}

/** In a terminal of its own, by script(1), which every Debian has. */
function startInTerminal(guest: string, after: string, ...options: readonly string[]): Run {
  const command = [process.execPath, ...fakeHost, guest, ...files, ...options].join(' ');
  return new Run('script', ['-qefc', `${command}; status=$?; ${after}; exit $status`, '/dev/null']);
}

describe('ring1 run', () => {
  it('prints what the guest prints, and ends with 0 when it powers off', async () => {
    const run = start('poweroff', '--append', 'quiet');
    expect(await run.ended).toBe(0);
    expect(run.stdout).toBe('command line: console=hvc0 quiet\n');
    expect(run.stderr).toBe('fake: closed\n');
  });

  it('leaves the console to the guest where the command line names one', async () => {
    const run = start('poweroff', '--append', 'a=b console=tty0');
    await run.ended;
    expect(run.stdout).toBe('command line: a=b console=tty0\n');
  });

  it('ends with 2 when the guest crashes, with reason and report', async () => {
    const run = start('crash');
    expect(await run.ended).toBe(2);
    expect(run.stderr).toContain('ring1: the guest crashed: it fell over\nrip 1234\n  at schedule+5\n');
    expect(run.stdout).toBe('');
  });

  it('boots again when the guest reboots', async () => {
    const run = start('reboot');
    expect(await run.ended).toBe(0);
    expect(run.stdout).toBe('boot 1\nboot 2\nboot 3\n');
  });

  it('opens disks for the guest, in order', async () => {
    const disk = join(directory, 'disk');
    writeFileSync(disk, new Uint8Array(1024).fill(7));
    const run = start('disks', '--disk', disk, '--disk', `${disk},readonly`, '--disk', `${disk},snapshot`);
    expect(await run.ended).toBe(0);
    expect(run.stdout).toBe('disk rw done 7\ndisk ro done 7\ndisk rw done 7\n');
  });

  it('refuses a disk that it cannot open', async () => {
    const run = start('disks', '--disk', join(directory, 'missing'));
    expect(await run.ended).toBe(1);
    expect(run.stderr).toContain(`cannot open the disk ${join(directory, 'missing')}: there is no such file`);
  });

  it('saves the guest at SIGUSR2, as often as it comes, and goes on', async () => {
    const path = join(directory, 'saved');
    const run = start('echo', '--save', path);
    await run.sees('ready');
    for (let time = 1; time <= 2; time++) {
      rmSync(path, { force: true });
      run.process.kill('SIGUSR2');
      await run.complains(`ring1: saved the guest to ${path} in `, time);
      expect(readFileSync(path, 'utf8')).toBe('all of the guest');
    }
    run.process.stdin?.write('off');
    expect(await run.ended).toBe(0);
  });

  it('says early that a guest could not be saved to a file', async () => {
    const run = start('echo', '--save', join(directory, 'missing', 'saved'));
    expect(await run.ended).toBe(1);
    expect(run.stderr).toContain('cannot write the snapshot');
  });

  it('ends with 3 at the timeout', async () => {
    const run = start('hang', '--timeout', '0.2');
    expect(await run.ended).toBe(3);
    expect(run.stderr).toContain('ring1: stopped after 0.2 seconds (--timeout)');
  });

  it('types what it reads from a pipe, and goes on at its end', async () => {
    const run = start('echo');
    run.process.stdin?.end('ls\n');
    await run.sees('ls\n');
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(run.process.exitCode).toBeNull();
    run.process.kill('SIGTERM');
    expect(await run.ended).toBe(128 + 15);
    expect(run.stderr).toContain('fake: closed');
  });

  it('passes Ctrl-] from a pipe on to the guest', async () => {
    const run = start('echo');
    run.process.stdin?.write('a\x1db off');
    expect(await run.ended).toBe(0);
    expect(run.stderr).toContain('typed "a\\u001db off"');
  });

  it.each([
    ['SIGINT', 2],
    ['SIGHUP', 1],
  ] as const)('ends the guest at %s', async (signal, number) => {
    const run = start('hang');
    await run.sees('ready');
    run.process.kill(signal);
    expect(await run.ended).toBe(128 + number);
    expect(run.stderr).toContain('fake: closed');
  });

  it('leaves when nobody reads its output any more', async () => {
    const run = start('flood');
    await run.sees('xxx');
    run.process.stdout?.destroy();
    expect(await run.ended).toBe(0);
  });

  it.each([
    ['poweroff', 'poweroff', [], {}],
    ['crash', 'crash', [], { reason: 'it fell over' }],
    ['hang', 'timeout', ['--timeout', '0.1'], {}],
  ] as const)('writes statistics after %s', async (guest, outcome, options, more) => {
    const path = join(directory, `${guest}.json`);
    await start(guest, ...options, '--stats', path).ended;
    const figures = JSON.parse(readFileSync(path, 'utf8'));
    expect(figures).toMatchObject({ outcome, boots: 1, host: { frames: 7 }, domain: { instructions: 42 }, ...more });
    expect(figures.seconds).toBeGreaterThan(0);
    expect(readdirSync(directory).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  it('shows a profile on stderr at the end, and puts it into the statistics', async () => {
    const path = join(directory, 'profiled.json');
    const run = start('profile', '--stats', path);
    expect(await run.ended).toBe(0);
    expect(run.stdout).toBe('READY\n');
    expect(run.stderr).toMatch(/^kernel 3\.00 s \(75\.0 %\).*75\.0 {2}kernel schedule\n.*exception 14\n/s);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({ profile: { samples: 3 } });
  });

  it('writes a profile to a file', async () => {
    const path = join(directory, 'profile');
    const run = start('profile', '--output', path);
    await run.ended;
    expect(run.stderr).toBe('fake: closed\n');
    expect(readFileSync(path, 'utf8')).toContain('kernel schedule');
  });

  it('begins a profile when the guest has printed a text, in pieces or not', async () => {
    const found = start('profile', '--after', 'READY');
    await found.ended;
    expect(found.stderr).toMatch(/^fake: profile begins\nkernel 3\.00 s/);
    const missed = start('profile', '--after', 'login:');
    await missed.ended;
    expect(missed.stderr).toMatch(
      /^ring1: the guest did not print "login:"; the profile is of all that it did\nkernel/,
    );
  });

  it('has no profile unless one is asked for', async () => {
    const path = join(directory, 'unprofiled.json');
    await start('poweroff', '--stats', path).ended;
    expect(JSON.parse(readFileSync(path, 'utf8'))).not.toHaveProperty('profile');
  });

  it('writes the trace line by line', async () => {
    const path = join(directory, 'trace');
    await start('trace', '--trace', path).ended;
    expect(readFileSync(path, 'utf8')).toBe('operation 0\noperation 1\noperation 2\n');
  });
});

describe.skipIf(!existsSync('/usr/bin/script'))('ring1 run in a terminal', () => {
  it('passes every key to the guest but Ctrl-], which leaves with the terminal as it was', async () => {
    const run = startInTerminal('echo', 'stty -a');
    await run.sees('ready');
    run.process.stdin?.write('\x03x\x04\x1a');
    await run.sees('typed "\\u0003x\\u0004\\u001a"');
    run.process.stdin?.write('y\x1dz');
    expect(await run.ended).toBe(0);
    expect(run.stdout).toContain('typed "y"');
    expect(run.stdout).not.toContain('typed "z');
    expect(run.stdout).toMatch(/[^-]icanon/);
    expect(run.stdout).toMatch(/[^-]echo /);
  });

  it('saves the guest at Ctrl-] s, and leaves at Ctrl-] and any other key', async () => {
    const path = join(directory, 'by-key');
    const run = startInTerminal('echo', 'true', '--save', path);
    await run.sees('ready');
    run.process.stdin?.write('a\x1d');
    run.process.stdin?.write('sb');
    await run.sees('saved the guest');
    expect(readFileSync(path, 'utf8')).toBe('all of the guest');
    await run.sees('typed "b"');
    run.process.stdin?.write('\x1dq');
    expect(await run.ended).toBe(0);
  });

  it('restores the terminal when the guest crashes', async () => {
    const run = startInTerminal('crash', 'stty -a');
    expect(await run.ended).toBe(2);
    expect(run.stdout).toMatch(/[^-]icanon/);
  });
});

describe('ring1 run with guest files', () => {
  /** Names of guests, each with a file of its own. */
  const guestFiles = (...names: readonly string[]): string[] =>
    names.map((name) => {
      const path = join(directory, `${name}.cfg`);
      writeFileSync(path, `name = "${name}"\nextra = "for ${name}"\n`);
      return path;
    });

  it('prints whose each line is', async () => {
    const run = start('poweroff', ...guestFiles('one', 'two'));
    expect(await run.ended).toBe(0);
    expect(run.stdout.trim().split('\n').sort()).toEqual([
      'one: command line: console=hvc0 for one',
      'two: command line: console=hvc0 for two',
    ]);
  });

  it('types a line at the console of the guest that it names', async () => {
    const run = start('echo', ...guestFiles('one', 'two'));
    await run.sees('one: ready');
    await run.sees('two: ready');
    run.process.stdin?.write('two: hello\nnobody: hello\none: off\ntwo: off\n');
    expect(await run.ended).toBe(0);
    expect(run.stdout).toContain('two: hello\n');
    expect(run.stdout).not.toContain('one: hello');
    expect(run.stderr).toContain('no guest is meant by the line "nobody: hello"');
  });

  it('says which guest crashed, with status 2', async () => {
    const run = start('crash', ...guestFiles('one', 'two'));
    expect(await run.ended).toBe(2);
    expect(run.stderr).toContain('ring1: one crashed: it fell over');
    expect(run.stderr).toContain('ring1: two crashed: it fell over');
  });

  it('boots the guests that ask for it again, each for itself', async () => {
    const run = start('reboot', ...guestFiles('one'));
    expect(await run.ended).toBe(0);
    expect(run.stdout).toBe('one: boot 1\none: boot 2\none: boot 3\n');
  });

  it('refuses two guests of one name', async () => {
    const [file = ''] = guestFiles('one');
    const run = start('poweroff', file, file);
    expect(await run.ended).not.toBe(0);
    expect(run.stderr).toContain('two guests have the name one');
  });

  it('writes figures of the host and of each guest', async () => {
    const stats = join(directory, 'several.json');
    await start('poweroff', '--stats', stats, ...guestFiles('one', 'two')).ended;
    const figures = JSON.parse(readFileSync(stats, 'utf8'));
    expect(figures.host).toEqual({ frames: 7 });
    expect(figures.guests).toEqual([
      { name: 'one', outcome: 'poweroff', boots: 1, domain: { instructions: 42 } },
      { name: 'two', outcome: 'poweroff', boots: 1, domain: { instructions: 42 } },
    ]);
  });
});
