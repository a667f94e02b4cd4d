/**
 * What programs do to page tables, as the reference guest asks for it: its operations, and the hypercalls, exits,
 * instructions and time of the host that they come to, per fork, exec, mmap of 16 pages, page fault and context switch,
 * for each image in every cell, with lazy mode and without; and the sizes of the batches in VMI's queue. These are the
 * tables of docs/costs.md.
 *
 *     npx tsx bench/reference.ts [--runs 3] [--images x86-64,i386] [--settings xen/direct,vmi] [--write]
 *
 *   --images NAMES    those among x86-64, i386-pae and i386
 *   --settings TEXTS  only settings that begin so
 *   --runs N          pairs of boots for each figure, in as many rounds through all of an image's cells; of exits the
 *                     median, of times the least and the greatest are printed, whatever else differs is an error
 *   --write           put the tables into docs/costs.md too, in place of all that are there: without --images and --settings
 *
 * The guest counts its operations itself, by stand-ins at unpatched call sites, so that those which are an instruction
 * natively count as well; conversions and reads of entries (pte_val, get_pte and the like) do not. The bench of
 * Debian's kernel is bench/paging.ts.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { IMAGES, type Image } from '../guests/reference/build.ts';
import { tuneEngine } from '../src/node/engine.ts';
import { type Cost, costOf, ITEMS, type Item, together } from './reference/measure.ts';
import { settingName, settingsOf } from './reference/settings.ts';
import { batchTable, type Costs, costTable } from './reference/tables.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    images: { type: 'string', default: IMAGES.join() },
    settings: { type: 'string', default: '' },
    write: { type: 'boolean', default: false },
  },
});
if (values.write && (values.images !== IMAGES.join() || values.settings !== '')) {
  throw new Error('--write replaces all tables: leave out --images and --settings');
}
const runs = Number(values.runs);
const beginnings = values.settings.split(',');
const items = Object.keys(ITEMS) as Item[];
const DOCUMENT = fileURLToPath(new URL('../docs/costs.md', import.meta.url));
/** What is behind this line of the document is the command's. */
const MARK = '<!-- What follows is written by bench/reference.ts. -->\n';

function imageNamed(name: string): Image {
  const image = IMAGES.find((known) => known === name);
  if (!image) throw new Error(`there is no image ${name}; give ${IMAGES.join(', ')}`);
  return image;
}

/** A cell's boots are far apart, so that what disturbs some leaves others alone. */
async function measure(image: Image): Promise<Costs> {
  const settings = settingsOf(image).filter((setting) =>
    beginnings.some((text) => settingName(setting).startsWith(text)),
  );
  const measured = settings.flatMap((setting) => items.map((item) => ({ setting, item, costs: [] as Cost[] })));
  for (let round = 0; round < runs; round++) {
    for (const { setting, item, costs } of measured) costs.push(await costOf(image, setting, item));
  }
  const costs = new Map<string, Partial<Record<Item, Cost>>>();
  for (const { setting, item, costs: each } of measured) {
    const name = settingName(setting);
    costs.set(name, { ...costs.get(name), [item]: together(each, `${name}: ${item}`) });
  }
  return costs as Costs;
}

function section(image: Image, costs: Costs): string {
  const batches = items.map((item) => batchTable(item, costs)).filter((table) => table !== '');
  const parts = [`## ${image}`, ...items.map((item) => costTable(item, costs))];
  if (batches.length > 0) parts.push(`### Batches of VMI's queue, ${image}`, ...batches);
  return `${parts.join('\n\n')}\n`;
}

tuneEngine();
let text = `\nTimes: Node ${process.version} on ${cpus()[0]?.model.trim()}, boots for each figure: ${runs}.\n`;
process.stdout.write(text);
for (const image of values.images.split(',').map(imageNamed)) {
  const part = `\n${section(image, await measure(image))}`;
  process.stdout.write(part);
  text += part;
}
if (values.write) {
  const [head, behind] = readFileSync(DOCUMENT, 'utf8').split(MARK);
  if (behind === undefined) throw new Error(`${DOCUMENT} has no line ${MARK.trim()}`);
  writeFileSync(DOCUMENT, `${head}${MARK}${text}`);
}
