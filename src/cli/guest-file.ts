import { InputError } from '../boot/input-error.ts';
import { chooseCell } from '../domain/cells.ts';
import { type GuestOptions, INTERFACES, MOST_VCPUS, parseDisk, parseInteger, parseName, parseSize } from './options.ts';

/** One guest of several. */
export interface GuestDescription extends GuestOptions {
  /** What its console's lines begin with. */
  readonly name: string;
}

type Value = string | readonly string[];

/** A string in quotes, a number, or a list of strings, as in xl.cfg(5). */
const STRING = /^"([^"]*)"$|^'([^']*)'$/;
const NAME = /^[\w.-]+$/;

const KEYS = ['name', 'type', 'interface', 'kernel', 'ramdisk', 'extra', 'memory', 'vcpus', 'disk'] as const;
type Key = (typeof KEYS)[number];

/** The types of xl that a kernel can be here. */
const TYPES: Readonly<Record<string, GuestOptions['interface']>> = { pv: 'xen' };

/**
 * Reads the description of a guest, in the words of xl.cfg(5): `KEY = VALUE` lines, `#` begins a comment.
 * @param defaults for what the file does not say
 * @throws InputError that names the file and the line
 */
export function parseGuestFile(path: string, text: string, defaults: GuestOptions): GuestDescription {
  const values = readValues(path, text);
  const string = (key: Key): string | undefined => {
    const value = values.get(key);
    if (typeof value === 'object') throw new InputError(`${path}: ${key} is one value, not a list`);
    return value;
  };
  const name = string('name');
  if (name === undefined) throw new InputError(`${path} has no name; add a line such as name = "guest1"`);
  if (!NAME.test(name))
    throw new InputError(`${path}: the name ${name} has other signs than letters, digits and . _ -`);
  const memory = string('memory');
  const vcpus = string('vcpus');
  const disks = values.get('disk');
  return {
    name,
    kernel: string('kernel') ?? defaults.kernel,
    initrd: string('ramdisk') ?? defaults.initrd,
    append: string('extra') ?? defaults.append,
    memory: memory === undefined ? defaults.memory : parseSize(`${path}: memory`, memory),
    vcpus: vcpus === undefined ? defaults.vcpus : parseInteger(`${path}: vcpus`, vcpus, 1, MOST_VCPUS),
    ...cellOf(path, string('type'), string('interface'), defaults),
    lguestEra: defaults.lguestEra,
    network: defaults.network,
    disks: disks === undefined ? defaults.disks : [disks].flat().map(parseDisk),
  };
}

function cellOf(path: string, type: string | undefined, name: string | undefined, defaults: GuestOptions) {
  if (name !== undefined) return chooseCell(parseName(`${path}: interface`, name, INTERFACES), undefined);
  if (type === undefined) return { interface: defaults.interface, paging: defaults.paging };
  const known = TYPES[type];
  if (known === undefined) throw new InputError(`${path}: type ${type} is none of ${Object.keys(TYPES).join(', ')}`);
  return chooseCell(known, undefined);
}

function readValues(path: string, text: string): ReadonlyMap<Key, Value> {
  const values = new Map<Key, Value>();
  for (const [index, line] of text.split('\n').entries()) {
    const statement = line.trim();
    if (statement === '' || statement.startsWith('#')) continue;
    const place = `${path}:${index + 1}`;
    const [, word = '', rest = ''] = /^(\w+)\s*=\s*(.*)$/.exec(statement) ?? [];
    const key = KEYS.find((candidate) => candidate === word);
    if (key === undefined) {
      throw new InputError(`${place}: "${word || statement}" is not understood; known are ${KEYS.join(', ')}`);
    }
    values.set(key, readValue(place, rest));
  }
  return values;
}

function readValue(place: string, text: string): Value {
  const list = /^\[(.*)\]$/.exec(text)?.[1];
  if (list === undefined) return readScalar(place, text);
  const items = list.match(/"[^"]*"|'[^']*'|[^,\s][^,]*/g) ?? [];
  return items.map((item) => readScalar(place, item.trim()));
}

function readScalar(place: string, text: string): string {
  const quoted = STRING.exec(text);
  if (quoted) return quoted[1] ?? quoted[2] ?? '';
  if (/^\d+$/.test(text)) return text;
  throw new InputError(`${place}: ${text} is neither a string in quotes nor a number`);
}
