import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** This machine's own processor as the reference: the layout of the records is in native/float.c. */

export const enum OracleKind {
  sse = 0,
  x87 = 1,
}

export const recordSize = { [OracleKind.sse]: 96, [OracleKind.x87]: 256 } as const;

export interface Batch {
  kind: OracleKind;
  /** One machine instruction. */
  code: readonly number[];
  /** `count` records, replaced by the processor's answer. */
  records: Uint8Array;
}

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const source = join(root, 'test/native/float.c');
const program = join(root, '.cache/float-oracle');

function build(): void {
  if (process.arch !== 'x64') {
    throw new Error(`The floating-point tests compare with an x86-64 processor; this one is ${process.arch}.`);
  }
  if (existsSync(program) && statSync(program).mtimeMs > statSync(source).mtimeMs) return;
  mkdirSync(dirname(program), { recursive: true });
  const fresh = `${program}.${process.pid}`;
  try {
    execFileSync('gcc', ['-O1', '-Wall', '-mno-red-zone', '-o', fresh, source], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new Error(
      missing
        ? 'The floating-point tests need gcc to build test/native/float.c; install it (apt-get install gcc).'
        : `gcc could not build test/native/float.c: ${String((error as { stderr?: unknown }).stderr)}`,
    );
  }
  renameSync(fresh, program);
}

/** Executes the batches on the processor, one process for all. Returns their records after execution. */
export function runOnProcessor(batches: readonly Batch[]): Uint8Array[] {
  build();
  const parts: Uint8Array[] = [];
  for (const batch of batches) {
    const header = new Uint8Array(32);
    const view = new DataView(header.buffer);
    view.setUint32(0, batch.kind, true);
    view.setUint32(4, batch.records.length / recordSize[batch.kind], true);
    view.setUint32(8, batch.code.length, true);
    header.set(batch.code, 12);
    parts.push(header, batch.records);
  }
  const input = Buffer.concat(parts);
  const run = spawnSync(program, [], { input, maxBuffer: input.length + 1 });
  if (run.status !== 0) {
    throw new Error(`test/native/float.c ended with ${run.signal ?? run.status}: ${run.stderr}`);
  }
  const results: Uint8Array[] = [];
  let offset = 0;
  for (const batch of batches) {
    results.push(run.stdout.subarray(offset, offset + batch.records.length));
    offset += batch.records.length;
  }
  return results;
}
