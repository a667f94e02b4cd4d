/** How a lock is held: by any number of readers, or by one writer. */
export type LockMode = 'shared' | 'exclusive';

/**
 * A lock that is held across awaits. First come, first served: a writer that waits keeps later readers out, so that
 * nobody starves.
 */
export class SharedLock {
  #readers = 0;
  #writing = false;
  readonly #waiting: { readonly mode: LockMode; readonly admit: () => void }[] = [];

  /** Takes the lock if nobody is in the way or waits for it. */
  tryTake(mode: LockMode): boolean {
    if (this.#waiting.length > 0 || !this.#admits(mode)) return false;
    this.#enter(mode);
    return true;
  }

  async take(mode: LockMode): Promise<void> {
    if (this.tryTake(mode)) return;
    await new Promise<void>((admit) => this.#waiting.push({ mode, admit }));
  }

  release(mode: LockMode): void {
    if (mode === 'exclusive') this.#writing = false;
    else this.#readers--;
    for (let next = this.#waiting[0]; next && this.#admits(next.mode); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#enter(next.mode);
      next.admit();
    }
  }

  #admits(mode: LockMode): boolean {
    return !this.#writing && (mode === 'shared' || this.#readers === 0);
  }

  #enter(mode: LockMode): void {
    if (mode === 'exclusive') this.#writing = true;
    else this.#readers++;
  }
}
