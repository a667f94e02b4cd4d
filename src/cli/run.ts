import { once } from 'node:events';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import type { CreateHost, Outcome, VirtualMachine } from '../api.ts';
import { InputError } from '../boot/input-error.ts';
import type { Profile } from '../inspect/profile.ts';
import { fileErrorReason, requireWritable } from '../node/files.ts';
import { collectGarbageSoon } from '../node/garbage.ts';
import { Terminal } from '../node/terminal.ts';
import { auditText } from './audit-text.ts';
import { prepareGuest, prepareSavedGuest } from './guest-boot.ts';
import { openNetwork } from './guest-network.ts';
import { GuestSave } from './guest-save.ts';
import type { ProfileOptions, RunOptions } from './options.ts';
import { OutputWatch } from './output-watch.ts';
import { profileText } from './profile-text.ts';
import { openSavedGuest } from './saved-guest.ts';
import {
  closeHost,
  ExitStatus,
  HostFigures,
  type Interruption,
  LONGEST_INTERVAL,
  onSignals,
  openHost,
  warn,
  writeResult,
  writeStatistics,
} from './session.ts';

/** Boots the guest, again whenever it asks for a reboot, with its console on stdin and stdout. */
export async function run(options: RunOptions, createHost: CreateHost): Promise<ExitStatus | number> {
  const started = performance.now();
  if (options.stats !== undefined) await requireWritable(options.stats, 'statistics');
  if (options.profile?.output !== undefined) await requireWritable(options.profile.output, 'profile');
  if (options.audit?.output !== undefined) await requireWritable(options.audit.output, 'audit');
  if (options.save !== undefined) await requireWritable(options.save, 'snapshot');
  const saved = options.snapshot === undefined ? undefined : await openSavedGuest(options.snapshot);
  const snapshot = saved?.snapshot;
  const network = options.network ? openNetwork() : undefined;
  const bootOptions = {
    ...(snapshot ? await prepareSavedGuest(snapshot, options) : await prepareGuest(options)),
    adapters: network ? [network.adapter(1)] : [],
    profile: options.profile !== undefined,
    audit: options.audit !== undefined,
  };
  const trace = options.trace === undefined ? undefined : openTrace(options.trace);
  const host = await openHost(options, bootOptions.memory, createHost);

  let machine: VirtualMachine | undefined;
  let interruption: Interruption | undefined;
  const interrupt = (cause: Interruption): void => {
    interruption ??= cause;
    machine?.stop();
  };
  const after = options.profile?.after;
  const watch = after === undefined ? undefined : new OutputWatch(after, () => machine?.restartProfile());
  const save = options.save === undefined ? undefined : new GuestSave(options.save, () => machine);
  const requestSave = (): void => save?.request();
  const terminal = new Terminal({
    input: (bytes) => machine?.console.write(bytes),
    leave: () => interrupt({ kind: 'left' }),
    ...(save ? { commands: { s: requestSave } } : {}),
  });
  if (save) process.on('SIGUSR2', requestSave);
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
  const hostFigures = new HostFigures(host);
  try {
    do {
      const traced = trace === undefined ? bootOptions : { ...bootOptions, trace: trace.write };
      machine = snapshot && boots === 0 ? await host.resume(snapshot, traced) : await host.boot(traced);
      if (options.stats !== undefined) hostFigures.takeAtEnd(machine);
      void collectGarbageSoon();
      if (boots++ === 0) terminal.open();
      tellSize(machine);
      // A signal may have come while the domain was built.
      if (interruption !== undefined) machine.stop();
      [outcome] = await Promise.all([machine.done, printConsole(machine, watch, () => interrupt({ kind: 'left' }))]);
    } while (outcome.kind === 'reboot' && interruption === undefined);
  } finally {
    clearTimeout(timer);
    clearInterval(keepAlive);
    terminal.restore();
    process.off('SIGUSR2', requestSave);
    await save?.finish();
    process.stdout.off('resize', onResize);
    removeSignalHandlers();
    const profile = machine?.profile();
    const audit = machine?.audit();
    if (options.stats !== undefined && machine !== undefined) {
      const figures = {
        outcome: interruption === undefined ? outcome.kind : interruption.kind,
        ...(outcome.kind === 'crash' ? { reason: outcome.reason } : {}),
        seconds: (performance.now() - started) / 1000,
        boots,
        host: hostFigures.latest,
        domain: machine.statistics(),
        ...(profile ? { profile } : {}),
        ...(audit ? { audit } : {}),
      };
      await writeStatistics(options.stats, figures);
    }
    if (profile && options.profile) await showProfile(profile, options.profile, watch);
    if (audit && options.audit) await showList('audit', auditText(audit, options.audit.top), options.audit.output);
    await closeHost(host);
    network?.gateway.close();
    for (const disk of bootOptions.disks) await disk.close();
    await saved?.file.close();
    trace?.close();
  }
  return report(outcome, interruption, options);
}

function tellSize(machine: VirtualMachine | undefined): void {
  const { columns, rows, isTTY } = process.stdout;
  if (isTTY && columns > 0 && rows > 0) machine?.console.resize(columns, rows);
}

/**
 * Copies the guest's output to stdout until it ends.
 * @param watch sees it as well
 * @param closed called when nobody reads stdout any more
 */
async function printConsole(
  machine: VirtualMachine,
  watch: OutputWatch | undefined,
  closed: () => void,
): Promise<void> {
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
      watch?.push(value);
      if (!isClosed && !process.stdout.write(value)) await Promise.race([once(process.stdout, 'drain'), machine.done]);
    }
  } catch (error) {
    if (!isClosed) throw error;
  } finally {
    process.stdout.off('error', onError);
  }
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

async function showProfile(
  profile: Profile,
  { after, top, output }: ProfileOptions,
  watch: OutputWatch | undefined,
): Promise<void> {
  if (watch?.isFound === false) warn(`the guest did not print "${after}"; the profile is of all that it did`);
  await showList('profile', profileText(profile, top), output);
}

async function showList(what: string, text: string, output: string | undefined): Promise<void> {
  if (output === undefined) process.stderr.write(text);
  else await writeResult(output, what, text);
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
