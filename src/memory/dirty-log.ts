/**
 * Which pages of a machine space were written since somebody last asked. While it is on, no processor has a translation
 * that allows writing of a page that it does not list; whoever else writes a page notes it.
 */
export class DirtyLog {
  /** 1 by page that is listed; undefined while nothing is logged. */
  #listed: Uint8Array | undefined;
  #pages: number[] = [];

  get isOn(): boolean {
    return this.#listed !== undefined;
  }

  /** @param limit one more than the highest page number */
  start(limit: number): void {
    this.#listed = new Uint8Array(limit);
    this.#pages = [];
  }

  stop(): void {
    this.#listed = undefined;
    this.#pages = [];
  }

  /** A page is written, or about to be. Any number; nothing happens for one that there is no page of. */
  note(page: number): void {
    if (this.#listed?.[page] !== 0) return;
    this.#listed[page] = 1;
    this.#pages.push(page);
  }

  has(page: number): boolean {
    return this.#listed?.[page] === 1;
  }

  /** The pages that are listed, in order. None is from then on. */
  take(): number[] {
    const pages = this.#pages;
    for (const page of pages) if (this.#listed) this.#listed[page] = 0;
    this.#pages = [];
    return pages.sort((a, b) => a - b);
  }
}
