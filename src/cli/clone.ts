import type { CreateHost, Disk, Host, VirtualMachine } from '../api.ts';
import { OverlayStore } from '../devices/block/overlay-store.ts';
import { FileStore } from '../node/file-store.ts';
import type { Snapshot } from '../snapshot/snapshot.ts';
import { catchesUp } from './catching-up.ts';
import type { CloneOptions } from './clone-options.ts';
import { openNetwork } from './guest-network.ts';
import { LARGEST_MEMORY } from './options.ts';
import { openSavedGuest } from './saved-guest.ts';
import { closeHost, ExitStatus, type Interruption, LONGEST_INTERVAL, onSignals, openHost, warn } from './session.ts';
import { ShellCommand } from './shell-command.ts';

/** Memory for what each clone changes; what does not fit goes to swap. */
const CLONE_MEMORY = 8 << 20;
/** Clones that are at work at the same time: more would only wait for each other. */
const AT_ONCE = 8;

/** Milliseconds that a command waits for the date of its copy to be right. */
const LONGEST_CATCHING_UP = 10_000;

/** Lets copies of a saved guest carry out a command each, and prints what they answer. */
export async function clone(options: CloneOptions, createHost: CreateHost): Promise<ExitStatus | number> {
  const { file, snapshot } = await openSavedGuest(options.snapshot);
  const disks = await openDisks(options.disks);
  const { memory, paging } = snapshot.guest;
  // With native paging each has a copy of all memory.
  const isCopied = paging === 'native';
  const guests = Math.min(options.count, AT_ONCE, isCopied ? Math.floor(LARGEST_MEMORY / memory) : AT_ONCE);
  const enough = isCopied ? memory * guests : memory + guests * CLONE_MEMORY;
  const host = await openHost(
    { ...options, check: false, hostMemory: options.hostMemory ?? enough },
    memory * guests,
    createHost,
    guests,
  );
  const running = new Set<VirtualMachine>();
  let interruption: Interruption | undefined;
  const interrupt = (cause: Interruption): void => {
    interruption ??= cause;
    for (const machine of running) machine.stop();
  };
  const removeSignalHandlers = onSignals((number) => interrupt({ kind: 'signal', number }));
  const keepAlive = setInterval(() => {}, LONGEST_INTERVAL);
  const { timeoutSeconds } = options;
  const timer =
    timeoutSeconds === undefined ? undefined : setTimeout(() => interrupt({ kind: 'timeout' }), timeoutSeconds * 1000);
  let next = 1;
  let failures = 0;
  const work = async (): Promise<void> => {
    while (next <= options.count && interruption === undefined) {
      const number = next++;
      if (!(await runClone(number, { ...options, disks }, host, snapshot, running))) failures++;
    }
  };
  try {
    await Promise.all(Array.from({ length: guests }, work));
  } finally {
    clearTimeout(timer);
    clearInterval(keepAlive);
    removeSignalHandlers();
    await closeHost(host);
    for (const disk of disks) await disk.close();
    await file.close();
  }
  if (interruption?.kind === 'signal') return ExitStatus.signal + interruption.number;
  if (interruption?.kind === 'timeout') {
    warn(`stopped after ${timeoutSeconds} seconds (--timeout)`);
    return ExitStatus.timeout;
  }
  return failures === 0 ? ExitStatus.success : ExitStatus.badInput;
}

/** The clones' disks, which none of them writes to. */
async function openDisks(paths: readonly string[]): Promise<Disk[]> {
  const disks: Disk[] = [];
  for (const path of paths) disks.push(await FileStore.open(path, { isReadOnly: true, report: warn }));
  return disks;
}

/** @returns whether the command ended with status 0 */
async function runClone(
  number: number,
  { each, disks, network: hasNetwork }: Pick<CloneOptions, 'each' | 'network'> & { readonly disks: readonly Disk[] },
  host: Host,
  snapshot: Snapshot,
  running: Set<VirtualMachine>,
): Promise<boolean> {
  // All have the same address, so each is alone in its network.
  const network = hasNetwork ? openNetwork() : undefined;
  const machine = await host.resume(snapshot, {
    fresh: true,
    disks: disks.map((disk) => new OverlayStore(disk)),
    adapters: network ? [network.adapter(1)] : [],
  });
  running.add(machine);
  const command = each.replaceAll('{}', String(number));
  const shell = new ShellCommand(`RING1_CLONE=${number}; ${command}`, (line) => {
    process.stdout.write(`${number}: ${line}\n`);
  });
  if (!(await catchesUp(machine, LONGEST_CATCHING_UP))) {
    warn(`the date of clone ${number} is ${Math.ceil(machine.behind / 1000)} seconds behind`);
  }
  machine.console.write(new TextEncoder().encode(shell.line));
  const reader = machine.console.output.getReader();
  while (shell.status === undefined) {
    const { done, value } = await reader.read();
    if (done) break;
    shell.feed(value);
  }
  running.delete(machine);
  const { status } = shell;
  machine.stop();
  const outcome = await machine.done;
  network?.gateway.close();
  if (status === undefined) {
    const reason = outcome.kind === 'crash' ? `it crashed: ${outcome.reason}` : outcome.kind;
    warn(`clone ${number} ended before its command did: ${reason}`);
  } else if (status !== 0) {
    warn(`the command of clone ${number} ended with status ${status}`);
  }
  return status === 0;
}
