import { readFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import { SourceMap, type SourceMapPayload } from 'node:module';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A way through the code that was not taken. */
export interface Hole {
  /** From the root of the repository. */
  readonly file: string;
  readonly line: number;
  /** The line's text. */
  readonly text: string;
  /** The text of all its lines. */
  readonly inside: string;
  /** What was not executed, as it was compiled: its beginning. */
  readonly code: string;
}

export interface PathReport {
  /** Functions and branches that there are, by file. */
  readonly paths: ReadonlyMap<string, number>;
  readonly holes: readonly Hole[];
}

interface Script {
  readonly scriptId: string;
  readonly url: string;
  readonly functions: readonly {
    readonly functionName: string;
    readonly ranges: readonly { readonly startOffset: number; readonly endOffset: number; readonly count: number }[];
  }[];
}

/** Functions that no call leads to: snapshots and statistics have them. */
const NO_CALLS: ReadonlySet<string> = new Set(['archive', 'get figures', 'figures', 'statistics']);

const SHOWN = 60;

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Which functions and branches of handlers were executed, as the engine itself counts them: what there is to be reached is
 * thereby taken from the handlers and from nowhere else. To be started before the code in question is loaded.
 */
export class PathCoverage {
  readonly #session = new Session();

  constructor() {
    this.#session.connect();
    this.#post('Profiler.enable');
    this.#post('Debugger.enable');
    this.#post('Profiler.startPreciseCoverage', { callCount: false, detailed: true });
  }

  /** The protocol's answer, which comes at once. */
  #post(method: string, parameters: object = {}): unknown {
    let answer: unknown;
    this.#session.post(method, parameters, (error, result) => {
      if (error) throw error;
      answer = result;
    });
    return answer;
  }

  /** What was reached so far of files whose paths begin with one of those. */
  report(folders: readonly string[]): PathReport {
    const { result } = this.#post('Profiler.takePreciseCoverage') as { result: readonly Script[] };
    const paths = new Map<string, number>();
    const holes: Hole[] = [];
    for (const { scriptId, url, functions } of result) {
      const file = url.startsWith('file:') ? relative(ROOT, fileURLToPath(url)) : '';
      if (!folders.some((folder) => file.startsWith(folder))) continue;
      const { scriptSource } = this.#post('Debugger.getScriptSource', { scriptId }) as { scriptSource: string };
      const original = new OriginalSource(scriptSource, readFileSync(fileURLToPath(url), 'utf8'));
      const ranges = functions.flatMap((each) => (NO_CALLS.has(each.functionName) ? [] : each.ranges));
      paths.set(file, ranges.length);
      for (const { startOffset, endOffset, count } of ranges) {
        const isInside = ranges.some(
          (other) => other.count === 0 && other.startOffset <= startOffset && other.endOffset > endOffset,
        );
        if (count > 0 || isInside || isEmpty(scriptSource.slice(startOffset, endOffset))) continue;
        const line = original.lineAt(startOffset + scriptSource.slice(startOffset).search(/[\w$#'"`-]/));
        const code = scriptSource.slice(startOffset, Math.min(endOffset, startOffset + SHOWN));
        const inside = original.textBetween(line, original.lineAt(endOffset - 1));
        holes.push({ file, line, text: original.textOf(line), inside, code });
      }
    }
    return { paths, holes };
  }
}

/** What stands behind the last statement of a block that always leaves it. */
function isEmpty(text: string): boolean {
  return /^[\s{};,):]*$/.test(text);
}

/** Places of a script that was compiled from TypeScript, with the map that stands at its end. */
class OriginalSource {
  readonly #map: SourceMap;
  readonly #lines: readonly string[];
  /** Where each line of the script begins. */
  readonly #starts: readonly number[];

  constructor(script: string, source: string) {
    const [, encoded] = /sourceMappingURL=data:application\/json[^,]*,([\w+/=]+)/.exec(script) ?? [];
    if (encoded === undefined) throw new Error('a script has no source map');
    const payload = JSON.parse(Buffer.from(encoded, 'base64').toString()) as SourceMapPayload;
    this.#map = new SourceMap(payload);
    this.#lines = source.split('\n');
    this.#starts = [...script.matchAll(/^/gm)].map(({ index }) => index);
  }

  /** From 1. */
  lineAt(offset: number): number {
    const line = this.#starts.findLastIndex((start) => start <= offset);
    const entry = this.#map.findEntry(line, offset - (this.#starts[line] ?? 0));
    return 'originalLine' in entry ? entry.originalLine + 1 : 0;
  }

  textOf(line: number): string {
    return this.#lines[line - 1]?.trim() ?? '';
  }

  textBetween(first: number, last: number): string {
    return this.#lines.slice(Math.max(first - 1, 0), Math.max(first, last)).join('\n');
  }
}
