/**
 * Compares an emulator with this machine's processor.
 *
 *   npx tsx test/native/run.ts [--count 1000] [--seed N] [--only add,shl] [--mode 64|32] [--case N] [--examples 2]
 *                              [--emulator ./test/native/emulator.ts]
 *
 * The emulator's module exports `createEmulator(): Emulator`, or a promise of one. With `--emulator oracle` every case
 * runs twice on the processor, which shows whether the oracle is deterministic. Ends with status 1 on a difference.
 */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { compareAll, type Emulator } from './compare.ts';
import { type Mode, type NativeCase, type NativeResult, OracleError, oracleUnavailable, runNative } from './oracle.ts';
import { failureText, summaryLine } from './report.ts';

const DEFAULT_EMULATOR = fileURLToPath(new URL('./emulator.ts', import.meta.url));

/** Runs each case a second time on the processor. */
const oracleAsEmulator: Emulator = {
  run: (nativeCase: NativeCase): NativeResult => runNative([nativeCase])[0] as NativeResult,
  runAll: runNative,
};

async function loadEmulator(path: string): Promise<Emulator> {
  if (path === 'oracle') return oracleAsEmulator;
  if (!existsSync(path))
    throw new OracleError(`there is no emulator at ${path}; give one with --emulator, or "--emulator oracle"`);
  const module = (await import(pathToFileURL(resolve(path)).href)) as {
    createEmulator: () => Emulator | Promise<Emulator>;
  };
  return module.createEmulator();
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      count: { type: 'string', default: '1000' },
      seed: { type: 'string', default: String(Math.floor(Math.random() * 0x1_0000_0000)) },
      only: { type: 'string' },
      mode: { type: 'string' },
      case: { type: 'string' },
      examples: { type: 'string', default: '2' },
      emulator: { type: 'string', default: DEFAULT_EMULATOR },
    },
  });
  const unavailable = oracleUnavailable();
  if (unavailable) throw new OracleError(unavailable);
  const emulator = await loadEmulator(values.emulator);
  const seed = Number(values.seed);
  const modes: Mode[] = values.mode === undefined ? [64, 32] : [values.mode === '32' ? 32 : 64];
  console.log(`seed ${seed}`);
  const started = performance.now();
  const reports = compareAll(emulator, {
    seed,
    count: values.case === undefined ? Number(values.count) : 1,
    first: Number(values.case ?? 0),
    modes,
    examples: Number(values.examples),
    ...(values.only ? { only: values.only.split(',') } : {}),
    progress: (report) => console.log(report.failed ? failureText(report) : summaryLine(report)),
  });
  const total = reports.reduce((sum, report) => sum + report.run, 0);
  const failing = reports.filter((report) => report.failed > 0);
  const failed = failing.reduce((sum, report) => sum + report.failed, 0);
  const seconds = (performance.now() - started) / 1000;
  console.log(`${total} cases of ${reports.length} templates in ${seconds.toFixed(1)} s: ${failed} failed`);
  if (failing.length) console.log(`failing: ${failing.map((report) => `${report.template}/${report.mode}`).join(' ')}`);
  if (total === 0) throw new OracleError(`no template is named ${values.only}`);
  process.exitCode = failed ? 1 : 0;
}

main().catch((error: unknown) => {
  if (!(error instanceof OracleError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
});
