import { once } from 'node:events';
import type { CreateHost, Disk, Host, NetworkAdapter, Outcome, VirtualMachine } from '../api.ts';
import { InputError } from '../boot/input-error.ts';
import { readInputFile, requireWritable } from '../node/files.ts';
import { collectGarbageSoon } from '../node/garbage.ts';
import { prepareGuest } from './guest-boot.ts';
import { type GuestDescription, parseGuestFile } from './guest-file.ts';
import { openNetwork } from './guest-network.ts';
import { LineSplitter } from './line-splitter.ts';
import type { RunOptions } from './options.ts';
import {
  closeHost,
  ExitStatus,
  HostFigures,
  type Interruption,
  LONGEST_INTERVAL,
  onSignals,
  openHost,
  warn,
  writeStatistics,
} from './session.ts';

/** One guest while it runs. */
interface RunningGuest {
  readonly description: GuestDescription;
  readonly adapters: readonly NetworkAdapter[];
  machine: VirtualMachine | undefined;
  outcome: Outcome;
  boots: number;
}

/**
 * Runs several guests in one host until all have ended. Consoles are kept apart by lines: what a guest prints comes out
 * as "NAME: line", and a line "NAME: text" on stdin is typed at its console.
 */
export async function runGuests(options: RunOptions, createHost: CreateHost): Promise<ExitStatus | number> {
  const started = performance.now();
  if (options.stats !== undefined) await requireWritable(options.stats, 'statistics');
  for (const option of ['trace', 'save', 'snapshot'] as const) {
    if (options[option] !== undefined) {
      throw new InputError(`--${option} is for one guest; run it without guest files`);
    }
  }
  const descriptions = await readDescriptions(options);
  const guestMemory = descriptions.reduce((sum, { memory }) => sum + memory, 0);
  const host = await openHost(options, guestMemory, createHost);
  const hostFigures = new HostFigures(host);
  const network = options.network ? openNetwork() : undefined;
  const guests = descriptions.map(
    (description, index): RunningGuest => ({
      description,
      adapters: network ? [network.adapter(index + 1)] : [],
      machine: undefined,
      outcome: { kind: 'stopped' },
      boots: 0,
    }),
  );

  let interruption: Interruption | undefined;
  const interrupt = (cause: Interruption): void => {
    interruption ??= cause;
    for (const { machine } of guests) machine?.stop();
  };
  const removeSignalHandlers = onSignals((number) => interrupt({ kind: 'signal', number }));
  const keepAlive = setInterval(() => {}, LONGEST_INTERVAL);
  const timer =
    options.timeoutSeconds === undefined
      ? undefined
      : setTimeout(() => interrupt({ kind: 'timeout' }), options.timeoutSeconds * 1000);
  const stopTyping = distributeInput(guests);
  try {
    await Promise.all(
      guests.map((guest) => runGuest(guest, host, hostFigures, options, () => interruption !== undefined)),
    );
  } finally {
    clearTimeout(timer);
    clearInterval(keepAlive);
    stopTyping();
    removeSignalHandlers();
    if (options.stats !== undefined) {
      await writeStatistics(options.stats, {
        seconds: (performance.now() - started) / 1000,
        host: hostFigures.latest,
        guests: guests.map(({ description, outcome, boots, machine }) => ({
          name: description.name,
          outcome: outcome.kind,
          ...(outcome.kind === 'crash' ? { reason: outcome.reason } : {}),
          boots,
          domain: machine?.statistics(),
        })),
      });
    }
    await closeHost(host);
    network?.gateway.close();
  }
  return report(guests, interruption, options);
}

async function readDescriptions(options: RunOptions): Promise<GuestDescription[]> {
  const descriptions: GuestDescription[] = [];
  for (const path of options.guestFiles) {
    const text = new TextDecoder().decode(await readInputFile(path, 'guest file'));
    const description = parseGuestFile(path, text, options);
    if (descriptions.some(({ name }) => name === description.name)) {
      throw new InputError(`two guests have the name ${description.name}; give each one of its own`);
    }
    descriptions.push(description);
  }
  return descriptions;
}

/** Boots a guest, again whenever it asks for a reboot. A guest that cannot be booted does not stop the others. */
async function runGuest(
  guest: RunningGuest,
  host: Host,
  hostFigures: HostFigures,
  options: RunOptions,
  isOver: () => boolean,
): Promise<void> {
  const { afterburn, check, deterministic } = options;
  const { description, adapters } = guest;
  const disks: Disk[] = [];
  try {
    const prepared = await prepareGuest({ ...description, afterburn, check, deterministic });
    disks.push(...prepared.disks);
    do {
      guest.machine = await host.boot({ ...prepared, adapters });
      if (options.stats !== undefined) hostFigures.takeAtEnd(guest.machine);
      void collectGarbageSoon();
      guest.boots++;
      if (isOver()) guest.machine.stop();
      [guest.outcome] = await Promise.all([guest.machine.done, printLines(guest.description.name, guest.machine)]);
    } while (guest.outcome.kind === 'reboot' && !isOver());
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    guest.outcome = { kind: 'crash', reason: error.message, report: '' };
  } finally {
    for (const disk of disks) await disk.close();
  }
}

async function printLines(name: string, machine: VirtualMachine): Promise<void> {
  const lines = new LineSplitter((line) => process.stdout.write(`${name}: ${line}\n`));
  const reader = machine.console.output.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    lines.push(value);
    if (process.stdout.writableNeedDrain) await Promise.race([once(process.stdout, 'drain'), machine.done]);
  }
  lines.end();
}

/** @returns what ends it */
function distributeInput(guests: readonly RunningGuest[]): () => void {
  const lines = new LineSplitter((line) => {
    const [, name, text = ''] = /^([\w.-]+): ?(.*)$/s.exec(line) ?? [];
    const guest = guests.find(({ description }) => description.name === name);
    if (guest) guest.machine?.console.write(new TextEncoder().encode(`${text}\n`));
    else warn(`no guest is meant by the line "${line}"; begin it with the guest's name and a colon`);
  });
  const receive = (bytes: Uint8Array) => lines.push(bytes);
  process.stdin.on('data', receive);
  process.stdin.on('error', () => {});
  return () => {
    process.stdin.off('data', receive);
    process.stdin.pause();
  };
}

/** The worst of all ends. */
function report(guests: readonly RunningGuest[], interruption: Interruption | undefined, options: RunOptions): number {
  let status = ExitStatus.success as number;
  for (const { description, outcome } of guests) {
    if (outcome.kind !== 'crash') continue;
    warn(`${description.name} crashed: ${outcome.reason}`);
    if (outcome.report !== '') process.stderr.write(`${outcome.report.trimEnd()}\n`);
    status = ExitStatus.crash;
  }
  if (status !== ExitStatus.success) return status;
  if (interruption?.kind === 'timeout') {
    warn(`stopped after ${options.timeoutSeconds} seconds (--timeout)`);
    return ExitStatus.timeout;
  }
  return interruption?.kind === 'signal' ? ExitStatus.signal + interruption.number : status;
}
