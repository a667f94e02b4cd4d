import type { HostMemory } from '../../memory/host-memory.ts';
import type { HostAddress } from '../../x86/brand.ts';
import type { CodeCache, Region } from '../code-cache.ts';
import type { RegionCode } from './generate.ts';
import { RegionLife } from './region-context.ts';

/** A module whose regions are being made or can be entered. */
export interface LiveModule {
  readonly regions: Set<CodedRegion>;
  /** Taken until the module is gone: its functions lead directly to each other. */
  readonly slots: readonly number[];
  /** Size of the WebAssembly. */
  bytes: number;
  /** Hot regions that were elsewhere before. */
  readonly isGathered: boolean;
  /** No more regions come. */
  isComplete: boolean;
}

/** A region with its code. */
export interface CodedRegion extends Region {
  readonly code: RegionCode;
}

/** What it takes to make regions. */
export interface RegionParts {
  readonly memory: HostMemory;
  readonly code: CodeCache;
  readonly live: LiveRegions;
  readonly instantiate: (module: WebAssembly.Module) => WebAssembly.Exports;
}

/** The regions that there are, their slots in the table of regions, and the modules that their code is in. */
export class LiveRegions {
  readonly #memory: HostMemory;
  readonly #table: WebAssembly.Table;
  /** Oldest first. */
  readonly #modules = new Set<LiveModule>();
  /** In the order in which they were made. */
  readonly #moduleOf = new Map<CodedRegion, LiveModule>();
  readonly #freeSlots: number[] = [];
  /** A RegionLife for each slot. */
  readonly #lives: HostAddress;
  dropped = 0;

  constructor(memory: HostMemory, code: CodeCache, table: WebAssembly.Table) {
    this.#memory = memory;
    this.#table = table;
    this.#lives = memory.reserve(table.length + 1);
    for (let slot = table.length - 1; slot >= 0; slot--) this.#freeSlots.push(slot);
    code.onRegionDropped = (region) => this.#forget(region);
  }

  get size(): number {
    return this.#moduleOf.size;
  }

  get modules(): ReadonlySet<LiveModule> {
    return this.#modules;
  }

  get freeSlots(): number {
    return this.#freeSlots.length;
  }

  [Symbol.iterator](): IterableIterator<CodedRegion> {
    return this.#moduleOf.keys();
  }

  has(region: CodedRegion): boolean {
    return this.#moduleOf.has(region);
  }

  /** Host address of the RegionLife of a slot. */
  life(slot: number): HostAddress {
    return (this.#lives + slot) as HostAddress;
  }

  /** That of no region. */
  get gone(): HostAddress {
    return this.life(this.#table.length);
  }

  isGathered(region: CodedRegion): boolean {
    return this.#moduleOf.get(region)?.isGathered === true;
  }

  /** Begins a module for so many regions; there must be as many slots. */
  open(regions: number, isGathered: boolean): LiveModule {
    if (this.#freeSlots.length < regions) throw new RangeError('there are no slots left for regions');
    const slots = this.#freeSlots.splice(this.#freeSlots.length - regions);
    const module: LiveModule = { regions: new Set(), slots, bytes: 0, isGathered, isComplete: false };
    this.#modules.add(module);
    return module;
  }

  /** A region of a module whose code is not there yet. */
  promise(module: LiveModule, region: CodedRegion): void {
    module.regions.add(region);
    this.#moduleOf.set(region, module);
  }

  /** Gives a region its place in the table. */
  add(module: LiveModule, region: CodedRegion, enter: unknown): void {
    this.#table.set(region.slot, enter);
    this.#memory.u8[this.life(region.slot)] = RegionLife.idle;
    this.promise(module, region);
  }

  /** Whether a region was entered since this was asked last. */
  takeEntered({ slot }: Region): boolean {
    const life = this.life(slot);
    const entered = this.#memory.u8[life] === RegionLife.entered;
    if (entered) this.#memory.u8[life] = RegionLife.idle;
    return entered;
  }

  /** No more regions of a module come. */
  complete(module: LiveModule): void {
    module.isComplete = true;
    this.#close(module);
  }

  /** Memory of a module, and its slots, are free only when all its regions are gone. */
  #close(module: LiveModule): void {
    if (!module.isComplete || module.regions.size > 0) return;
    this.#modules.delete(module);
    this.#freeSlots.push(...module.slots);
  }

  /** All regions came by `add`. */
  #forget(dropped: Region): void {
    const region = dropped as CodedRegion;
    this.#table.set(region.slot, null);
    this.#memory.u8[this.life(region.slot)] = RegionLife.gone;
    this.dropped++;
    const module = this.#moduleOf.get(region);
    if (!module) return;
    this.#moduleOf.delete(region);
    module.regions.delete(region);
    this.#close(module);
  }
}
