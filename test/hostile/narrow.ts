import { type GuestVirtual, type Mfn, PAGE_SIZE } from '../../src/x86/brand.ts';
import { BASE, Call, DATA, NarrowGuest, PROGRAM, STACK } from '../xen-narrow-guest.ts';
import { HostileRecord, type HostileRun, waitsForEver } from './record.ts';

/**
 * Hypercalls of hostile 32-bit kernels, as of the 64-bit ones (guest.ts). What they ask for is made up here, in the layouts
 * of a 32-bit kernel: arguments that are right as often as wrong, about pages that the kernel can do without.
 */
const ARENA_PAGES = 24;
const ARENA = BASE;
/** Structures are made here, and what they point to half a page behind. */
const WORDS = DATA;
const POINTED = WORDS + PAGE_SIZE / 2;
const DONE = WORDS + PAGE_SIZE - 4;
const SELF = 0x7ff0;
const HOST_START = 0xf580_0000;

/** Calls whose structures this knows nothing of: a command, and words. */
const BY_COMMAND = [20, 24, 29, 30, 32, 33] as const;
/** Of VCPUOP and SCHEDOP: what lets the processor that asks stand still, or ends it. */
const LEFT_OUT: Readonly<Record<number, readonly number[]>> = { 24: [1, 2], 29: [1, 2, 6] };

class HostileCalls {
  readonly #guest: NarrowGuest;
  #state: number;

  constructor(guest: NarrowGuest, seed: number) {
    this.#guest = guest;
    this.#state = Math.imul(seed, 0x9e37_79b9) >>> 0 || 1;
  }

  /** A number below a limit (xorshift). */
  #below(limit: number): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state >>> 0;
    return this.#state % limit;
  }

  #pick<T>(choices: readonly T[]): T {
    return choices[this.#below(choices.length)] as T;
  }

  #chance(oneIn: number): boolean {
    return this.#below(oneIn) === 0;
  }

  #number(): number {
    return this.#pick([0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, this.#below(1 << 16), this.#below(2 ** 32)]);
  }

  #arenaPage(): number {
    return ARENA + this.#below(ARENA_PAGES) * PAGE_SIZE;
  }

  /** Of the arena, of tables and descriptors in use, of a page of the host, or of nothing. */
  #frame(): number {
    const guest = this.#guest;
    const { plan, domain } = guest;
    const tables = (): Mfn => guest.mfnAt(BASE + (plan.tablesPfn + this.#below(plan.tables)) * PAGE_SIZE);
    return this.#chance(3)
      ? this.#pick([tables, () => domain.shared.mfn, () => this.#number() >>> 12, () => guest.mfnAt(PROGRAM)])()
      : guest.mfnAt(this.#arenaPage());
  }

  #entry(): readonly [low: number, high: number] {
    const flags = this.#chance(12) ? this.#below(0x1000) : (this.#below(0x80) & ~0x18) | (this.#chance(8) ? 0 : 1);
    const high = this.#chance(6) ? this.#pick([0x8000_0000, this.#number()]) : 0;
    return [((this.#frame() << 12) | flags) >>> 0, high];
  }

  #address(): number {
    return this.#chance(6) ? this.#pick([this.#number(), HOST_START + this.#number() * 4]) >>> 0 : this.#arenaPage();
  }

  /** An argument that is to point somewhere: nearly always it does. */
  #pointer(good: number): number {
    return this.#chance(24) ? this.#address() + this.#below(9) : good;
  }

  #count(): number {
    return this.#chance(16) ? this.#number() : 1 + this.#below(4);
  }

  #words(count: number): void {
    for (let index = 0; index < count; index++) {
      const word = this.#pick([this.#frame(), this.#below(16), SELF, POINTED, this.#number()]);
      this.#guest.store(WORDS + index * 4, word);
    }
  }

  #domain(): number {
    return this.#chance(10) ? this.#number() : SELF;
  }

  /** Fills a page as a table, takes the writable mapping away, mostly, and pins it. */
  #tryTable(): number {
    const guest = this.#guest;
    const page = this.#arenaPage();
    const mfn = guest.mfnAt(page);
    const level = this.#below(3);
    if (guest.processor.memory.writeWord(page as GuestVirtual, 0)) {
      guest.store(page, ...this.#entry(), 0, 0, 0, 0);
      const [low, high] = this.#entry();
      guest.store(page + 24, level === 2 ? (low & ~0xffe) | 1 : low, level === 2 ? 0 : high);
    }
    if (!this.#chance(4)) guest.hypercall(Call.updateVaMapping, page, ((mfn << 12) | 0x21) >>> 0, 0, 2);
    guest.store(WORDS, this.#chance(4) ? 4 : level, mfn, 0);
    return guest.hypercall(Call.mmuExtended, WORDS, 1, DONE, SELF);
  }

  /** A call whose first argument is a command, with a structure that means something to most of them. */
  #byCommand(): number {
    const guest = this.#guest;
    const call = this.#pick(BY_COMMAND);
    const command = this.#below(15);
    if (LEFT_OUT[call]?.includes(command)) return 0;
    this.#words(8);
    const first: Readonly<Record<number, () => readonly number[]>> = {
      20: () => [this.#domain(), this.#below(4), 0, POINTED],
      24: () => (this.#chance(2) ? [this.#number(), this.#below(3)] : [POINTED, 0]),
      30: () => [this.#below(8) | (this.#below(2) << 16), this.#number(), this.#number()],
      32: () => (this.#chance(4) ? [SELF | (SELF << 16)] : [this.#below(8), this.#below(3)]),
    };
    guest.store(WORDS, ...(first[call]?.() ?? []));
    const structure = this.#pointer(WORDS);
    return call === Call.vcpu
      ? guest.hypercall(call, command, this.#below(3), structure)
      : guest.hypercall(call, command, structure, this.#below(4));
  }

  /** Makes one call. */
  make(): void {
    const guest = this.#guest;
    const pointer = (good = WORDS) => this.#pointer(good);
    const calls: readonly (() => number)[] = [
      () => {
        for (let request = 0; request < 4; request++) {
          const command = this.#chance(4) ? this.#below(8) : this.#pick([0, 0, 1, 2]);
          const at = (this.#frame() << 12) + this.#below(512) * 8 + command;
          guest.store(WORDS + request * 16, at, 0, ...this.#entry());
        }
        return guest.hypercall(Call.mmuUpdate, pointer(), this.#count(), pointer(DONE), this.#domain());
      },
      () => {
        const page = this.#address();
        const own = guest.mfnAt(page);
        const isPlain = own >= 0 && !this.#chance(4);
        const [low, high] = isPlain ? [((own << 12) | this.#pick([0x21, 0x21, 0x63])) >>> 0, 0] : this.#entry();
        return guest.hypercall(
          Call.updateVaMapping,
          page,
          low,
          high,
          this.#chance(8) ? this.#number() : this.#below(3),
        );
      },
      () => this.#tryTable(),
      () => {
        const command = this.#below(22);
        const root = command === 5 && this.#chance(2) ? guest.domain.paging.root(0) : this.#frame();
        const first = [7, 9, 13].includes(command) ? this.#address() : root;
        guest.store(WORDS, command, first, this.#pick([this.#frame(), this.#below(16), pointer(POINTED)]));
        return guest.hypercall(
          Call.mmuExtended,
          pointer(),
          this.#chance(20) ? this.#number() : 1,
          pointer(DONE),
          this.#domain(),
        );
      },
      () => {
        const at = (this.#frame() << 12) + this.#below(514) * 8;
        return guest.hypercall(Call.updateDescriptor, at, 0, this.#number(), this.#number());
      },
      () => {
        for (let index = 0; index < 16; index++) guest.store(WORDS + index * 4, this.#frame());
        return guest.hypercall(Call.setGdt, pointer(), this.#chance(3) ? this.#number() : this.#below(600));
      },
      () => {
        this.#words(8);
        guest.store(POINTED, this.#frame(), this.#frame(), this.#number());
        guest.store(WORDS, pointer(POINTED), this.#below(5), this.#chance(6) ? 1 : 0, 0, this.#domain());
        const command = this.#below(14);
        if (command === 9) guest.store(WORDS, this.#below(3), pointer(POINTED));
        return guest.hypercall(Call.memory, command, pointer());
      },
      () => {
        for (const entry of [0, 1, 2]) {
          const [low, high] = this.#entry();
          const number = this.#pick([Call.updateVaMapping, Call.xenVersion, Call.multicall, this.#below(64)]);
          guest.store(WORDS + entry * 32, number, 0, this.#arenaPage(), low, high, this.#below(3), 0, 0);
        }
        return guest.hypercall(Call.multicall, pointer(), this.#chance(16) ? this.#below(64) : this.#below(4));
      },
      () => guest.hypercall(Call.xenVersion, this.#below(13), this.#chance(3) ? 0 : pointer(POINTED)),
      () => guest.hypercall(Call.vmAssist, this.#below(3), this.#below(8)),
      () => guest.hypercall(Call.stackSwitch, this.#number(), this.#address()),
      () => guest.hypercall(Call.setTimer, this.#number(), this.#below(2) * this.#number()),
      () => guest.hypercall(this.#pick([8, 9]), this.#below(10), this.#number()),
      () => this.#byCommand(),
      () => this.#byCommand(),
      () => this.#byCommand(),
      () => this.#byCommand(),
      () => {
        const number = this.#pick([this.#below(64), this.#number()]);
        // A trap table, the end, console text and returns are for other tests.
        const isElsewhere = [0, 3, 4, 18, 23, 24, 29].includes(number & 63);
        return isElsewhere ? 0 : guest.hypercall(number, pointer(), this.#number(), this.#number(), this.#number());
      },
    ];
    this.#pick(calls)();
  }
}

export class HostileNarrowGuests {
  readonly #record = new HostileRecord();

  get run(): HostileRun {
    return this.#record.run;
  }

  /** As that of 64-bit guests; frames are counted anew after each call. */
  attack(calls: number, firstSeed = 1, between: () => void = () => {}): void {
    for (let seed = firstSeed; this.run.calls < calls; seed++) this.#attackOnce(seed, calls, between);
  }

  #attackOnce(seed: number, calls: number, between: () => void): void {
    const { run } = this;
    run.guests++;
    const guest = new NarrowGuest({ vcpus: 2, watcher: this.#record.watcher });
    const { domain } = guest;
    try {
      guest.prepare();
      const hostile = new HostileCalls(guest, seed);
      while (domain.state.kind === 'running' && this.#goesOn(guest) && run.calls < calls) {
        hostile.make();
        between();
        const [wrong] = domain.paging.recount();
        if (wrong) throw new Error(`seed ${seed}, call ${run.calls}: ${JSON.stringify(wrong)}`);
      }
      this.#record.ended(domain);
    } finally {
      domain.destroy();
    }
  }

  /** Whether the kernel has its structures and its stack yet, and does not wait. */
  #goesOn(guest: NarrowGuest): boolean {
    const { processor, domain } = guest;
    if (waitsForEver(domain) || guest.vcpu.blocked || guest.vcpu.down) return false;
    return [WORDS, STACK - PAGE_SIZE].every((page) => processor.memory.writeWord(page as GuestVirtual, 0));
  }
}
