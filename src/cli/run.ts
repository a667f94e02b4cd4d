import { once } from 'node:events';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { initramfs, kernelModules, kernel as kernelRecipe } from '../../guests/recipes.ts';
import type { BootOptions, CreateHost, Disk, NetworkAdapter, Outcome, VirtualMachine } from '../api.ts';
import { InputError } from '../boot/input-error.ts';
import { OverlayStore } from '../devices/block/overlay-store.ts';
import { guestMac } from '../devices/network/ethernet.ts';
import { Gateway } from '../devices/network/gateway.ts';
import { EthernetSwitch } from '../devices/network/switch.ts';
import { regionsPerModule } from '../node/engine.ts';
import { FileStore } from '../node/file-store.ts';
import { fileErrorReason, readInputFile, requireWritable, writeFileAtomically } from '../node/files.ts';
import { NodeSockets } from '../node/sockets.ts';
import { Terminal } from '../node/terminal.ts';
import type { DiskOption, RunOptions } from './options.ts';

export const enum ExitStatus {
  success = 0,
  badInput = 1,
  crash = 2,
  timeout = 3,
  /** Plus the signal's number, as shells have it. */
  signal = 128,
}

/** Why a run ends before its guest does. */
type Interruption =
  | { readonly kind: 'left' }
  | { readonly kind: 'timeout' }
  | { readonly kind: 'signal'; readonly number: number };

const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;

/** Node's longest, in milliseconds. */
const LONGEST_INTERVAL = 2 ** 31 - 1;

/** Boots the guest, again whenever it asks for a reboot, with its console on stdin and stdout. */
export async function run(options: RunOptions, createHost: CreateHost): Promise<ExitStatus | number> {
  const started = performance.now();
  if (options.stats !== undefined) await requireWritable(options.stats, 'statistics');
  const disks = await openDisks(options.disks);
  const network = options.network ? openNetwork() : undefined;
  const bootOptions = { ...(await prepareBoot(options)), disks, adapters: network?.adapters ?? [] };
  const trace = options.trace === undefined ? undefined : openTrace(options.trace);
  const { jitThreshold } = options;
  const host = await createHost({
    memory: options.hostMemory,
    jit: { regionsPerModule: regionsPerModule(), ...(jitThreshold === undefined ? {} : { threshold: jitThreshold }) },
  });

  let machine: VirtualMachine | undefined;
  let interruption: Interruption | undefined;
  const interrupt = (cause: Interruption): void => {
    interruption ??= cause;
    machine?.stop();
  };
  const terminal = new Terminal({
    input: (bytes) => machine?.console.write(bytes),
    leave: () => interrupt({ kind: 'left' }),
  });
  const onResize = (): void => tellSize(machine);
  process.stdout.on('resize', onResize);
  const removeSignalHandlers = onSignals((number) => interrupt({ kind: 'signal', number }));
  // A guest that waits for nothing but input, on a stdin that has ended, gives Node nothing to wait for.
  const keepAlive = setInterval(() => {}, LONGEST_INTERVAL);
  const timer =
    options.timeoutSeconds === undefined
      ? undefined
      : setTimeout(() => interrupt({ kind: 'timeout' }), options.timeoutSeconds * 1000);

  let outcome: Outcome = { kind: 'stopped' };
  let boots = 0;
  try {
    do {
      machine = await host.boot(trace === undefined ? bootOptions : { ...bootOptions, trace: trace.write });
      if (boots++ === 0) terminal.open();
      tellSize(machine);
      // A signal may have come while the domain was built.
      if (interruption !== undefined) machine.stop();
      [outcome] = await Promise.all([machine.done, printConsole(machine, () => interrupt({ kind: 'left' }))]);
    } while (outcome.kind === 'reboot' && interruption === undefined);
  } finally {
    clearTimeout(timer);
    clearInterval(keepAlive);
    terminal.restore();
    process.stdout.off('resize', onResize);
    removeSignalHandlers();
    if (options.stats !== undefined && machine !== undefined) {
      const figures = {
        outcome: interruption === undefined ? outcome.kind : interruption.kind,
        ...(outcome.kind === 'crash' ? { reason: outcome.reason } : {}),
        seconds: (performance.now() - started) / 1000,
        boots,
        host: host.statistics(),
        domain: machine.statistics(),
      };
      await writeStatistics(options.stats, figures);
    }
    host.close();
    network?.gateway.close();
    for (const disk of disks) await disk.close();
    trace?.close();
  }
  return report(outcome, interruption, options);
}

async function openDisks(wanted: readonly DiskOption[]): Promise<Disk[]> {
  const disks: Disk[] = [];
  for (const { path, isReadOnly, isSnapshot } of wanted) {
    const file = await FileStore.open(path, { isReadOnly: isReadOnly || isSnapshot, report: warn });
    disks.push(isSnapshot ? new OverlayStore(file) : file);
  }
  return disks;
}

/** One adapter, which keeps its address when the guest is booted again. */
function openNetwork(): { readonly gateway: Gateway; readonly adapters: readonly NetworkAdapter[] } {
  const network = new EthernetSwitch();
  return { gateway: new Gateway(network, new NodeSockets()), adapters: [{ network, mac: guestMac(1) }] };
}

async function prepareBoot(options: RunOptions): Promise<BootOptions> {
  const kernel = await readInputFile(options.kernel ?? (await kernelRecipe('cloud-amd64')), 'kernel');
  const initrd =
    options.initrd === undefined ? await ownInitramfs(options) : await readInputFile(options.initrd, 'initrd');
  return {
    kernel,
    initrd,
    commandLine: commandLine(options),
    memory: options.memory,
    vcpus: options.vcpus,
    interface: options.interface,
    paging: options.paging,
    check: options.check,
    deterministic: options.deterministic,
  };
}

/** Xen's guests have no devices of virtio. */
async function ownInitramfs(options: RunOptions): Promise<Uint8Array> {
  return options.interface === 'xen' ? initramfs() : initramfs({ modules: await kernelModules('cloud-amd64') });
}

function commandLine(options: RunOptions): string {
  const words = [options.append];
  const isXen = options.interface === 'xen';
  // A machine has no way to report a panic but to restart at once; the domain looks where that came from. Without EFI a
  // kernel would restart a machine of this kind by its BIOS, and leave its stack before.
  if (!isXen && !/(^|\s)panic=/.test(options.append)) words.unshift('panic=-1');
  if (!isXen && !/(^|\s)reboot=/.test(options.append)) words.unshift('reboot=acpi');
  if (!/(^|\s)console=/.test(options.append)) words.unshift(isXen ? 'console=hvc0' : 'console=ttyS0');
  // A guest's console cannot ask for the terminal's size; our own initramfs takes it from here.
  const { columns, rows, isTTY } = process.stdout;
  if (options.initrd === undefined && !options.deterministic && isTTY && columns > 0 && rows > 0) {
    words.push(`ring1.size=${columns}x${rows}`);
  }
  return words.filter((word) => word !== '').join(' ');
}

function tellSize(machine: VirtualMachine | undefined): void {
  const { columns, rows, isTTY } = process.stdout;
  if (isTTY && columns > 0 && rows > 0) machine?.console.resize(columns, rows);
}

/** Copies the guest's output to stdout until it ends. @param closed called when nobody reads stdout any more. */
async function printConsole(machine: VirtualMachine, closed: () => void): Promise<void> {
  const reader = machine.console.output.getReader();
  let isClosed = false;
  const onError = (): void => {
    isClosed = true;
    closed();
  };
  process.stdout.on('error', onError);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      if (!isClosed && !process.stdout.write(value)) await Promise.race([once(process.stdout, 'drain'), machine.done]);
    }
  } catch (error) {
    if (!isClosed) throw error;
  } finally {
    process.stdout.off('error', onError);
  }
}

function onSignals(handle: (number: number) => void): () => void {
  const handlers = Object.entries(SIGNALS).map(([name, number]) => [name, () => handle(number)] as const);
  for (const [name, handler] of handlers) process.on(name, handler);
  return () => {
    for (const [name, handler] of handlers) process.off(name, handler);
  };
}

interface Trace {
  readonly write: (text: string) => void;
  close(): void;
}

/** Writes at once, while the guest waits: a trace can come faster than a disk takes it, and must not pile up in memory. */
function openTrace(path: string): Trace {
  let file: number;
  try {
    file = openSync(path, 'w');
  } catch (error) {
    throw new InputError(`cannot write the trace ${path}: ${fileErrorReason(error)}`);
  }
  let failure: unknown;
  return {
    write: (text) => {
      if (failure !== undefined) return;
      try {
        writeFileSync(file, text);
      } catch (error) {
        failure = error;
      }
    },
    close: () => {
      closeSync(file);
      if (failure !== undefined) warn(`cannot write the trace ${path}: ${fileErrorReason(failure)}`);
    },
  };
}

async function writeStatistics(path: string, figures: object): Promise<void> {
  try {
    await writeFileAtomically(path, `${JSON.stringify(figures, undefined, 2)}\n`);
  } catch (error) {
    warn(`cannot write the statistics ${path}: ${fileErrorReason(error)}`);
  }
}

function report(outcome: Outcome, interruption: Interruption | undefined, options: RunOptions): number {
  if (outcome.kind === 'crash') {
    warn(`the guest crashed: ${outcome.reason}`);
    process.stderr.write(outcome.report === '' ? '' : `${outcome.report.trimEnd()}\n`);
    return ExitStatus.crash;
  }
  switch (interruption?.kind) {
    case 'timeout':
      warn(`stopped after ${options.timeoutSeconds} seconds (--timeout)`);
      return ExitStatus.timeout;
    case 'signal':
      return ExitStatus.signal + interruption.number;
    default:
      return ExitStatus.success;
  }
}

function warn(line: string): void {
  process.stderr.write(`ring1: ${line}\n`);
}
