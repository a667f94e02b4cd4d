/**
 * Compares the decoder with iced-x86 at length:
 *
 *   npx tsx test/decode/compare.ts --count 10000000 --seed 1 [--level known]
 *
 * `--level known` turns on all extensions the tables describe. Exit status 1 if anything differs.
 */
import { parseArgs } from 'node:util';
import { operationNames } from '../../src/cpu/decode/decoder.ts';
import { knownFeatures, reportedFeatures } from '../../src/cpu/decode/features.ts';
import { compareDecoders } from './agreement.ts';

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '10000000' },
    seed: { type: 'string', default: '1' },
    level: { type: 'string', default: 'reported' },
  },
});
if (values.level !== 'reported' && values.level !== 'known') {
  throw new Error(`--level is "reported" or "known", not "${values.level}"`);
}

const started = performance.now();
const { compared, valid, operations, differences } = compareDecoders({
  count: Number(values.count),
  seed: Number(values.seed),
  level: values.level,
  progress: (done) => {
    if (process.stderr.isTTY) process.stderr.write(`\r${done}`);
  },
});
const seconds = ((performance.now() - started) / 1000).toFixed(1);
for (const { codeSize, bytes, ours, reference, what } of differences) {
  console.log(`${codeSize}-bit  ${bytes}  ${what}: ours ${ours}; iced ${reference}`);
}
const unseen = operationNames(values.level === 'reported' ? reportedFeatures : knownFeatures).filter(
  (name) => !operations.has(name),
);
console.log(`${compared} sequences, ${valid} of them valid, ${differences.length} differences, ${seconds} s`);
console.log(unseen.length === 0 ? 'every operation was seen' : `operations never seen: ${unseen.join(' ')}`);
process.exitCode = differences.length === 0 ? 0 : 1;
