import { LguestDomain } from '../../src/interfaces/lguest/domain.ts';
import { VmiInterface } from '../../src/interfaces/vmi/vmi-interface.ts';
import { XenDomain } from '../../src/interfaces/xen/domain.ts';
import { type Guest, type GuestDomain, HostileHost, type Variant, waitsForEver } from './host.ts';
import { HostileRecord } from './record.ts';

/** Instructions of a guest after which the host takes pages away. */
const INSTRUCTIONS_PER_RECLAIM = 4_000_000;
/** Instructions and turns without a call, after which a guest will make no more. */
const QUIET = { instructions: 10_000_000, turns: 20_000 } as const;
/** After which a guest is followed by the next one, which may be of another kind. */
const CALLS_OF_A_GUEST = 5_000;
/**
 * The guest beside gets its turns by calls of the hostile ones: one at least with so many calls, and so many in a short
 * attack. Its work takes 40 turns to 80; some 220 where the host takes most of its pages meanwhile.
 */
const NEIGHBOURS_PACE = { calls: 60, turns: 400 } as const;

/**
 * Reference guests that make hostile calls, one after another, each with a seed of its own. They run turn by turn, and
 * after each all that the host keeps of types, references and shadows is counted anew and must be what is stored.
 * Meanwhile the host takes pages away from them, and there is always another guest beside that does its work.
 */
export class HostileAttack {
  readonly record = new HostileRecord();
  readonly #variants: readonly Variant[];
  readonly #host = new HostileHost();
  #neighbour: Guest | undefined;
  /** Calls that the neighbour had its turns for. */
  #callsAnswered = 0;
  /** What neighbours printed that have ended, while there were hostile guests or between two of them. */
  readonly neighbours: string[] = [];
  /** How many of them have ended while a hostile guest ran. */
  neighboursBeside = 0;

  /** @param variants by turns */
  constructor(variants: readonly Variant[]) {
    this.#variants = variants;
  }

  /** Until that many calls were made. @throws Error when a recount finds something else than is stored */
  async attack(calls: number, firstSeed = 1): Promise<void> {
    for (let seed = firstSeed; this.record.calls < calls; seed++) await this.#attackOnce(seed, calls);
    await this.#neighbour?.destroy();
    this.#neighbour = undefined;
  }

  /** Frames that are neither free nor pages of files: with all guests gone, those that were lost. */
  get framesInUse(): number {
    const { total, available, pageCache } = this.#host.manager.statistics().frames;
    return total - available - pageCache;
  }

  #variant(seed: number): Variant {
    return this.#variants[seed % this.#variants.length] as Variant; // there is at least one
  }

  async #attackOnce(seed: number, calls: number): Promise<void> {
    const { record } = this;
    record.guests++;
    const variant = this.#variant(seed);
    // Its memory lies in a row, for which the host needs room.
    while (variant.paging === 'native' && this.#neighbour) await this.#letNeighbourRun(seed);
    const guest = await this.#host.boot(variant, `hostile=${seed}`, record);
    const { domain } = guest;
    const pace = Math.min(NEIGHBOURS_PACE.calls, calls / NEIGHBOURS_PACE.turns);
    const end = Math.min(calls, record.calls + (variant.calls ?? CALLS_OF_A_GUEST));
    let last = { turn: 0, instructions: 0, calls: record.calls };
    let reclaimAt = INSTRUCTIONS_PER_RECLAIM;
    let isQuiet = false;
    try {
      for (let turn = 1; domain.state.kind === 'running' && !isQuiet && record.calls < end; turn++) {
        await takeTurn(guest);
        if (record.calls > last.calls) {
          last = { turn, instructions: domain.instructions, calls: record.calls };
          const wrong = recount(guest);
          if (wrong !== undefined) throw new Error(`seed ${seed}, call ${record.calls}: ${wrong}`);
        }
        isQuiet =
          domain.instructions - last.instructions > QUIET.instructions ||
          turn - last.turn > QUIET.turns ||
          waitsForEver(domain);
        if (domain.instructions > reclaimAt) {
          reclaimAt += INSTRUCTIONS_PER_RECLAIM;
          await this.#host.manager.relieve();
        }
        for (; this.#callsAnswered < record.calls; this.#callsAnswered += pace) {
          if (await this.#letNeighbourRun(seed)) this.neighboursBeside++;
        }
      }
      guest.finish();
      record.ended(endingOf(guest, isQuiet));
    } finally {
      await guest.destroy();
    }
  }

  /** @returns whether it has ended */
  async #letNeighbourRun(seed: number): Promise<boolean> {
    this.#neighbour ??= await this.#host.boot({ ...this.#variant(seed), vcpus: 1 }, '');
    const { domain, printed, destroy } = this.#neighbour;
    await takeTurn(this.#neighbour);
    if (domain.state.kind === 'running') return false;
    this.neighbours.push(domain.state.kind === 'poweroff' ? printed() : `${domain.state.kind}\n${printed()}`);
    await destroy();
    this.#neighbour = undefined;
    return true;
  }
}

/** Lets a guest run, once the pages have come that it waits for. */
async function takeTurn({ domain }: Guest): Promise<void> {
  domain.catchUp();
  while (domain.idle && !domain.isSettled) await new Promise(setImmediate);
  if (domain.state.kind === 'running') domain.turn();
}

/** The first thing that is not as it was counted. */
function recount({ domain }: Guest): string | undefined {
  const [wrong] = keeperOf(domain)?.recount() ?? [];
  return wrong === undefined ? undefined : JSON.stringify(wrong);
}

/** Who keeps types, references or shadows of a guest's tables; nobody does where they are walked as they stand. */
function keeperOf(domain: GuestDomain): { recount(): readonly unknown[] } | undefined {
  if (domain instanceof XenDomain) return domain.paging;
  if (domain instanceof LguestDomain) return domain.paging.shadow;
  const { interface: own, paging, state } = domain;
  if (!(own instanceof VmiInterface && own.tables)) return paging.shadow;
  // What was stored to a table by a way around the examination ends the guest because counts are wrong then.
  return state.kind === 'running' ? own.tables.paging : undefined;
}

function endingOf({ domain, printed }: Guest, isQuiet: boolean): string {
  const { state } = domain;
  const panic = /^panic: .*/m.exec(printed())?.[0];
  if (panic !== undefined) return panic;
  if (state.kind === 'crash') return state.reason;
  if (state.kind !== 'running') return state.kind;
  if (waitsForEver(domain)) return 'waits for ever';
  return isQuiet ? 'makes no more calls' : 'running';
}
