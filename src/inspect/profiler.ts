import { Exit } from '../cpu/exits.ts';
import { BLOCK_LIMIT } from '../cpu/interpreter/record.ts';
import type { Processor } from '../cpu/processor.ts';
import { PAGE_SIZE } from '../x86/brand.ts';
import type { HostWork, Profile, ProfiledPlace } from './profile.ts';
import { exitNames } from './statistics.ts';
import { hexadecimal, type Symbolizer } from './text.ts';

/** Lets a processor execute, at most `budget` instructions. */
export type Execute = (processor: Processor, budget: number) => Exit;

export interface ProfilerOptions {
  readonly symbolize: Symbolizer;
  /** Seconds of the host's clock. */
  readonly now: () => number;
  /** Time that compiling guests' code took until now, in seconds of the same clock. It happens while code executes. */
  readonly compileSeconds: () => number;
  /** What a SYSCALL or an INT asks for; by default they are named after themselves. */
  readonly callName?: (processor: Processor) => string;
  /** Instructions between two samples, on average. */
  readonly interval?: number;
}

/** Some thousand samples a second: a share of one percent is seen in seconds, and a guest runs at two thirds its speed. */
const DEFAULT_INTERVAL = 100_000;

const MEASURES = ['seconds', 'instructions', 'regionInstructions'] as const;

/** A guest decides how many pages it executes; what goes beyond is counted together. */
const MOST_PLACES = 50_000;
const ELSEWHERE = 'elsewhere';

/** How a processor is let execute: `exact` to the instruction or not, watched by a profiler or not. */
export function chooseExecution(exact: boolean, profiler: Profiler | undefined): Execute {
  const execute: Execute = exact
    ? (processor, budget) => processor.runExactly(budget)
    : (processor, budget) => processor.run(budget);
  return profiler ? (processor, budget) => profiler.run(processor, budget, execute) : execute;
}

/**
 * Finds where a domain's time goes. Guest code is interrupted after a number of instructions, and the time since the
 * last interruption goes to the place where it was met; where guest code ends by itself does not matter, or all time
 * would seem to go to instructions that the host carries out. What the host does between is timed as it is, by what it
 * was called for. The profiler's own work is in neither.
 */
export class Profiler {
  readonly #options: ProfilerOptions;
  readonly #interval: number;
  readonly #places = new Map<string, Mutable<ProfiledPlace>>();
  readonly #hostWork = new Map<string, Mutable<HostWork>>();
  #samples = 0;
  /** Instructions until the next sample. */
  #left: number;
  /** Since the last sample. */
  readonly #since = { seconds: 0, instructions: 0, regionInstructions: 0 };
  /** Until the last sample. */
  readonly #total = { seconds: 0, instructions: 0, regionInstructions: 0 };
  /** What the host works for, and since when; undefined while it does not work for the domain. */
  #work: Mutable<HostWork> | undefined;
  #workStart = 0;
  #random = 1;

  constructor(options: ProfilerOptions) {
    this.#options = options;
    this.#interval = options.interval ?? DEFAULT_INTERVAL;
    this.#left = this.#nextInterval();
  }

  /** A turn begins. */
  enter(): void {
    this.#beginWork('turns');
  }

  /** A turn ends; what follows is not for the domain. */
  leave(): void {
    this.#endWork(this.#options.now());
  }

  /** Lets a processor execute until an exit. */
  run(processor: Processor, budget: number, execute: Execute): Exit {
    this.#endWork(this.#options.now());
    const last = processor.instructions + budget;
    for (;;) {
      const { instructions } = processor;
      const room = last - instructions;
      const isSampled = this.#left <= room;
      const asked = isSampled ? Math.max(0, this.#left - BLOCK_LIMIT) : room;
      let exit = asked > 0 ? this.#executeTimed(processor, asked, execute) : Exit.budget;
      const isCalledBack = processor.instructions - instructions < asked;
      if (isSampled && exit === Exit.budget && !isCalledBack) exit = this.#stepToSample(processor);
      if (this.#left <= 0) this.#sample(processor);
      if (exit !== Exit.budget || isCalledBack || processor.instructions >= last) {
        this.#beginWork(this.#workName(processor, exit));
        return exit;
      }
    }
  }

  #executeTimed(processor: Processor, budget: number, execute: Execute): Exit {
    const { now, compileSeconds } = this.#options;
    const { instructions, regionInstructions } = processor;
    const compiledBefore = compileSeconds();
    const start = now();
    const exit = execute(processor, budget);
    const seconds = now() - start;
    const compiling = compileSeconds() - compiledBefore;
    if (compiling > 0) this.#addWork('compiling', compiling);
    const since = this.#since;
    since.seconds += seconds - compiling;
    since.instructions += processor.instructions - instructions;
    since.regionInstructions += processor.regionInstructions - regionInstructions;
    this.#left -= processor.instructions - instructions;
    return exit;
  }

  /**
   * Goes the last instructions one by one: a run ends where a block or a region does, which is often in another function
   * than where its budget was used up. Steps are slow, and neither timed nor counted.
   */
  #stepToSample(processor: Processor): Exit {
    while (this.#left > 0) {
      const { instructions } = processor;
      const exit = processor.step();
      this.#left -= processor.instructions - instructions;
      if (exit !== Exit.budget) return exit;
    }
    return Exit.budget;
  }

  /** Forgets what was found until now. */
  restart(): void {
    this.#places.clear();
    this.#hostWork.clear();
    this.#work = undefined;
    this.#samples = 0;
    for (const measure of MEASURES) {
      this.#total[measure] = 0;
      this.#since[measure] = 0;
    }
  }

  report(): Profile {
    const byTime = (a: { readonly seconds: number }, b: { readonly seconds: number }): number => b.seconds - a.seconds;
    const hostWork = [...this.#hostWork.values()].sort(byTime);
    return {
      guestSeconds: this.#total.seconds,
      hostSeconds: hostWork.reduce((sum, { seconds }) => sum + seconds, 0),
      instructions: this.#total.instructions,
      regionInstructions: this.#total.regionInstructions,
      samples: this.#samples,
      places: [...this.#places.values()].sort(byTime),
      hostWork,
    };
  }

  /** Intervals vary by half, so that no loop of the guest keeps step with them. */
  #nextInterval(): number {
    this.#random = (Math.imul(this.#random, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.ceil(this.#interval * (0.5 + this.#random / 2 ** 32));
  }

  #sample(processor: Processor): void {
    const mode = processor.userMode ? 'user' : 'kernel';
    const place = this.#placeOf(mode, this.#nameOf(mode, processor.rip));
    const since = this.#since;
    place.samples++;
    this.#samples++;
    for (const measure of MEASURES) {
      place[measure] += since[measure];
      this.#total[measure] += since[measure];
      since[measure] = 0;
    }
    this.#left = this.#nextInterval();
  }

  #nameOf(mode: ProfiledPlace['mode'], rip: number): string {
    const symbol = mode === 'kernel' ? this.#options.symbolize(rip) : undefined;
    return symbol?.name ?? hexadecimal(Math.floor(rip / PAGE_SIZE) * PAGE_SIZE);
  }

  #placeOf(mode: ProfiledPlace['mode'], name: string): Mutable<ProfiledPlace> {
    const key = `${mode} ${name}`;
    const known = this.#places.get(key);
    if (known) return known;
    if (this.#places.size >= MOST_PLACES && name !== ELSEWHERE) return this.#placeOf(mode, ELSEWHERE);
    const place = { mode, name, samples: 0, seconds: 0, instructions: 0, regionInstructions: 0 };
    this.#places.set(key, place);
    return place;
  }

  #workName(processor: Processor, exit: Exit): string {
    switch (exit) {
      case Exit.exception:
        return `exception ${processor.exitDetail}`;
      case Exit.system:
        return `instruction ${processor.currentInstruction().operation}`;
      case Exit.syscall:
        return this.#options.callName?.(processor) ?? 'system call';
      case Exit.softwareInterrupt:
        return this.#options.callName?.(processor) ?? `interrupt ${processor.exitDetail}`;
      default:
        return exitNames[exit];
    }
  }

  #addWork(name: string, seconds: number): Mutable<HostWork> {
    let work = this.#hostWork.get(name);
    if (!work) {
      work = { name, count: 0, seconds: 0 };
      this.#hostWork.set(name, work);
    }
    work.count++;
    work.seconds += seconds;
    return work;
  }

  #beginWork(name: string): void {
    this.#work = this.#addWork(name, 0);
    this.#workStart = this.#options.now();
  }

  #endWork(now: number): void {
    if (this.#work) this.#work.seconds += now - this.#workStart;
    this.#work = undefined;
  }
}

type Mutable<Type> = { -readonly [Key in keyof Type]: Type[Key] };
