import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole, PROMPT, seconds } from './console.ts';

const TIME_LIMIT = 240_000;

/** A real guest at a real terminal: what its user sees at the end, and which figures are left. */
describe.skipIf(!hasPackageArchive || !existsSync('/usr/bin/script'))('a guest in a terminal', () => {
  let directory = '';
  let guest: GuestConsole | undefined;

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'ring1-terminal-'));
  });

  afterEach(() => guest?.kill());

  afterAll(() => rmSync(directory, { recursive: true }));

  const statistics = (name: string): string => join(directory, `${name}.json`);
  const figuresOf = (name: string) => JSON.parse(readFileSync(statistics(name), 'utf8'));

  /** What stty says of a terminal that a shell can be used in. */
  function expectUsableTerminal({ text }: GuestConsole): void {
    for (const setting of ['icanon', 'isig', 'echo', 'icrnl', 'opost'])
      expect(text).toMatch(new RegExp(`\\s${setting}\\s`));
  }

  it(
    'gets every key but Ctrl-], which leaves it in the middle of its work',
    async () => {
      guest = await GuestConsole.startInTerminal('stty -a', '--stats', statistics('left'));
      await guest.waitFor(/\nREADY\n/, 200);
      await guest.waitFor(PROMPT);
      expect(await guest.command('stty size')).toBe('43 500');
      guest.send('while :; do :; done');
      await seconds(1);
      guest.type('\x03');
      await guest.waitFor(/\^C/);
      await guest.waitFor(PROMPT);
      guest.send('while :; do :; done');
      await seconds(1);
      guest.type('\x1d');
      expect((await guest.ended).status).toBe(0);
      expectUsableTerminal(guest);
      const figures = figuresOf('left');
      expect(figures).toMatchObject({ outcome: 'left', boots: 1 });
      expect(figures.domain.hypercalls.iret).toBeGreaterThan(1000);
      expect(figures.domain.operations['mmu.setPteAt']).toBeGreaterThan(0);
    },
    TIME_LIMIT,
  );

  it(
    'ends with 3 at the timeout, and leaves figures and a usable terminal',
    async () => {
      guest = await GuestConsole.startInTerminal('stty -a', '--timeout', '2', '--stats', statistics('timeout'));
      expect((await guest.ended).status).toBe(3);
      expect(guest.text).toContain('ring1: stopped after 2 seconds (--timeout)\n');
      expectUsableTerminal(guest);
      const figures = figuresOf('timeout');
      expect(figures).toMatchObject({ outcome: 'timeout', boots: 1 });
      expect(figures.seconds).toBeGreaterThanOrEqual(2);
      expect(figures.domain.instructions).toBeGreaterThan(1e6);
    },
    TIME_LIMIT,
  );

  it(
    'ends with 2 at a crash, and leaves figures and a usable terminal',
    async () => {
      const panics = ['--append', 'rdinit=/bin/busybox quiet'];
      guest = await GuestConsole.startInTerminal('stty -a', ...panics, '--stats', statistics('crash'));
      expect((await guest.ended).status).toBe(2);
      expect(guest.text).toMatch(/^ring1: the guest crashed: .*panic/m);
      expect(guest.text).toMatch(/^RIP: ffffffff[0-9a-f]{8} xen_hypercall/m);
      expectUsableTerminal(guest);
      const figures = figuresOf('crash');
      expect(figures).toMatchObject({ outcome: 'crash', boots: 1, reason: expect.stringContaining('panic') });
      expect(figures.domain.hypercalls.sched_op).toBeGreaterThan(0);
    },
    TIME_LIMIT,
  );
});
