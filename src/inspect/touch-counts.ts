/** What can be seen of an instruction at an entry of a live page table; `AuditedPlace` says what each means. */
export type Touch = 'reads' | 'operations' | 'emulated' | 'plain' | 'refused';

/** Places that are told apart: a guest could execute the same code at any number of addresses. */
const MOST_PLACES = 65_536;

/** How often each place of a kernel's code touched entries. */
export class TouchCounts {
  readonly #mostPlaces: number;
  readonly places = new Map<number, Record<Touch, number>>();
  /** Touches at places that were not told apart any more. */
  missed = 0;

  constructor(mostPlaces = MOST_PLACES) {
    this.#mostPlaces = mostPlaces;
  }

  add(address: number, touch: Touch, times = 1): void {
    let place = this.places.get(address);
    if (!place) {
      if (this.places.size >= this.#mostPlaces) {
        this.missed += times;
        return;
      }
      place = { reads: 0, operations: 0, emulated: 0, plain: 0, refused: 0 };
      this.places.set(address, place);
    }
    place[touch] += times;
  }

  addAll(others: TouchCounts): void {
    this.missed += others.missed;
    for (const [address, place] of others.places) {
      for (const touch of Object.keys(place) as Touch[]) this.add(address, touch, place[touch]);
    }
  }
}
