/**
 * Saves a guest under load, lets it run on, and compares what it leaves with what it leaves where it goes on from the file:
 *
 *   npx tsx test/compare-snapshots.ts --save DIRECTORY [--interface xen|kvm|native] [--vcpus N]
 *   npx tsx test/compare-snapshots.ts --expect DIRECTORY [--threshold N]
 *
 * The directory can be moved between the two, and the second be run by another version of Node. Ends with status 1 on a
 * difference.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { DISKS, SavedGuest, type Trail } from './saved-guest.ts';

/** Processes, pipes, compression and a disk: something is going on at any time. */
const load = (disk: string): string =>
  'i=0; while [ $i -lt 20 ]; do echo round $i; ls -lR /bin | gzip -c | sha256sum; ' +
  `sha256sum < ${disk}; dd if=/dev/urandom of=${disk} bs=4k seek=$i count=20 conv=fsync 2>/dev/null & i=$((i+1)); done; ` +
  'sleep 1000';
const SAVED_AT = 'round 8';
const END = 'round 19';

interface Expected {
  readonly trail: Trail;
  /** From the snapshot to the end. */
  readonly exits: readonly number[];
}

async function saveTo(directory: string, name: 'xen' | 'kvm' | 'native', vcpus: number): Promise<void> {
  const guest = await SavedGuest.boot(name, load(DISKS[name]), vcpus);
  await guest.runUntil((console) => console.includes(SAVED_AT));
  const { file, disk } = await guest.save();
  const before = guest.exits;
  await guest.runUntil((console) => console.includes(END));
  const trail = await guest.trail();
  const exits = guest.exits.map((count, exit) => count - (before[exit] ?? 0));
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'guest.ring1'), file);
  writeFileSync(join(directory, 'disk.img'), disk);
  writeFileSync(join(directory, 'expected.json'), JSON.stringify({ trail, exits } satisfies Expected));
  console.log(
    `Node ${process.version}: saved ${name} to ${directory}, ${file.length >> 20} MB; ran on to ${trail.instructions}`,
  );
}

async function compareWith(directory: string, threshold: number): Promise<void> {
  const { trail, exits } = JSON.parse(readFileSync(join(directory, 'expected.json'), 'utf8')) as Expected;
  const [file, disk] = ['guest.ring1', 'disk.img'].map((name) => readFileSync(join(directory, name))) as [
    Buffer,
    Buffer,
  ];
  const guest = await SavedGuest.resume({ file, disk }, threshold);
  await guest.runUntil((console) => console.includes(END));
  const found = await guest.trail();
  const same: Record<string, boolean> = {
    instructions: found.instructions === trail.instructions,
    console: found.console.length > 0 && trail.console.endsWith(found.console),
    exits: JSON.stringify(guest.exits) === JSON.stringify(exits),
    registers: found.registers === trail.registers,
    memory: found.memory === trail.memory,
  };
  if (!same.exits) console.log('exits by kind:', JSON.stringify(guest.exits), 'and not', JSON.stringify(exits));
  const different = Object.keys(same).filter((part) => !same[part]);
  if (different.length > 0) process.exitCode = 1;
  const verdict =
    different.length > 0 ? `DIFFERS in ${different.join(', ')}` : `all equal: ${Object.keys(same).join(', ')}`;
  console.log(`Node ${process.version}, threshold ${threshold}: ${found.instructions} instructions, ${verdict}`);
}

const { values } = parseArgs({
  options: {
    save: { type: 'string' },
    expect: { type: 'string' },
    interface: { type: 'string', default: 'xen' },
    vcpus: { type: 'string', default: '2' },
    threshold: { type: 'string', default: '200' },
  },
});
if (values.save !== undefined) await saveTo(values.save, values.interface as 'xen', Number(values.vcpus));
if (values.expect !== undefined) await compareWith(values.expect, Number(values.threshold));
