import { type ParseArgsConfig, parseArgs } from 'node:util';
import { InputError } from '../src/boot/input-error.ts';

/** Ends a benchmark before it has its figures. The message is for its user; no stack trace is printed. */
export class BenchmarkFailure extends Error {
  override readonly name = 'BenchmarkFailure';
}

/** What cannot be measured, or not with what the user gave, ends it with the message alone and status 1. */
export async function runBenchmark(benchmark: () => Promise<void>): Promise<void> {
  try {
    await benchmark();
  } catch (error) {
    if (!(error instanceof InputError || error instanceof BenchmarkFailure)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  }
}

type OptionsConfig = NonNullable<ParseArgsConfig['options']>;
type Values<Options extends OptionsConfig> = ReturnType<
  typeof parseArgs<{ args: string[]; options: Options }>
>['values'];

/**
 * A benchmark's own options, and those of `ring1 run`, which stand behind `--`.
 * @throws InputError when there are others
 */
export function parseOptions<Options extends OptionsConfig>(
  args: readonly string[],
  options: Options,
): { readonly values: Values<Options>; readonly ring1Options: readonly string[] } {
  const mark = args.indexOf('--');
  const end = mark < 0 ? args.length : mark;
  try {
    return { values: parseArgs({ args: args.slice(0, end), options }).values, ring1Options: args.slice(end + 1) };
  } catch (error) {
    const [sentence = ''] = (error as Error).message.split('\n');
    throw new InputError(sentence);
  }
}
