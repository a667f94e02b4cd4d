import { Gathering } from './gathering.ts';
import type { CodedRegion, RegionParts } from './live-regions.ts';

/** When regions are gathered. Times are milliseconds. */
export interface GatheringOptions {
  /** What is entered within this time is hot. */
  readonly census: number;
  /** Until the next census, when there was nothing to gather. */
  readonly recess: number;
  /** Between two gatherings pass so many times the time that one took: the engine's threads have more to make quicker. */
  readonly rest: number;
  /** A gathering pays when so many hot regions were never gathered, as a share of the hot ones and at least. */
  readonly share: number;
  readonly atLeast: number;
  /** Of one piece of a gathering, and between two of them. */
  readonly piece: number;
  readonly pause: number;
}

export const DEFAULT_GATHERING: GatheringOptions = {
  census: 200,
  recess: 1000,
  rest: 3,
  share: 0.2,
  // A program's loop has some dozens; with 64, awk and the shell went from region to region by search.
  atLeast: 16,
  piece: 2,
  pause: 4,
};

/** Share of all room that hot regions may take. */
const AT_MOST = 0.4;

/** What there is room for: regions, and bytes of their modules. */
export interface RegionRoom {
  readonly regions: number;
  readonly bytes: number;
}

/** Finds the regions that are hot, and gathers them when enough of them stand elsewhere. */
export class Gatherer {
  readonly #parts: RegionParts;
  readonly #makeRoom: (regions: readonly CodedRegion[]) => void;
  readonly #room: RegionRoom;
  readonly #options: GatheringOptions;
  readonly #isAside: boolean;
  readonly #onGathered: (() => void) | undefined;
  #gathering: Gathering | undefined;
  #hasCensus = false;
  /** When the next step is due, and when the gathering began, as performance.now() says. */
  #due = 0;
  #began = 0;
  #compiled = 0;
  #gathered = 0;
  /** Bytes of the modules, and milliseconds that guests waited. */
  bytes = 0;
  milliseconds = 0;

  /**
   * @param isAside whether modules are compiled while the guest goes on
   * @param makeRoom gives up old regions when there is no room for these
   */
  constructor(
    parts: RegionParts,
    room: RegionRoom,
    options: GatheringOptions,
    isAside: boolean,
    makeRoom: (regions: readonly CodedRegion[]) => void,
    onGathered: (() => void) | undefined,
  ) {
    this.#parts = parts;
    this.#room = room;
    this.#options = options;
    this.#isAside = isAside;
    this.#makeRoom = makeRoom;
    this.#onGathered = onGathered;
  }

  /** Regions that were moved so far. */
  get gathered(): number {
    return this.#gathered + (this.#gathering?.gathered ?? 0);
  }

  /** Between runs: the next step, when it is due. @param compiled how many regions were made so far */
  work(compiled: number): void {
    if (!this.#gathering && compiled === this.#compiled) return;
    const start = performance.now();
    if (start < this.#due) return;
    if (this.#gathering) this.#goOn(this.#gathering, start);
    else if (this.#hasCensus) this.#take(start, compiled);
    else this.#begin(start);
    this.milliseconds += performance.now() - start;
  }

  #begin(now: number): void {
    for (const region of this.#parts.live) this.#parts.live.takeEntered(region);
    this.#hasCensus = true;
    this.#due = now + this.#options.census;
  }

  #take(now: number, compiled: number): void {
    const { live } = this.#parts;
    this.#hasCensus = false;
    const hot: CodedRegion[] = [];
    for (const region of live) if (live.takeEntered(region)) hot.push(region);
    const ungathered = hot.filter((region) => !live.isGathered(region)).length;
    if (ungathered < Math.max(this.#options.atLeast, hot.length * this.#options.share)) {
      this.#due = now + this.#options.recess;
      return;
    }
    this.#compiled = compiled;
    this.#began = now;
    const chosen = this.#choose(hot);
    this.#makeRoom(chosen);
    this.#gathering = new Gathering(this.#parts, chosen, this.#isAside);
  }

  /** The newest that there is room for. */
  #choose(hot: readonly CodedRegion[]): CodedRegion[] {
    let first = hot.length;
    for (let bytes = 0; first > 0 && hot.length - first < Math.floor(this.#room.regions * AT_MOST); first--) {
      bytes += (hot[first - 1] as CodedRegion).code.body.bytes.length;
      if (bytes > this.#room.bytes * AT_MOST) break;
    }
    return hot.slice(first);
  }

  #goOn(gathering: Gathering, start: number): void {
    gathering.work(start + this.#options.piece);
    const end = performance.now();
    this.#due = end + this.#options.pause;
    if (!gathering.isDone) return;
    this.#due = end + (end - this.#began) * this.#options.rest;
    this.#gathered += gathering.gathered;
    this.bytes += gathering.bytes;
    this.#gathering = undefined;
    this.#onGathered?.();
  }
}
