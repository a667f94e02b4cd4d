import { type ChildProcess, spawn } from 'node:child_process';
import { afterEach, expect, test } from 'vitest';
import { ROUND, UNPATCHED, watchRounds } from '../bench/soak-watch.ts';

/** Seconds. */
const MINUTE = 1;

let guest: ChildProcess | undefined;
afterEach(() => guest?.kill('SIGKILL'));

/** Watches a shell script in place of a guest for three short minutes. */
async function watch(script: string): Promise<{ byMinute: number[]; lines: string[] }> {
  guest = spawn('sh', ['-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines: string[] = [];
  const byMinute = await watchRounds(guest, 3, (line) => lines.push(line), MINUTE);
  return { byMinute, lines };
}

test('memory of a guest that carries out rounds is measured in each minute', async () => {
  const { byMinute, lines } = await watch(`while :; do printf '${ROUND}\\r\\n'; sleep 0.01; done`);
  expect(byMinute).toHaveLength(3);
  for (const resident of byMinute) expect(resident).toBeGreaterThan(0);
  expect(lines.at(-1)).toMatch(/^minute 3: resident \d+ MiB, [1-9]\d* rounds$/);
});

test('a guest that hangs is a failure', async () => {
  const hang = watch(`echo '${ROUND}'; exec sleep 60`);
  await expect(hang).rejects.toThrow('the guest hangs: it carried out no round in minute 2, after 1 before');
});

test('a guest that ends early is a failure', async () => {
  await expect(watch(`echo '${ROUND}'; exit 7`)).rejects.toThrow(
    'the guest ended by itself in minute 1, with status 7',
  );
  await expect(watch('kill -9 $$')).rejects.toThrow('with signal SIGKILL');
});

test('a guest whose kernel patches no code is a failure', async () => {
  await expect(watch(`echo '${UNPATCHED}'; exit 1`)).rejects.toThrow('it patches no code');
});
