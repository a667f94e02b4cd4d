/**
 * Guest instructions a second that the interpreter alone executes in a shell loop, from two runs with --stats: one that only boots, one that boots and
 * counts to 200,000.
 *
 *     npm run build && npx tsx bench/shell-loop.ts [--runs 3]
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { runs: { type: 'string', default: '3' } } });

interface Figures {
  readonly domain: { readonly wallSeconds: number; readonly instructions: number };
}

function figuresOf(script: string): Figures['domain'] {
  const stats = join(tmpdir(), `ring1-shell-loop-${process.pid}.json`);
  const result = spawnSync(
    'bin/ring1',
    ['run', '--jit-threshold', '0', '--append', `ring1.run="${script}"`, '--stats', stats],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  if (result.status !== 0) throw new Error(`ring1 ended with status ${result.status}`);
  const { domain } = JSON.parse(readFileSync(stats, 'utf8')) as Figures;
  rmSync(stats);
  return domain;
}

for (let run = 0; run < Number(values.runs); run++) {
  const boot = figuresOf('true');
  const loop = figuresOf('i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done');
  const instructions = loop.instructions - boot.instructions;
  const seconds = loop.wallSeconds - boot.wallSeconds;
  process.stdout.write(
    `${(instructions / 1e6).toFixed(0)} M instructions in ${seconds.toFixed(2)} s: ${(instructions / seconds / 1e6).toFixed(0)} M a second\n`,
  );
}
