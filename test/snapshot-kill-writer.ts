/** Saves one sample after another to the same file, from a seed on, and says so: snapshot-kills.ts ends it at any time. */
import { writeSync } from 'node:fs';
import { saveSnapshotFile } from '../src/node/snapshot-file.ts';
import { writeSnapshot } from '../src/snapshot/write-snapshot.ts';
import { sampleImage } from './snapshot-samples.ts';

const PAGES = 500;
const [, , path = '', first = '1'] = process.argv;
for (let seed = Number(first); ; seed++) {
  writeSync(1, `begins ${seed}\n`);
  await saveSnapshotFile(path, (target) => writeSnapshot(sampleImage(seed, PAGES), target));
  writeSync(1, `saved ${seed}\n`);
}
