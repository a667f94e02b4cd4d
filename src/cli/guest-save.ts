import type { VirtualMachine } from '../api.ts';
import { InputError } from '../boot/input-error.ts';
import { saveSnapshotFile } from '../node/snapshot-file.ts';
import { warn } from './session.ts';

/** Saves a guest to a file whenever it is asked to. */
export class GuestSave {
  readonly #path: string;
  readonly #machine: () => VirtualMachine | undefined;
  #running: Promise<void> | undefined;

  constructor(path: string, machine: () => VirtualMachine | undefined) {
    this.#path = path;
    this.#machine = machine;
  }

  /** What is asked for while a snapshot is being written is done with that. */
  request(): void {
    this.#running ??= this.#save().finally(() => {
      this.#running = undefined;
    });
  }

  /** Settles when nothing is being written. */
  async finish(): Promise<void> {
    await this.#running;
  }

  async #save(): Promise<void> {
    const machine = this.#machine();
    if (!machine) return;
    const started = performance.now();
    try {
      await saveSnapshotFile(this.#path, (target) => machine.snapshot(target));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      warn(error.message);
      return;
    }
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    warn(`saved the guest to ${this.#path} in ${seconds} seconds`);
  }
}
