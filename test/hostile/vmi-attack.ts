import { Access } from '../../src/cpu/exits.ts';
import { SystemResult } from '../../src/cpu/operands.ts';
import { DomainCrash } from '../../src/domain/crash.ts';
import { SeededRandom } from '../../src/domain/seeded-random.ts';
import { Alarm, ApState, CALL_NAMES, Call } from '../../src/interfaces/vmi/abi.ts';
import { HOST_CALL_NAMES, PrivateCall } from '../../src/interfaces/vmi/host-call.ts';
import { HOST_CALLS } from '../../src/interfaces/vmi/host-calls.ts';
import { WINDOW, WindowField } from '../../src/interfaces/vmi/window.ts';
import { type Frame, type GuestVirtual, PAGE_SIZE } from '../../src/x86/brand.ts';
import { PAGES, ShadowWorld } from '../shadow-world.ts';
import { type Arguments, CODE, DATA, FLAT, ROOT, SHADOW_PAGES, STACK, UNMAPPED, VmiMachine } from '../vmi-machine.ts';

const GDT = 0xa000;
const STATE = 0xb000;
const MEMORY = PAGES * PAGE_SIZE;
const UNKNOWN = 0x7f;
const ENDS: ReadonlySet<number> = new Set([Call.reboot, Call.shutDown]);
const NUMBERS: readonly number[] = [...[...HOST_CALLS.keys()].filter((number) => !ENDS.has(number)), UNKNOWN];

/** Values that mean something in some place. */
const WORDS = [
  0,
  1,
  2,
  3,
  0x41,
  Alarm.periodic,
  Alarm.periodic | 1,
  Alarm.localTimer,
  STATE,
  GDT,
  MEMORY - 4,
  WINDOW,
  UNMAPPED,
  0x30,
];
const STACKS = [STACK, STACK, STACK, MEMORY - 16, UNMAPPED];
/** Arguments that are hardly ever found by chance. */
const RIGHT: Readonly<Record<number, Arguments>> = {
  [Call.setLinearMapping]: { eax: 0, edx: 0, ecx: PAGES, stack: [0] },
  [Call.setInitialApState]: { eax: STATE, edx: 1 },
};
const NAMES: Readonly<Record<SystemResult, string>> = {
  [SystemResult.done]: 'done',
  [SystemResult.fault]: 'page fault',
  [SystemResult.interface]: 'no such call',
};

/** How often each call ended how. */
export type VmiCoverage = Map<string, Map<string, number>>;

/**
 * A hostile kernel of the VMI interface: calls with arguments that are right as often as wrong, records of changes that it
 * did not make, changes that it does not tell, and tables that are none. After each batch it is seen that no processor
 * reaches a frame that is not the guest's, that what shadows refer to is counted as it is, and that nothing is left.
 */
export class VmiAttack {
  readonly coverage: VmiCoverage = new Map();
  /** Why guests ended, and how often. */
  readonly endings = new Map<string, number>();
  calls = 0;

  /** Lets guests make that many calls, each a batch of them. */
  async attack(calls: number, firstSeed = 1): Promise<void> {
    const BATCH = 2000;
    for (let seed = firstSeed; this.calls < calls; seed++) {
      const before = ShadowWorld.available;
      const machine = await VmiMachine.create();
      try {
        this.#attackWith(machine, new Words(seed), Math.min(BATCH, calls - this.calls));
      } catch (error) {
        if (!(error instanceof DomainCrash)) throw error;
        this.endings.set(error.message, (this.endings.get(error.message) ?? 0) + 1);
      } finally {
        await machine.end();
      }
      if (ShadowWorld.available !== before) throw new Error('a guest has ended and keeps frames');
    }
  }

  #attackWith(machine: VmiMachine, words: Words, calls: number): void {
    machine.switchPagingOn();
    for (const [index, half] of FLAT.entries()) machine.poke(GDT + index * 4, half);
    machine.call(PrivateCall.initialise);
    for (let index = 0; index < calls; index++) {
      this.#disturb(machine, words);
      this.#call(machine, words);
      if (words.below(4) === 0) machine.vcpu.processor.flushTlb();
      if (words.below(16) === 0) restart(machine);
      machine.now += words.below(200_000);
      machine.vmi.expire();
      if (machine.vmi.deadline <= machine.now) throw new Error('an alarm stays behind the time');
      if (index % 500 === 499) check(machine);
    }
    for (const queue of machine.queues.all) queue.drain('turn');
    check(machine);
    recount(machine);
  }

  /** Page tables, records and the state for a processor change behind the host's back. */
  #disturb(machine: VmiMachine, words: Words): void {
    const page = 13 + words.below(PAGES - 13);
    machine.poke(page * PAGE_SIZE + words.below(1024) * 4, words.entry());
    // The entries that map the kernel itself stay.
    machine.poke(ROOT * PAGE_SIZE + (UNMAPPED >>> 20) + 4 + words.below(256) * 4, words.entry());
    machine.poke(WINDOW + WindowField.count, words.next());
    machine.poke(WINDOW + WindowField.records + words.below(4) * 4, words.next());
    machine.vcpu.processor.memory.translate(
      (UNMAPPED + 2 ** 22 + words.below(2 ** 30 - 2 ** 22)) as GuestVirtual,
      words.below(2) === 0 ? Access.read : Access.write,
      words.below(2) === 0,
    );
    for (const [offset, values] of STATE_WORDS)
      machine.poke(STATE + offset, values[words.below(values.length)] as number);
  }

  #call(machine: VmiMachine, words: Words): void {
    const number = NUMBERS[words.below(NUMBERS.length)] as number;
    const right = words.below(2) === 0 ? RIGHT[number] : undefined;
    const result = machine.call(number, {
      eax: words.next(),
      edx: words.next(),
      ecx: words.next(),
      stack: [words.next(), words.next()],
      esp: STACKS[words.below(STACKS.length)] as number,
      ...right,
    });
    this.calls++;
    const results = this.coverage.get(nameOf(number)) ?? new Map<string, number>();
    this.coverage.set(nameOf(number), results);
    results.set(NAMES[result], (results.get(NAMES[result]) ?? 0) + 1);
  }

  /** How often a call ended so. */
  times(number: number, result: SystemResult): number {
    return this.coverage.get(nameOf(number))?.get(NAMES[result]) ?? 0;
  }
}

/** Words of the state for a processor with values that they may have, right ones first. */
const STATE_WORDS: readonly (readonly [offset: number, values: readonly number[]])[] = [
  [ApState.cr0, [0x11, 0x11, 0x11, 0x8000_0000]],
  [ApState.cr4, [0, 0, 0, 0x8000_0000]],
  [ApState.efer, [0, 0, 0x100]],
  [ApState.cs, [CODE | (DATA << 16), CODE | (DATA << 16), CODE | 3, 0, (CODE << 16) | CODE]],
  [ApState.ds, [DATA, 0, 0xffff, DATA | 4]],
  [ApState.gdtLimit & ~3, [(FLAT.length * 4 - 1) << 16, 0, 0xffff_ffff]],
  [ApState.gdtBase, [GDT, GDT, UNMAPPED]],
];

function nameOf(number: number): string {
  return HOST_CALL_NAMES[number] ?? CALL_NAMES[number as Call] ?? `unknown ${number}`;
}

class Words {
  readonly #random: SeededRandom;
  readonly #word = new Uint32Array(1);

  constructor(seed: number) {
    this.#random = new SeededRandom(seed);
  }

  #any(): number {
    this.#random.fill(this.#word);
    return this.#word[0] as number;
  }

  below(limit: number): number {
    return this.#any() % limit;
  }

  /** Any word; two times of three one that means something. */
  next(): number {
    const kind = this.below(3);
    if (kind === 0) return this.#any();
    return kind === 1 ? this.below(PAGES + 2) : (WORDS[this.below(WORDS.length)] as number);
  }

  /** Of a page table: mostly to a page that there is. */
  entry(): number {
    const page = this.below(8) === 0 ? this.#any() >>> 12 : this.below(PAGES);
    return ((page << 12) | (this.#any() & 0xfff)) >>> 0;
  }
}

/** Lets the second processor begin as it was named, or as others do. */
function restart({ other }: VmiMachine): void {
  other.reset();
  other.startUp(0x10);
}

/** @throws Error when shadows have grown beyond their bound, or lead to a frame that is not the guest's */
function check({ world, vcpu }: VmiMachine): void {
  const { space, shadow } = world.paging;
  if (shadow.statistics().pages > SHADOW_PAGES) throw new Error('there are more shadows than may be');
  const own = new Set<number>(space.frames);
  const { cr3 } = vcpu.state;
  for (let address = UNMAPPED; address < UNMAPPED + 2 ** 30; address += PAGE_SIZE * 61) {
    const found = world.shadowed(vcpu.processor, cr3 / PAGE_SIZE, address as GuestVirtual, Access.read, false);
    if (found && !own.has(found.frame))
      throw new Error(`a shadow leads from 0x${address.toString(16)} out of the guest`);
  }
}

/** What refers to a frame is counted up and down; with no shadows left, all counts are 0. @throws Error */
function recount({ world }: VmiMachine): void {
  const { space, shadow } = world.paging;
  shadow.dropAll();
  if (shadow.statistics().pages !== 0) throw new Error('shadows are left when all are dropped');
  for (const frame of space.frames) {
    if (shadow.refersTo(frame as Frame)) throw new Error(`frame ${frame} counts as referred to, and nothing does`);
  }
}
