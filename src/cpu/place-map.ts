import type { HostAddress } from '../x86/brand.ts';
import { CodeMode } from './code-mode.ts';

/** Values by host address and code mode. Keys are signed words, which engines hash without boxing. */
export class PlaceMap<Value> {
  readonly #long = new Map<number, Value>();
  readonly #wide = new Map<number, Value>();
  readonly #flat = new Map<number, Value>();
  readonly #narrow = new Map<number, Value>();

  #of(mode: CodeMode): Map<number, Value> {
    if (mode === CodeMode.bits64) return this.#long;
    if (mode === CodeMode.flat32) return this.#flat;
    return mode === CodeMode.bits32 ? this.#wide : this.#narrow;
  }

  get size(): number {
    return this.#long.size + this.#wide.size + this.#flat.size + this.#narrow.size;
  }

  get(place: HostAddress, mode: CodeMode): Value | undefined {
    return this.#of(mode).get(place | 0);
  }

  set(place: HostAddress, mode: CodeMode, value: Value): void {
    this.#of(mode).set(place | 0, value);
  }

  delete(place: HostAddress, mode: CodeMode): void {
    this.#of(mode).delete(place | 0);
  }

  clear(): void {
    this.#long.clear();
    this.#wide.clear();
    this.#flat.clear();
    this.#narrow.clear();
  }
}
