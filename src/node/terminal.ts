import type { ReadStream } from 'node:tty';

/** Ctrl-], which leaves, as in telnet and `xl console`. Where there are commands it waits for one of their keys. */
const ESCAPE = 0x1d;

export interface TerminalEvents {
  /** Bytes typed by the user or read from a pipe. */
  input(bytes: Uint8Array): void;
  /** The user pressed Ctrl-], and after it no key of a command. Only a terminal can. */
  leave(): void;
  /** What else Ctrl-] can lead to, by the character of the key that follows it. */
  readonly commands?: Readonly<Record<string, () => void>>;
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
  /** Ctrl-] was pressed, and the key after it was not. */
  #isEscaped = false;

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
    if (this.#isEscaped && bytes.length > 0) {
      this.#isEscaped = false;
      const command = this.#events.commands?.[String.fromCharCode(bytes[0] as number)];
      if (!command) {
        this.#events.leave();
        return;
      }
      command();
      this.#receive(bytes.subarray(1));
      return;
    }
    const place = this.isInteractive ? bytes.indexOf(ESCAPE) : -1;
    const typed = place < 0 ? bytes : bytes.subarray(0, place);
    if (typed.length > 0) this.#events.input(typed);
    if (place < 0) return;
    if (!this.#events.commands) {
      this.#events.leave();
      return;
    }
    this.#isEscaped = true;
    this.#receive(bytes.subarray(place + 1));
  };

  #setRawMode(on: boolean): void {
    if (this.isInteractive) this.#stdin.setRawMode(on);
  }
}
