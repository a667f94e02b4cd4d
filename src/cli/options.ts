import { type ParseArgsConfig, parseArgs } from 'node:util';
import type { InterfaceName, LguestEra, PagingName } from '../api.ts';
import { InputError } from '../boot/input-error.ts';
import { chooseCell } from '../domain/cells.ts';

/** A disk in a raw file. */
export interface DiskOption {
  readonly path: string;
  readonly isReadOnly: boolean;
  /** What the guest writes is kept in memory and lost at the end. */
  readonly isSnapshot: boolean;
}

/** What is said of one guest, checked. Sizes are bytes. */
export interface GuestOptions {
  readonly kernel: string | undefined;
  readonly initrd: string | undefined;
  readonly append: string;
  readonly memory: number;
  readonly vcpus: number;
  readonly interface: InterfaceName;
  readonly paging: PagingName;
  /** How a kernel speaks to lguest, where its file does not tell. */
  readonly lguestEra: LguestEra | undefined;
  readonly disks: readonly DiskOption[];
  /** An adapter in a network that leads to the world. */
  readonly network: boolean;
}

/** The options of `ring1 run`; what they say of a guest holds for all guests whose files say nothing else. */
export interface RunOptions extends GuestOptions {
  /** Files that describe guests; none for the one guest that the options describe. */
  readonly guestFiles: readonly string[];
  /** Memory for all guests; what they need without it. */
  readonly hostMemory: number | undefined;
  /** File for pages that have no room in memory. */
  readonly swap: string | undefined;
  readonly timeoutSeconds: number | undefined;
  /** File that the guest is saved to when its user asks. */
  readonly save: string | undefined;
  /** File that the guest goes on from, in place of a boot. */
  readonly snapshot: string | undefined;
  readonly stats: string | undefined;
  readonly trace: string | undefined;
  /** Kernels' call sites are patched for the interface before they run. */
  readonly afterburn: boolean;
  readonly check: boolean;
  readonly deterministic: boolean;
  /** Executions before code is compiled. */
  readonly jitThreshold: number | undefined;
  /** Where the guest's time goes is found out. */
  readonly profile: ProfileOptions | undefined;
  /** What touches live page tables is found out. */
  readonly audit: ListOptions | undefined;
}

/** How a list of findings is shown. */
export interface ListOptions {
  /** Lines of each list. */
  readonly top: number;
  /** File for it; stderr when there is none. */
  readonly output: string | undefined;
}

/** What `ring1 profile` takes besides. */
export interface ProfileOptions extends ListOptions {
  /** What the guest prints before the profile begins. */
  readonly after: string | undefined;
}

export const INTERFACES: readonly InterfaceName[] = ['xen', 'kvm', 'native', 'vmi', 'lguest'];
const LGUEST_ERAS: readonly LguestEra[] = ['L1', 'L2', 'L3'];
const PAGINGS: readonly PagingName[] = ['direct', 'shadow', 'translated', 'nested', 'native'];

const MIB = 1024 * 1024;
/** A WebAssembly memory ends at 4 GiB, and the host keeps its own structures in the same one. */
export const LARGEST_MEMORY = 3584 * MIB;
/** vcpu_info blocks in Xen's shared_info page. */
export const MOST_VCPUS = 32;
/** More than a kernel has symbols. */
const MOST_LINES = 1_000_000;
/** The counter of executions is a signed word. */
const MOST_EXECUTIONS = 0x7fff_ffff;
/** Longest delay of a timer in Node, 2^31 − 1 ms. */
const LONGEST_TIMEOUT_SECONDS = 2_147_483;

const PARSE = {
  kernel: { type: 'string' },
  initrd: { type: 'string' },
  append: { type: 'string' },
  memory: { type: 'string' },
  vcpus: { type: 'string' },
  interface: { type: 'string' },
  paging: { type: 'string' },
  'lguest-era': { type: 'string' },
  afterburn: { type: 'boolean' },
  'host-memory': { type: 'string' },
  swap: { type: 'string' },
  disk: { type: 'string', multiple: true },
  network: { type: 'boolean' },
  save: { type: 'string' },
  snapshot: { type: 'string' },
  timeout: { type: 'string' },
  stats: { type: 'string' },
  trace: { type: 'string' },
  check: { type: 'boolean' },
  deterministic: { type: 'boolean' },
  'jit-threshold': { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const satisfies ParseArgsConfig['options'];

const PARSE_AUDIT = {
  ...PARSE,
  top: { type: 'string' },
  output: { type: 'string' },
} as const satisfies ParseArgsConfig['options'];

const PARSE_PROFILE = {
  ...PARSE_AUDIT,
  after: { type: 'string' },
} as const satisfies ParseArgsConfig['options'];

/** @returns 'help' if that is asked for. */
export function parseRunOptions(args: readonly string[]): RunOptions | 'help' {
  const { values, positionals } = parseWords('run', PARSE, args);
  return values.help ? 'help' : runOptions(values, positionals, {});
}

/** The options of `ring1 profile`: those of `ring1 run`, and how the profile is shown. */
export function parseProfileOptions(args: readonly string[]): RunOptions | 'help' {
  const { values, positionals } = parseWords('profile', PARSE_PROFILE, args);
  if (values.help) return 'help';
  if (positionals.length > 0) {
    throw new InputError(`a profile is of one guest; describe it with options and not by ${positionals.join(', ')}`);
  }
  return runOptions(values, [], { profile: { after: values.after, ...listOptions(values) } });
}

/** The options of `ring1 audit`: those of `ring1 run`, and how the audit is shown. */
export function parseAuditOptions(args: readonly string[]): RunOptions | 'help' {
  const { values, positionals } = parseWords('audit', PARSE_AUDIT, args);
  if (values.help) return 'help';
  if (positionals.length > 0) {
    throw new InputError(`an audit is of one guest; describe it with options and not by ${positionals.join(', ')}`);
  }
  return runOptions(values, [], { audit: listOptions(values) });
}

function listOptions({ output, top = '25' }: Words<typeof PARSE_AUDIT>['values']): ListOptions {
  return { output, top: parseInteger('--top', top, 1, MOST_LINES) };
}

/** What a snapshot says of its guest. */
const SAVED_OPTIONS = [
  'kernel',
  'initrd',
  'append',
  'memory',
  'vcpus',
  'interface',
  'paging',
  'lguest-era',
  'afterburn',
  'check',
  'deterministic',
] as const satisfies (keyof typeof PARSE)[];

function runOptions(
  values: Words<typeof PARSE>['values'],
  guestFiles: readonly string[],
  { profile, audit }: Partial<Pick<RunOptions, 'profile' | 'audit'>>,
): RunOptions {
  const said = values.snapshot === undefined ? undefined : SAVED_OPTIONS.find((name) => values[name] !== undefined);
  if (values['lguest-era'] !== undefined && values.interface !== 'lguest' && guestFiles.length === 0) {
    throw new InputError('--lguest-era is for --interface lguest');
  }
  if (said !== undefined) throw new InputError(`--${said} does not go with --snapshot, which says all of its guest`);
  return {
    kernel: values.kernel,
    initrd: values.initrd,
    append: values.append ?? '',
    memory: parseSize('--memory', values.memory ?? '256M'),
    vcpus: parseInteger('--vcpus', values.vcpus ?? '1', 1, MOST_VCPUS),
    ...chooseCell(
      values.interface === undefined ? undefined : parseName('--interface', values.interface, INTERFACES),
      values.paging === undefined ? undefined : parseName('--paging', values.paging, PAGINGS),
    ),
    lguestEra: parseEra(values['lguest-era']),
    afterburn: values.afterburn ?? false,
    disks: (values.disk ?? []).map(parseDisk),
    network: values.network ?? false,
    guestFiles,
    hostMemory: values['host-memory'] === undefined ? undefined : parseSize('--host-memory', values['host-memory']),
    swap: values.swap,
    save: values.save,
    snapshot: values.snapshot,
    timeoutSeconds: values.timeout === undefined ? undefined : parseTimeout(values.timeout),
    stats: values.stats,
    trace: values.trace,
    check: values.check ?? false,
    deterministic: values.deterministic ?? false,
    jitThreshold:
      values['jit-threshold'] === undefined
        ? undefined
        : parseInteger('--jit-threshold', values['jit-threshold'], 0, MOST_EXECUTIONS),
    profile,
    audit,
  };
}

function parseEra(text: string | undefined): LguestEra | undefined {
  return text === undefined ? undefined : parseName('--lguest-era', text, LGUEST_ERAS);
}

export type OptionsConfig = NonNullable<ParseArgsConfig['options']>;
export type Words<Options extends OptionsConfig> = ReturnType<
  typeof parseArgs<{ args: string[]; options: Options; strict: true; allowPositionals: true }>
>;

/** @param command whose help a message names */
export function parseWords<Options extends OptionsConfig>(
  command: string,
  options: Options,
  args: readonly string[],
): Words<Options> {
  const words = parseStrictly(command, options, args);
  for (const [option, value] of Object.entries(words.values)) {
    if (value === '' && option !== 'append') throw new InputError(`--${option} is empty; see "ring1 help ${command}"`);
  }
  return words;
}

function parseStrictly<Options extends OptionsConfig>(
  command: string,
  options: Options,
  args: readonly string[],
): Words<Options> {
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: true });
  } catch (error) {
    // Node's messages are a sentence about the option, then advice about positional arguments.
    const [sentence = ''] = (error as Error).message.replace(/\.$/, '').split(/\. |\n/);
    const [, option] = /^Option '(?:-\w, )?(--[\w-]+)' argument is ambiguous/.exec(sentence) ?? [];
    if (option !== undefined) {
      throw new InputError(`${option} has no value; one that begins with a dash is written ${option}=VALUE`);
    }
    throw new InputError(`${sentence.charAt(0).toLowerCase()}${sentence.slice(1)}; see "ring1 help ${command}"`);
  }
}

/** "256M", "1G", "65536K"; a plain number is in MiB, as for qemu and xl. Multiples of 4 KiB. */
export function parseSize(option: string, text: string): number {
  const match = /^(\d+)\s*(?:([kmg])(?:i?b)?)?$/i.exec(text);
  const unit = { k: 1024, m: MIB, g: 1024 * MIB }[match?.[2]?.toLowerCase() ?? 'm'];
  if (match === null || unit === undefined) {
    throw new InputError(`${option} ${text} is not a size; give one as in 256M or 1G`);
  }
  const size = Number(match[1]) * unit;
  if (size === 0 || size % 4096 !== 0) throw new InputError(`${option} ${text} is not a multiple of 4K above 0`);
  if (size > LARGEST_MEMORY) {
    throw new InputError(`${option} ${text} is too much; the most that ring1 can give is ${LARGEST_MEMORY / MIB}M`);
  }
  return size;
}

/** "FILE", "FILE,readonly", "FILE,snapshot": the words are QEMU's. Other commas belong to the name. */
export function parseDisk(text: string): DiskOption {
  const [, path = '', mode] = /^(.*?)(?:,(readonly|snapshot))?$/s.exec(text) ?? [];
  if (path === '') throw new InputError(`--disk ${text} names no file`);
  return { path, isReadOnly: mode === 'readonly', isSnapshot: mode === 'snapshot' };
}

export function parseInteger(option: string, text: string, least: number, most: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most)) {
    throw new InputError(`${option} ${text} is not a number from ${least} to ${most}`);
  }
  return value;
}

export function parseTimeout(text: string): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (!(value > 0 && value <= LONGEST_TIMEOUT_SECONDS)) {
    throw new InputError(`--timeout ${text} is not a number of seconds from 0.001 to ${LONGEST_TIMEOUT_SECONDS}`);
  }
  return value;
}

export function parseName<Name extends string>(option: string, text: string, names: readonly Name[]): Name {
  const name = names.find((candidate) => candidate === text);
  if (name === undefined) throw new InputError(`${option} ${text} does not exist; give one of ${names.join(', ')}`);
  return name;
}
