import { readFileSync } from 'node:fs';
import { type Image, imagePath } from '../guests/reference/build.ts';
import type { Outcome } from '../src/api.ts';
import { chooseCell } from '../src/domain/cells.ts';
import { type BootOptions, createHost } from '../src/index.ts';
import type { Audit } from '../src/inspect/audit.ts';
import type { StatisticsReport } from '../src/inspect/statistics.ts';
import { outputOf } from './guest/output.ts';

/** Boots of the reference guest (guests/reference), and what it prints. */
const MEMORY = 32 << 20;

export interface Printed {
  readonly lines: readonly string[];
  readonly outcome: Outcome;
  readonly audit?: Audit | undefined;
  readonly statistics?: StatisticsReport;
}

/** @param words of the command line; @param built an image that is kept, or another build of one */
export async function runReference(
  options: Pick<BootOptions, 'interface'> & Partial<BootOptions>,
  words = '',
  built: Image | Uint8Array = 'x86-64',
): Promise<Printed> {
  const { check = true } = options;
  const kernel = typeof built === 'string' ? readFileSync(imagePath(built)) : built;
  const host = await createHost({ memory: MEMORY, check });
  try {
    const cell = chooseCell(options.interface, options.paging);
    const machine = await host.boot({
      kernel,
      commandLine: words,
      memory: MEMORY,
      vcpus: 1,
      deterministic: true,
      check,
      ...options,
      ...cell,
    });
    const text = await outputOf(machine);
    return {
      lines: text.split('\n').filter((line) => line !== ''),
      outcome: await machine.done,
      audit: machine.audit(),
      statistics: machine.statistics() as StatisticsReport,
    };
  } finally {
    await host.close();
  }
}

/** The hash of each round, by how it went. */
export function hashes({ lines }: Printed): Readonly<Record<string, string>> {
  const found = lines.flatMap((line) => {
    const [, round, hash] = /^round (.*): processes \d+ hash ([0-9a-f]{16})$/.exec(line) ?? [];
    return round === undefined || hash === undefined ? [] : [[round, hash] as const];
  });
  return Object.fromEntries(found);
}

/** Number behind a name in a line that begins with some words: `numberOf(printed, 'operation mmu.set_pte_at')`. */
export function numberOf({ lines }: Printed, name: string): number | undefined {
  for (const line of lines) {
    const [, value] = new RegExp(`(?:^|\\s)${name.replaceAll('.', '\\.')} (\\d+)`).exec(line) ?? [];
    if (value !== undefined) return Number(value);
  }
  return undefined;
}

/** Call sites: which operation they are for, and their bytes. */
export function sitesOf({ lines }: Printed): { readonly operation: string; readonly bytes: Uint8Array }[] {
  return lines.flatMap((line) => {
    const [, operation, digits] = /^site (\S+) [0-9a-f]+ ((?:[0-9a-f]{2})*)$/.exec(line) ?? [];
    if (operation === undefined || digits === undefined) return [];
    const bytes = Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
    return [{ operation, bytes }];
  });
}
