import { unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CreateHost, Host, VirtualMachine } from '../api.ts';
import { InputError } from '../boot/input-error.ts';
import { jitForEngine } from '../node/engine.ts';
import { fileErrorReason, writeFileAtomically } from '../node/files.ts';
import { collectGarbageSoon } from '../node/garbage.ts';
import { createSwapFile } from '../node/swap-file.ts';
import type { RunOptions } from './options.ts';

/** What runs of one guest and of several have in common. */
export const enum ExitStatus {
  success = 0,
  badInput = 1,
  crash = 2,
  timeout = 3,
  /** Plus the signal's number, as shells have it. */
  signal = 128,
}

/** Why a run ends before its guests do. */
export type Interruption =
  | { readonly kind: 'left' }
  | { readonly kind: 'timeout' }
  | { readonly kind: 'signal'; readonly number: number };

const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;

/** Node's longest, in milliseconds. */
export const LONGEST_INTERVAL = 2 ** 31 - 1;

/** Slots beyond the guests' own pages, for what a balloon brings. */
const SPARE_SWAP = 16 << 20;

/** What the host of a run is made of. */
type HostWishes = Pick<RunOptions, 'jitThreshold' | 'check' | 'hostMemory' | 'swap'>;

/**
 * @param guestMemory bytes that all guests have together; what does not fit into the host's memory goes to swap
 * @param guests at a time
 */
export async function openHost(
  options: HostWishes,
  guestMemory: number,
  createHost: CreateHost,
  guests = 1,
): Promise<Host> {
  const { jitThreshold, check } = options;
  const memory = options.hostMemory ?? guestMemory;
  const swaps = options.swap !== undefined || memory < guestMemory;
  return createHost({
    memory,
    guests,
    jit: jitThreshold === 0 ? { threshold: 0 } : jitOptions(jitThreshold),
    check,
    ...(swaps ? { swap: await openSwap(options.swap, guestMemory + SPARE_SWAP) } : {}),
  });
}

/**
 * Closes a host at the end of the command. The engine may have code of its guests in work for another minute, and Node waits
 * for that; what is garbage is given up instead.
 */
export async function closeHost(host: Host): Promise<void> {
  await host.close();
  await collectGarbageSoon();
}

const jitOptions = (threshold: number | undefined) => ({
  // Beside the bundle of the command.
  ...jitForEngine(new URL('./jit-worker.js', import.meta.url)),
  onGathered: () => void collectGarbageSoon(),
  ...(threshold === undefined ? {} : { threshold }),
});

async function openSwap(wanted: string | undefined, bytes: number) {
  const path = wanted ?? join(tmpdir(), `ring1-swap-${process.pid}`);
  try {
    const store = await createSwapFile(path, bytes);
    // A file without a name goes with the process, however that ends.
    if (wanted === undefined) await unlink(path);
    return store;
  } catch (error) {
    throw new InputError(`cannot make the swap file ${path}: ${fileErrorReason(error)}`);
  }
}

export function onSignals(handle: (number: number) => void): () => void {
  const handlers = Object.entries(SIGNALS).map(([name, number]) => [name, () => handle(number)] as const);
  for (const [name, handler] of handlers) process.on(name, handler);
  return () => {
    for (const [name, handler] of handlers) process.off(name, handler);
  };
}

/**
 * The host's statistics as they were when a guest ended last: its memory is given back afterwards, and with it the code
 * that was made of it.
 */
export class HostFigures {
  readonly #host: Host;
  #atEnd: object | undefined;

  constructor(host: Host) {
    this.#host = host;
  }

  /** To be called when the guest has been made. */
  takeAtEnd({ done }: VirtualMachine): void {
    void done.then(() => {
      this.#atEnd = this.#host.statistics();
    });
  }

  get latest(): object {
    return this.#atEnd ?? this.#host.statistics();
  }
}

export function writeStatistics(path: string, figures: object): Promise<void> {
  return writeResult(path, 'statistics', `${JSON.stringify(figures, undefined, 2)}\n`);
}

/** What a run ends with must not be lost to a file that cannot be written. @param what for the warning */
export async function writeResult(path: string, what: string, text: string): Promise<void> {
  try {
    await writeFileAtomically(path, text);
  } catch (error) {
    warn(`cannot write the ${what} ${path}: ${fileErrorReason(error)}`);
  }
}

export function warn(line: string): void {
  process.stderr.write(`ring1: ${line}\n`);
}
