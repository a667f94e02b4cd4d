import { readFileSync } from 'node:fs';
import { imagePath } from '../../guests/reference/build.ts';
import { loadKernel } from '../../src/boot/kernel.ts';
import { ProcessorGroup } from '../../src/cpu/processor.ts';
import { VirtualClock } from '../../src/domain/clock.ts';
import { XenDomain } from '../../src/interfaces/xen/domain.ts';
import { overheadFrames } from '../../src/interfaces/xen/domain-frames.ts';
import { type DomainPlan, planDomain } from '../../src/interfaces/xen/domain-plan.ts';
import { FramePool } from '../../src/memory/frame-pool.ts';
import { HostMemory } from '../../src/memory/host-memory.ts';
import { PAGE_SIZE } from '../../src/x86/brand.ts';
import { HostileRecord, type HostileRun, waitsForEver } from './record.ts';

/**
 * Hypercalls of a hostile kernel: the reference guest, told by `hostile=SEED` to make calls with arguments that are right
 * as often as wrong. It runs turn by turn; after each, types and references of all frames are counted anew and must be
 * what the host has stored. A guest that ends, or stands still, is followed by one with the next seed.
 */
const PAGES = 4096;
const VCPUS = 2;
/** Room for two, so that a second one can run beside. */
const FRAMES = 2 * (PAGES + overheadFrames(PAGES));

export class HostileGuests {
  readonly #record = new HostileRecord();
  readonly #group: ProcessorGroup;
  readonly #kernel = loadKernel(readFileSync(imagePath('x86-64')));

  get run(): HostileRun {
    return this.#record.run;
  }

  constructor() {
    const memory = new HostMemory(FRAMES * PAGE_SIZE + (48 << 20));
    this.#group = new ProcessorGroup(memory, new FramePool(memory, FRAMES));
  }

  /**
   * Until that many calls were made. @param between is called after each turn
   * @throws Error when a recount finds something else than is stored
   */
  attack(calls: number, firstSeed = 1, between: () => void = () => {}): void {
    for (let seed = firstSeed; this.run.calls < calls; seed++) this.#attackOnce(seed, calls, between);
  }

  /** A guest that does its work and ends, for the company of hostile ones. @returns what it printed */
  neighbour(): { readonly domain: XenDomain; readonly printed: () => string } {
    let text = '';
    const domain = this.#domain('', 2, (bytes) => {
      text += new TextDecoder().decode(bytes);
    });
    return { domain, printed: () => text };
  }

  #attackOnce(seed: number, calls: number, between: () => void): void {
    const { run } = this;
    run.guests++;
    const domain = this.#domain(`hostile=${seed}`, 1, () => {});
    try {
      while (domain.state.kind === 'running' && !waitsForEver(domain) && run.calls < calls) {
        domain.turn();
        between();
        const [wrong] = domain.paging.recount();
        if (wrong) throw new Error(`seed ${seed}, call ${run.calls}: ${JSON.stringify(wrong)}`);
      }
      this.#record.ended(domain);
    } finally {
      domain.destroy();
    }
  }

  #domain(commandLine: string, id: number, consoleSink: (bytes: Uint8Array) => void): XenDomain {
    const plan: DomainPlan = planDomain({ kernel: this.#kernel, initrd: new Uint8Array(0), commandLine, pages: PAGES });
    let domain: XenDomain | undefined;
    domain = new XenDomain({
      id,
      uuid: new Uint8Array(16),
      bits: plan.abi.bits,
      pages: plan.pages,
      vcpus: VCPUS,
      group: this.#group,
      clock: new VirtualClock(() => domain?.instructions ?? 0),
      wallclock: { seconds: 1_700_000_000, nanoseconds: 0 },
      random: (out) => void out.fill(7),
      consoleSink,
      watcher: this.#record.watcher,
    });
    domain.boot({ name: 'hostile', plan });
    return domain;
  }
}
