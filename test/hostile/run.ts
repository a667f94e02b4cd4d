import { parseArgs } from 'node:util';
import { coverageTable, HostileGuests } from './guest.ts';
import { HostileLguest, lguestTable } from './lguest.ts';

/**
 * `npx tsx test/hostile/run.ts [--interface xen|lguest] [--calls N] [--seed N]`: hypercalls of hostile guests, by default a
 * million, and a table of what came of each. Ends with an error at the first recount that differs, and when guests of
 * lguest bring about anything but their own end.
 */
const { values } = parseArgs({
  options: { interface: { type: 'string' }, calls: { type: 'string' }, seed: { type: 'string' } },
});
const calls = Number(values.calls ?? 1_000_000);
const seed = Number(values.seed ?? 1);

async function attack() {
  if (values.interface === 'lguest') {
    const guests = new HostileLguest();
    await guests.attack(calls, seed);
    return { run: guests.run, table: lguestTable(guests.run), checked: `${guests.run.lostFrames} frames lost` };
  }
  const guests = new HostileGuests();
  guests.attack(calls, seed);
  return {
    run: guests.run,
    table: coverageTable(guests.run),
    checked: 'types and references as stored after each turn',
  };
}

const { run, table, checked } = await attack();
console.log(table);
console.log(`\n${run.calls} calls by ${run.guests} guests, ${checked}. They ended by`);
for (const [ending, times] of [...run.endings].sort(([, a], [, b]) => b - a)) console.log(`${times} × ${ending}`);
