import { parseArgs } from 'node:util';
import { VmiAttack } from './vmi-attack.ts';

/**
 * `npx tsx test/hostile/vmi.ts [--calls N] [--seed N]`: calls of hostile kernels of the VMI interface, by default a million,
 * and a table of how each call ended. Ends with an error when a shadow leads out of a guest.
 */
const { values } = parseArgs({ options: { calls: { type: 'string' }, seed: { type: 'string' } } });
const attack = new VmiAttack();
attack.attack(Number(values.calls ?? 1_000_000), Number(values.seed ?? 1)).then(() => {
  for (const [name, results] of [...attack.coverage].sort(([a], [b]) => a.localeCompare(b))) {
    console.log(`${name.padEnd(24)}${[...results].map(([result, times]) => `${result} ${times}`).join(', ')}`);
  }
  console.log(`\n${attack.calls} calls. Guests crashed by`);
  for (const [ending, times] of attack.endings) console.log(`${times} × ${ending}`);
});
