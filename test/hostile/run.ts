import { parseArgs } from 'node:util';
import { coverageTable, HostileGuests } from './guest.ts';

/**
 * `npx tsx test/hostile/run.ts [--calls N] [--seed N]`: hypercalls of hostile guests, by default a million, and a table of
 * what each call answered. Ends with an error at the first recount that differs.
 */
const { values } = parseArgs({ options: { calls: { type: 'string' }, seed: { type: 'string' } } });
const guests = new HostileGuests();
guests.attack(Number(values.calls ?? 1_000_000), Number(values.seed ?? 1));
const { run } = guests;
console.log(coverageTable(run));
console.log(
  `\n${run.calls} calls by ${run.guests} guests, types and references as stored after each turn. They ended by`,
);
for (const [ending, times] of [...run.endings].sort(([, a], [, b]) => b - a)) console.log(`${times} × ${ending}`);
