import { parseArgs } from 'node:util';
import { PathCoverage } from './paths.ts';
import { coverageTable, type HostileRecord } from './record.ts';
import { TARGETS, type Target, type TargetName } from './targets.ts';
import { reasonOf, unexplained } from './unreached.ts';

/**
 * `npx tsx test/hostile/run.ts [TARGET…] [--calls N] [--seed N]`: calls of hostile guests to each of the targets, by default
 * all of them and a million calls each. Prints what came of each call, and which paths through the code that carries them
 * out were not taken. Ends with an error at the first recount that differs, when a neighbour is disturbed, none ends its
 * work before the last hostile guest does or frames are lost, and when a path was not taken without a reason given in
 * unreached.ts; some are so rare that they take a few hundred thousand calls.
 */
const { values, positionals } = parseArgs({
  options: { calls: { type: 'string' }, seed: { type: 'string' } },
  allowPositionals: true,
});
const calls = Number(values.calls ?? 1_000_000);
const seed = Number(values.seed ?? 1);
const targets: readonly (readonly [string, Target])[] = Object.entries(TARGETS);
const unknown = positionals.find((name) => !(name in TARGETS));
if (unknown !== undefined) throw new Error(`there is no target ${unknown}; give ${Object.keys(TARGETS).join(', ')}`);
const chosen = targets.filter(([name]) => positionals.length === 0 || positionals.includes(name as TargetName));

// What is to be counted must not have been loaded before.
const paths = new PathCoverage();
const { HostileAttack } = await import('./attack.ts');
const { HostileLguest } = await import('./lguest.ts');

/** Calls of guests of all eras, of one of which the reference guest is, in proportion. */
const ERA_SHARE = 0.1;

for (const [name, { variants }] of chosen) {
  const start = performance.now();
  const attack = new HostileAttack(variants);
  await attack.attack(calls, seed);
  const { record } = attack;
  show(name, record, start);
  // It ends otherwise when the two rounds of its work differ.
  const disturbed = attack.neighbours.filter((printed) => !printed.trimEnd().endsWith('\ndone'));
  console.log(`${attack.neighboursBeside} guests ended their work beside them; frames lost: ${attack.framesInUse}`);
  for (const printed of disturbed) console.log(`a guest beside them was disturbed:\n${printed}`);
  if (disturbed.length + attack.framesInUse > 0 || attack.neighboursBeside === 0) process.exitCode = 1;
  if (name === 'lguest') await attackEras();
}

/** Guests of lguest of each era, with no kernel: the host makes their calls for them. */
async function attackEras(): Promise<void> {
  const start = performance.now();
  const eras = new HostileLguest();
  await eras.attack(calls * ERA_SHARE, seed);
  show('lguest, by era', eras.record, start);
  console.log(`frames lost: ${eras.lostFrames}`);
  if (eras.lostFrames > 0) process.exitCode = 1;
}

function show(name: string, record: HostileRecord, start: number): void {
  const seconds = Math.round((performance.now() - start) / 1000);
  console.log(`\n${name}\n${coverageTable(record)}`);
  console.log(
    `\n${record.calls} calls by ${record.guests} guests in ${seconds} s; all recounts as stored. They ended by`,
  );
  for (const [ending, times] of [...record.endings].sort(([, a], [, b]) => b - a)) console.log(`${times} × ${ending}`);
}

const { paths: found, holes } = paths.report(chosen.flatMap(([, { handlers }]) => handlers));
for (const [file, count] of [...found].sort(([a], [b]) => (a < b ? -1 : 1))) {
  const own = holes.filter((hole) => hole.file === file);
  console.log(`\n${file}: ${count - own.length} of ${count} paths`);
  for (const hole of own) {
    console.log(`  ${hole.line}: ${hole.text}\n      ${reasonOf(hole) ?? `NOT TAKEN: ${hole.code}`}`);
  }
}
const { holes: open, reasons } = unexplained(holes);
console.log(`\n${open.length} paths were not taken and have no reason for it`);
// What targets that were left out would have reached nobody can tell.
const leftOut = targets
  .filter((target) => !chosen.includes(target))
  .flatMap(([, { handlers, shared = [] }]) => [...handlers, ...shared]);
const mayBeReached = ({ file }: { readonly file: string }): boolean =>
  leftOut.some((folder) => file.startsWith(folder));
const missing = open.filter((hole) => !mayBeReached(hole));
const outdated = reasons.filter((reason) => found.has(reason.file) && !mayBeReached(reason));
for (const { file, text } of outdated) console.log(`${file}: a reason is given for a path that was taken: ${text}`);
if (missing.length + outdated.length > 0) process.exitCode = 1;
