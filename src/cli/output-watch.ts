/** Waits for a text in a guest's output, wherever that is cut into pieces. */
export class OutputWatch {
  readonly #text: Buffer;
  readonly #found: () => void;
  #end: Buffer = Buffer.alloc(0);
  #isFound = false;

  /** @param found called once, with the piece in which the text ends */
  constructor(text: string, found: () => void) {
    this.#text = Buffer.from(text);
    this.#found = found;
  }

  get isFound(): boolean {
    return this.#isFound;
  }

  push(bytes: Uint8Array): void {
    if (this.#isFound) return;
    const seen = Buffer.concat([this.#end, bytes]);
    if (seen.includes(this.#text)) {
      this.#isFound = true;
      this.#found();
    }
    // What could be the beginning of the text.
    this.#end = seen.subarray(Math.max(0, seen.length - this.#text.length + 1));
  }
}
