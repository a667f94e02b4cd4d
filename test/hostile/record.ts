/** How often each call had each result: "mmuext_op 4" → "EINVAL" → count. */
export type Coverage = Map<string, Map<string, number>>;

/** What hostile guests asked for, what they were answered, and what became of them. */
export class HostileRecord {
  readonly coverage: Coverage = new Map();
  /** Why guests ended, without numbers, and how often. */
  readonly endings = new Map<string, number>();
  calls = 0;
  guests = 0;

  /** A call was made. @param result what came of it */
  made(call: string, result: string): void {
    this.calls++;
    this.found(call, result);
  }

  /** Something was seen of calls that are counted elsewhere. */
  found(call: string, result: string, times = 1): void {
    const results = this.coverage.get(call) ?? new Map<string, number>();
    this.coverage.set(call, results);
    count(results, result, times);
  }

  /** A guest has ended. @param ending its state, or why nothing more is to be expected of it */
  ended(ending: string): void {
    count(this.endings, withoutNumbers(ending));
  }

  /** Results that a call had; none when it was never made. */
  results(call: string): readonly string[] {
    return [...(this.coverage.get(call)?.keys() ?? [])];
  }
}

function count(counts: Map<string, number>, name: string, times = 1): void {
  counts.set(name, (counts.get(name) ?? 0) + times);
}

/** A reason without its numbers and the texts that a guest gave. */
export function withoutNumbers(reason: string): string {
  return reason.replace(/crash \(.*/, 'crash').replaceAll(/\b(0x[0-9a-f]+|\d+)\b/g, 'N');
}

/** A row for each call: how often, and with which results. */
export function coverageTable({ coverage }: HostileRecord): string {
  const rows = [...coverage].sort(([a], [b]) => (a < b ? -1 : 1));
  return rows
    .map(([call, results]) => {
      const parts = [...results].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, times]) => `${name} ${times}`);
      return `${call.padEnd(30)} ${parts.join(', ')}`;
    })
    .join('\n');
}
