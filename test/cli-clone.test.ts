import { describe, expect, it } from 'vitest';
import type { Outcome } from '../src/api.ts';
import { catchesUp } from '../src/cli/catching-up.ts';
import { parseCloneOptions } from '../src/cli/clone-options.ts';
import { ShellCommand } from '../src/cli/shell-command.ts';

describe('the options of ring1 clone', () => {
  it('name a snapshot and what each copy does', () => {
    expect(parseCloneOptions(['a.ring1', '--count', '3', '--each', 'echo {}', '--host-memory', '1G'])).toEqual({
      snapshot: 'a.ring1',
      count: 3,
      each: 'echo {}',
      disks: [],
      network: false,
      hostMemory: 1 << 30,
      swap: undefined,
      timeoutSeconds: undefined,
      jitThreshold: undefined,
    });
    const devices = ['--disk', 'a.img', '--disk', 'b.img', '--network'];
    expect(parseCloneOptions(['a', '--each', 'date', ...devices])).toMatchObject({
      disks: ['a.img', 'b.img'],
      network: true,
    });
    expect(parseCloneOptions(['--help'])).toBe('help');
  });

  it.each([
    [['--each', 'date'], 'a clone is made of one snapshot'],
    [['a', 'b', '--each', 'date'], 'a clone is made of one snapshot'],
    [['a'], '--each is missing'],
    [['a', '--each', 'date', '--count', '0'], '--count 0 is not a number from 1'],
    [['a', '--each', 'date', '--memory', 'x'], 'see "ring1 help clone"'],
  ])('refuse %j', (args, message) => {
    expect(() => parseCloneOptions(args)).toThrow(message);
  });
});

describe('a command at the shell of a copy', () => {
  const PROMPT = '/ # ';

  /** What a shell with line editing prints: the echo of what was typed, answers, prompts. */
  function answer(command: ShellCommand, output: string, status: number): string {
    const [first = '', second = ''] = command.line.split('\n');
    return `${first}\r\nring1-begin\r\n${output}${PROMPT}${second}\r\nring1-end ${status}\r\n${PROMPT}`;
  }

  it.each([1, 3, 1000])('gives its lines and its status, in pieces of %i bytes', (size) => {
    const lines: string[] = [];
    const command = new ShellCommand('uname; false', (line) => lines.push(line));
    const bytes = new TextEncoder().encode(answer(command, 'Linux\r\nÜ ring1\r\n\r\n', 1));
    for (let at = 0; at < bytes.length; at += size) command.feed(bytes.subarray(at, at + size));
    expect(lines).toEqual(['Linux', 'Ü ring1', '']);
    expect(command.status).toBe(1);
  });

  it('has not ended while only its echo has come', () => {
    const command = new ShellCommand('sleep 9', () => {});
    command.feed(new TextEncoder().encode(command.line));
    expect(command.status).toBeUndefined();
  });
});

describe('a copy whose date is behind', () => {
  const running = new Promise<Outcome>(() => {});
  const longest = 60_000;

  it('is waited for until it is not', async () => {
    let looks = 3;
    const machine = {
      done: running,
      get behind() {
        return looks-- > 0 ? 1000 : 0;
      },
    };
    expect(await catchesUp(machine, longest)).toBe(true);
    expect(looks).toBe(-1);
  });

  it('is not waited for when it has ended', async () => {
    const done = Promise.resolve({ kind: 'poweroff' } as const);
    expect(await catchesUp({ behind: 1000, done }, longest)).toBe(true);
  });

  it('is not waited for beyond a limit', async () => {
    expect(await catchesUp({ behind: 1000, done: running }, 30)).toBe(false);
  });
});
