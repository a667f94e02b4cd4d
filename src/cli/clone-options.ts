import type { ParseArgsConfig } from 'node:util';
import { InputError } from '../boot/input-error.ts';
import { parseInteger, parseSize, parseTimeout, parseWords } from './options.ts';

/** The options of `ring1 clone`. */
export interface CloneOptions {
  readonly snapshot: string;
  readonly count: number;
  /** What is typed at the shell of each clone. */
  readonly each: string;
  /** Files of the disks that the guest had, in order. */
  readonly disks: readonly string[];
  /** Whether it had a network adapter. */
  readonly network: boolean;
  readonly hostMemory: number | undefined;
  readonly swap: string | undefined;
  readonly timeoutSeconds: number | undefined;
  readonly jitThreshold: number | undefined;
}

/** Far more than there is memory for. */
const MOST_CLONES = 10_000;
const MOST_EXECUTIONS = 0x7fff_ffff;

const PARSE = {
  count: { type: 'string' },
  each: { type: 'string' },
  disk: { type: 'string', multiple: true },
  network: { type: 'boolean' },
  'host-memory': { type: 'string' },
  swap: { type: 'string' },
  timeout: { type: 'string' },
  'jit-threshold': { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const satisfies ParseArgsConfig['options'];

/** @returns 'help' if that is asked for */
export function parseCloneOptions(args: readonly string[]): CloneOptions | 'help' {
  const { values, positionals } = parseWords('clone', PARSE, args);
  if (values.help) return 'help';
  const [snapshot, ...others] = positionals;
  if (snapshot === undefined || others.length > 0) {
    throw new InputError('a clone is made of one snapshot; see "ring1 help clone"');
  }
  if (values.each === undefined) throw new InputError('--each is missing: what is each clone to do?');
  const threshold = values['jit-threshold'];
  return {
    snapshot,
    count: parseInteger('--count', values.count ?? '1', 1, MOST_CLONES),
    each: values.each,
    disks: values.disk ?? [],
    network: values.network ?? false,
    hostMemory: values['host-memory'] === undefined ? undefined : parseSize('--host-memory', values['host-memory']),
    swap: values.swap,
    timeoutSeconds: values.timeout === undefined ? undefined : parseTimeout(values.timeout),
    jitThreshold: threshold === undefined ? undefined : parseInteger('--jit-threshold', threshold, 0, MOST_EXECUTIONS),
  };
}
