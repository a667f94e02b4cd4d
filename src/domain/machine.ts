import type { CloneOptions, GuestConsole, Outcome, VirtualMachine } from '../api.ts';
import type { Audit, TableAudit } from '../inspect/audit.ts';
import type { Profile } from '../inspect/profile.ts';
import type { Profiler } from '../inspect/profiler.ts';
import type { SnapshotTarget } from '../snapshot/format.ts';
import type { Domain } from './domain.ts';
import type { OutputQueue } from './output-queue.ts';
import type { DomainObserver } from './scheduler.ts';

/** What a host does for one of its guests. */
export interface MachineServices {
  /** Called once, when nothing of the domain is needed any more. */
  released(): void;
  save(target: SnapshotTarget): Promise<void>;
  clone(options: CloneOptions): Promise<VirtualMachine>;
}

/** What looks at a domain while it runs. */
export interface MachineInspection {
  readonly profiler: Profiler | undefined;
  readonly audit: TableAudit | undefined;
}

/** One guest, as its user holds it. */
export class Machine implements VirtualMachine, DomainObserver {
  readonly domain: Domain;
  readonly console: GuestConsole;
  readonly done: Promise<Outcome>;
  readonly #output: OutputQueue;
  readonly #services: MachineServices;
  readonly #profiler: Profiler | undefined;
  readonly #audit: TableAudit | undefined;
  readonly #started = performance.now();
  #settle: (outcome: Outcome) => void = () => {};
  #over = false;
  #finalStatistics: object | undefined;

  /** Settles when no snapshot is being written. */
  saved: Promise<void> = Promise.resolve();

  constructor(domain: Domain, output: OutputQueue, inspection: MachineInspection, services: MachineServices) {
    this.domain = domain;
    this.#output = output;
    this.#services = services;
    this.#profiler = inspection.profiler;
    this.#audit = inspection.audit;
    output.onRoom = () => domain.onWork();
    this.console = {
      output: output.stream,
      write: (bytes) => domain.type(bytes),
      resize: (columns, rows) => domain.resize?.(columns, rows),
    };
    this.done = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  turnBegins(): void {
    this.#profiler?.enter();
  }

  turnEnds(): void {
    this.#profiler?.leave();
  }

  /** The domain's state says how it ended. */
  ended(): void {
    const { state } = this.domain;
    if (state.kind === 'running') return;
    this.#finish(
      state.kind === 'crash'
        ? { kind: 'crash', reason: state.reason, report: this.domain.crashReport() }
        : { kind: state.kind },
    );
  }

  async snapshot(target: SnapshotTarget): Promise<void> {
    if (this.#over) throw new Error('the guest has ended');
    const saving = this.#services.save(target);
    this.saved = saving.catch(() => {});
    return saving;
  }

  async clone(options: CloneOptions = {}): Promise<VirtualMachine> {
    if (this.#over) throw new Error('the guest has ended');
    const cloning = this.#services.clone(options);
    this.saved = cloning.then(
      () => {},
      () => {},
    );
    return cloning;
  }

  stop(): void {
    this.#finish({ kind: 'stopped' });
  }

  #finish(outcome: Outcome): void {
    if (this.#over) return;
    this.#over = true;
    this.#finalStatistics = this.#figures();
    this.#output.close();
    this.#services.released();
    this.#settle(outcome);
  }

  get behind(): number {
    return this.domain.clock.behind / 1e6;
  }

  statistics(): object {
    return this.#finalStatistics ?? this.#figures();
  }

  startDirtyLog(): void {
    this.domain.dirtyPages.start();
  }

  readDirtyLog(): number[] {
    return this.domain.dirtyPages.read();
  }

  stopDirtyLog(): void {
    this.domain.dirtyPages.stop();
  }

  profile(): Profile | undefined {
    return this.#profiler?.report();
  }

  audit(): Audit | undefined {
    return this.#audit?.report();
  }

  restartProfile(): void {
    this.#profiler?.restart();
  }

  #figures(): object {
    return this.domain.figures((performance.now() - this.#started) / 1000);
  }
}
