import type { ReadStream } from 'node:tty';

/** Ctrl-], which leaves, as in telnet and `xl console`. */
const LEAVE = 0x1d;

export interface TerminalEvents {
  /** Bytes typed by the user or read from a pipe. */
  input(bytes: Uint8Array): void;
  /** The user pressed Ctrl-]. Only a terminal can. */
  leave(): void;
}

/**
 * Connects stdin to a guest's console. A terminal is put into raw mode, so that every key but Ctrl-] reaches the guest;
 * it is put back by `restore`, and whenever the process ends. The end of a pipe means nothing: the guest runs on.
 */
export class Terminal {
  readonly #stdin: ReadStream | NodeJS.ReadStream = process.stdin;
  readonly #events: TerminalEvents;
  readonly #restoreAtExit = (): void => this.#setRawMode(false);
  #isOpen = false;

  constructor(events: TerminalEvents) {
    this.#events = events;
  }

  get isInteractive(): boolean {
    return this.#stdin.isTTY === true;
  }

  open(): void {
    this.#isOpen = true;
    process.on('exit', this.#restoreAtExit);
    this.#setRawMode(true);
    this.#stdin.on('data', this.#receive);
    // Reading may fail when the terminal goes away; SIGHUP tells the rest.
    this.#stdin.on('error', () => {});
  }

  restore(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    process.off('exit', this.#restoreAtExit);
    this.#stdin.off('data', this.#receive);
    this.#setRawMode(false);
    this.#stdin.pause();
  }

  readonly #receive = (bytes: Uint8Array): void => {
    const leave = this.isInteractive ? bytes.indexOf(LEAVE) : -1;
    const typed = leave < 0 ? bytes : bytes.subarray(0, leave);
    if (typed.length > 0) this.#events.input(typed);
    if (leave >= 0) this.#events.leave();
  };

  #setRawMode(on: boolean): void {
    if (this.isInteractive) this.#stdin.setRawMode(on);
  }
}
