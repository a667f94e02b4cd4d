/**
 * Runs Debian's kernel with virtual time in many ways, and says where what it leaves behind differs.
 *
 *   npx tsx test/compare-runs.ts [--thresholds 0,1,20,200] [--tlb 1024,64,16] [--instructions N] [--save FILE] [--expect FILE]
 *
 * Each threshold runs with the first size of the TLB, each further size with the last threshold. `--save` keeps what the
 * first run left and `--expect` starts from such a file, so that versions of Node can be compared with each other. Without
 * `--instructions` the guest runs to its end. Ends with status 1 on a difference.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { ProcessorGroupOptions } from '../src/cpu/processor.ts';
import { runDeterministically, type Trail } from './determinism.ts';

/** The least that the kernel takes, since all of it is hashed. */
const PAGES = 22_016;
/** Processes, their page tables, copies on write, signals, compression and scripts. */
const COMMAND =
  'for i in 1 2 3; do (echo $i | sha256sum | cut -c1-8) & wait; done; ls -l /bin | gzip -c | md5sum; poweroff -f';

type Left = Omit<Trail, 'figures'>;

interface Way {
  readonly threshold: number;
  readonly tlbEntries: number;
}

function numbers(list: string): number[] {
  return list.split(',').map(Number);
}

async function run({ threshold, tlbEntries }: Way, instructions: number | undefined): Promise<Left> {
  const group: ProcessorGroupOptions = { tlbEntries, jit: { threshold } };
  const program = instructions === undefined ? { command: COMMAND } : { instructions };
  const { figures: _figures, ...left } = await runDeterministically({ pages: PAGES, group, ...program });
  return left;
}

/** Names of the parts that differ. */
function differences(expected: Left, found: Left): string[] {
  return (Object.keys(expected) as (keyof Left)[]).filter((key) => expected[key] !== found[key]);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      thresholds: { type: 'string', default: '0,1,20,200' },
      tlb: { type: 'string', default: '1024,64,16' },
      instructions: { type: 'string' },
      save: { type: 'string' },
      expect: { type: 'string' },
    },
  });
  const thresholds = numbers(values.thresholds);
  const [usual = 1024, ...otherSizes] = numbers(values.tlb);
  const last = thresholds.at(-1) ?? 0;
  const ways: Way[] = [
    ...thresholds.map((threshold) => ({ threshold, tlbEntries: usual })),
    ...otherSizes.map((tlbEntries) => ({ threshold: last, tlbEntries })),
  ];
  const limit = values.instructions === undefined ? undefined : Number(values.instructions);
  let expected = values.expect === undefined ? undefined : (JSON.parse(readFileSync(values.expect, 'utf8')) as Left);
  console.log(`Node ${process.version}`);
  for (const way of ways) {
    const start = performance.now();
    const left = await run(way, limit);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    const name = `threshold ${way.threshold}, ${way.tlbEntries} TLB entries`;
    if (!expected) {
      expected = left;
      if (values.save !== undefined) writeFileSync(values.save, JSON.stringify(left));
    }
    const differ = differences(expected, left);
    if (differ.length > 0) process.exitCode = 1;
    const verdict = differ.length > 0 ? `DIFFERS in ${differ.join(', ')}` : `memory ${left.memory.slice(0, 16)}`;
    console.log(`${name}: ${left.instructions} instructions in ${seconds} s, ${verdict}`);
  }
}

await main();
