import { parseArgs } from 'node:util';
import { HostileGuests } from './guest.ts';
import { HostileLguest, lguestTable } from './lguest.ts';
import { HostileNarrowGuests } from './narrow.ts';
import { coverageTable } from './record.ts';

/**
 * `npx tsx test/hostile/run.ts [--interface xen|lguest] [--bits 64|32] [--calls N] [--seed N]`: hypercalls of hostile guests,
 * by default a million, and a table of what came of each. Ends with an error at the first recount that differs, and when guests of
 * lguest bring about anything but their own end.
 */
const { values } = parseArgs({
  options: {
    interface: { type: 'string' },
    bits: { type: 'string' },
    calls: { type: 'string' },
    seed: { type: 'string' },
  },
});
const calls = Number(values.calls ?? 1_000_000);
const seed = Number(values.seed ?? 1);

async function attack() {
  if (values.interface === 'lguest') {
    const guests = new HostileLguest();
    await guests.attack(calls, seed);
    return { run: guests.run, table: lguestTable(guests.run), checked: `${guests.run.lostFrames} frames lost` };
  }
  const guests = values.bits === '32' ? new HostileNarrowGuests() : new HostileGuests();
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
