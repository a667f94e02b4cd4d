import type { HostAddress } from '../x86/brand.ts';

/** Values by host address and code mode. Keys are signed words, which engines hash without boxing. */
export class PlaceMap<Value> {
  readonly #long = new Map<number, Value>();
  readonly #wide = new Map<number, Value>();
  readonly #narrow = new Map<number, Value>();

  #of(mode: number): Map<number, Value> {
    return mode === 64 ? this.#long : mode === 32 ? this.#wide : this.#narrow;
  }

  get size(): number {
    return this.#long.size + this.#wide.size + this.#narrow.size;
  }

  get(place: HostAddress, mode: number): Value | undefined {
    return this.#of(mode).get(place | 0);
  }

  set(place: HostAddress, mode: number, value: Value): void {
    this.#of(mode).set(place | 0, value);
  }

  delete(place: HostAddress, mode: number): void {
    this.#of(mode).delete(place | 0);
  }

  clear(): void {
    this.#long.clear();
    this.#wide.clear();
    this.#narrow.clear();
  }
}
