/** Longest line that is held until its end comes. */
const LONGEST_LINE = 4096;

/** Cuts a stream of bytes into lines, without their ends. */
export class LineSplitter {
  readonly #take: (line: string) => void;
  readonly #decoder = new TextDecoder();
  #rest = '';

  constructor(take: (line: string) => void) {
    this.#take = take;
  }

  push(bytes: Uint8Array): void {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split(/\r*\n/);
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#take(line);
    if (this.#rest.length > LONGEST_LINE) this.end();
  }

  /** Gives out what has no end yet. */
  end(): void {
    if (this.#rest !== '') this.#take(this.#rest);
    this.#rest = '';
  }
}
