import { KERNEL_FLAVOURS, type KernelFlavour } from '../../guests/recipes.ts';
import { InputError } from '../../src/boot/input-error.ts';
import { parseOptions } from '../benchmark.ts';
import { BOOT, COLD, ITEMS } from './items.ts';
import type { ClockName, Peer } from './session.ts';
import { parseRuns } from './turns.ts';

/** What bench/peers.ts is asked for, checked. */
export interface PeersOptions {
  readonly runs: number;
  /** Names of what is measured besides the boot, in order. */
  readonly items: readonly string[];
  readonly isCold: boolean;
  /** Parts of peers' names; without them all are meant. */
  readonly peers: readonly string[] | undefined;
  readonly flavour: KernelFlavour;
  readonly node: string;
  readonly clock: ClockName;
  readonly v86: string | undefined;
  readonly json: string | undefined;
  readonly ring1Options: readonly string[];
}

/** @throws InputError */
export function parsePeersOptions(args: readonly string[]): PeersOptions {
  const { values, ring1Options } = parseOptions(args, {
    runs: { type: 'string', default: '3' },
    only: { type: 'string' },
    cold: { type: 'boolean', default: false },
    peers: { type: 'string' },
    flavour: { type: 'string', default: 'cloud-amd64' },
    node: { type: 'string', default: process.execPath },
    clock: { type: 'string', default: 'wall' },
    v86: { type: 'string' },
    json: { type: 'string' },
  });
  if (values.cold && values.only !== undefined) throw new InputError('--cold has no items: leave out --only');
  return {
    runs: parseRuns(values.runs),
    items: values.cold ? [COLD.name] : chooseItems(values.only),
    isCold: values.cold,
    peers: values.peers?.split(','),
    flavour: oneOf('--flavour', KERNEL_FLAVOURS, values.flavour),
    node: values.node,
    clock: oneOf('--clock', ['wall', 'cpu'], values.clock),
    v86: values.v86,
    json: values.json,
    ring1Options,
  };
}

function chooseItems(list: string | undefined): string[] {
  const known = [BOOT, ...ITEMS.map(({ name }) => name)];
  const wanted = (list?.split(',') ?? known).map((name) => oneOf('--only', known, name));
  return known.filter((name) => name !== BOOT && wanted.includes(name));
}

/** @throws InputError when what an option is given is none of those */
function oneOf<Name extends string>(option: string, names: readonly Name[], given: string): Name {
  const name = names.find((candidate) => candidate === given);
  if (name === undefined) throw new InputError(`${option} knows no "${given}"; give ${names.join(', ')}`);
  return name;
}

/**
 * The peers whose names contain one of the words.
 * @param missing why there are no others
 * @throws InputError when a word is in none
 */
export function choosePeers(peers: readonly Peer[], words: readonly string[], missing: readonly string[]): Peer[] {
  const unknown = words.find((word) => word === '' || !peers.some(({ name }) => name.includes(word)));
  if (unknown !== undefined) {
    const present = peers.map(({ name }) => name).join(', ');
    throw new InputError([`--peers knows no "${unknown}"; there are ${present}`, ...missing].join('; '));
  }
  return peers.filter(({ name }) => words.some((word) => name.includes(word)));
}
