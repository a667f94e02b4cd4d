import type { LguestEra } from '../../src/api.ts';
import type { PlainRecord } from '../../src/archive/plain.ts';
import { restore } from '../../src/archive/reader.ts';
import { save } from '../../src/archive/writer.ts';
import { MemoryStore } from '../../src/devices/block/memory-store.ts';
import { DomainCrash } from '../../src/domain/crash.ts';
import { SeededRandom } from '../../src/domain/seeded-random.ts';
import type { LguestDomain } from '../../src/interfaces/lguest/domain.ts';
import { type GuestPhysical, type GuestVirtual, PAGE_SIZE } from '../../src/x86/brand.ts';
import { Register } from '../../src/x86/registers.ts';
import { LguestHost, settle } from '../lguest-domain.ts';
import { HostileRecord, withoutNumbers } from './record.ts';

const ERAS: readonly LguestEra[] = ['L1', 'L2', 'L3'];

const PAGES = 128;
const SHARED = 0x3000;
const CALLS_OF_A_GUEST = 400;
/** Calls between two turns, in which the guest executes whatever stands at a random place. */
const CALLS_OF_A_TURN = 16;

/**
 * Guests of each era in turn whose calls are wrong as often as right, whose page tables and shared data are random, and who
 * execute random bytes. Anything but an end of the guest alone is an error of the host and comes out of `attack`, and so
 * does a recount of their shadows that finds something else than is stored.
 */
export class HostileLguest {
  /** Calls by era and name. */
  readonly record = new HostileRecord();
  /** Frames that guests have not given back when they ended. */
  lostFrames = 0;
  /** One for all guests, one after another. */
  readonly #host = new LguestHost(PAGES);
  readonly #random = new SeededRandom(1);
  readonly #words = new Uint32Array(1);

  async attack(calls: number, seed: number): Promise<void> {
    this.#random.seed(seed);
    const { pool } = this.#host;
    const before = pool.available;
    while (this.record.calls < calls) {
      const era = ERAS[this.record.guests % ERAS.length] as LguestEra; // not beyond their number
      await this.#guest(era, this.#below(2) === 0 ? 'two-level' : 'pae');
    }
    this.lostFrames = before - pool.available;
  }

  #next(): number {
    this.#random.fill(this.#words);
    return this.#words[0] as number;
  }

  #below(limit: number): number {
    return this.#next() % limit;
  }

  async #guest(era: LguestEra, format: 'two-level' | 'pae'): Promise<void> {
    const domain = await this.#host.createDomain(new MemoryStore(new Uint8Array(4096)));
    settle(domain, () => domain.bus.start());
    restore(domain, {
      ...save(domain),
      kernel: { era, format, kernelAddress: 0x8_0000, deviceFormat: 'counts' },
    } as PlainRecord);
    this.record.guests++;
    this.#fillMemory(domain);
    domain.vcpu.enter(this.#address(), format, era === 'L3' ? undefined : 0x1000);
    for (let call = 0; call < CALLS_OF_A_GUEST && domain.state.kind === 'running'; call++) {
      this.#call(domain, call === 0 && this.#below(8) !== 0);
      if (call % CALLS_OF_A_TURN !== CALLS_OF_A_TURN - 1) continue;
      domain.vcpu.processor.rip = this.#address() as GuestVirtual;
      domain.turn();
      const [wrong] = domain.paging.shadow?.recount() ?? [];
      if (wrong !== undefined) throw new Error(`call ${this.record.calls}: ${JSON.stringify(wrong)}`);
    }
    const { state } = domain;
    this.record.ended(state.kind === 'crash' ? state.reason : state.kind);
    await domain.destroy();
  }

  /** Page tables that lead into the guest's memory now and then, code, and nothing. */
  #fillMemory(domain: LguestDomain): void {
    const { view } = domain.group.parts.memory;
    for (let page = 0; page < domain.ramPages; page++) {
      const isTable = page < 3 || this.#below(3) === 0;
      settle(domain, () => {
        const address = domain.paging.addressOf((page * PAGE_SIZE) as GuestPhysical);
        for (let word = 0; word < PAGE_SIZE / 4; word++) {
          const entry = this.#below(PAGES + 2) * PAGE_SIZE + (this.#below(4) === 0 ? 0 : 0x67);
          const isHigh = word % 2 === 1 && page >= 2;
          view.setUint32(address + word * 4, isTable ? (isHigh ? 0 : entry) : this.#next(), true);
        }
      });
    }
    const { layout } = domain;
    for (let byte = 0; byte < layout.size; byte += 4)
      this.#write(domain, SHARED + byte, byte < layout.slots ? 0xffff_ffff : 0);
    this.#write(domain, SHARED + layout.irqEnabled, 0x200);
    this.#write(domain, SHARED + layout.blockedInterrupts, 0);
    this.#write(domain, SHARED + layout.systemCallVector, this.#below(16) === 0 ? this.#argument() : 0x80);
    this.#write(domain, SHARED + layout.kernelAddress, 0x8_0000);
    this.#write(domain, SHARED + layout.noInterruptsStart, 0);
    this.#write(domain, SHARED + layout.noInterruptsEnd, 0);
  }

  #call(domain: LguestDomain, isFirst: boolean): void {
    const { processor } = domain.vcpu;
    const { calls, argumentRegisters, layout } = domain.era;
    const number = isFirst ? 1 : this.#callNumber(calls);
    processor.set(Register.rax, number, 0);
    for (const register of argumentRegisters) processor.set(register, this.#argument(), 0);
    const shared = this.#below(16) === 0 ? this.#argument() : SHARED;
    if (isFirst) processor.set(argumentRegisters[0] as Register, shared, 0);
    else this.#make(domain, number);
    // Something in the ring, now and then; and other words of the shared data.
    if (this.#below(4) === 0) {
      const slot = this.#below(64);
      for (let word = 0; word < layout.slotBytes / 4; word++) {
        const value = word === 0 ? this.#callNumber(calls) : this.#argument();
        this.#write(domain, SHARED + layout.slots + slot * layout.slotBytes + word * 4, value);
      }
      if (this.#below(8) === 0) this.#write(domain, SHARED + layout.slotStates + (slot & ~3), 0);
    }
    if (this.#below(16) === 0) this.#write(domain, SHARED + layout.irqEnabled, this.#below(2) * 0x200);
    const name = `${domain.era.name} ${calls[number] ?? 'without a name'}`;
    try {
      settle(domain, () => domain.hypercalls.execute());
      this.record.made(name, 'carried out');
    } catch (error) {
      if (!(error instanceof DomainCrash)) throw error;
      domain.crash(domain.vcpu, error.message);
      this.record.made(name, `ends it (${withoutNumbers(error.message)})`);
    }
  }

  /** Those that always end the guest come seldom. */
  #callNumber(calls: LguestDomain['era']['calls']): number {
    for (;;) {
      const number = this.#below(calls.length + 1);
      const isLast = number === 1 || number === 2 || calls[number] === undefined;
      if (!isLast || this.#below(32) === 0) return number;
    }
  }

  /** Arguments that a sound kernel could have, seven times out of eight, for calls that would rarely get any by chance. */
  #make(domain: LguestDomain, number: number): void {
    const { processor } = domain.vcpu;
    const sound = SOUND[domain.era.calls[number] ?? ''];
    if (!sound || this.#below(8) === 0) return;
    const values = sound(
      (limit) => this.#below(limit),
      () => this.#address(),
    );
    for (const [index, value] of values.entries()) {
      const register = domain.era.argumentRegisters[index];
      if (register !== undefined) processor.set(register, value >>> 0, 0);
    }
  }

  #address(): number {
    return this.#below(PAGES * PAGE_SIZE);
  }

  #argument(): number {
    switch (this.#below(6)) {
      case 0:
        return this.#below(300);
      case 1:
        return this.#address();
      case 2:
        return this.#below(PAGES + 2) * PAGE_SIZE;
      case 3:
        return PAGES * PAGE_SIZE - this.#below(16);
      case 4:
        return 0xffff_ffff - this.#below(0x1_0000);
      default:
        return this.#next();
    }
  }

  #write(domain: LguestDomain, physical: number, value: number): void {
    settle(domain, () => {
      const address = domain.paging.addressOf(physical as GuestPhysical);
      domain.group.parts.memory.view.setUint32(address, value >>> 0, true);
      domain.group.frameWritten(domain.group.parts.pool.frameAt(address), physical % PAGE_SIZE, 4);
    });
  }
}

type Below = (limit: number) => number;

const SOUND: Readonly<Record<string, (below: Below, address: () => number) => readonly number[]>> = {
  shutdown: (below) => [0xffff_ffff, below(3)],
  loadGdt: (below, address) => [address(), below(33)],
  newPageTable: (below) => [below(PAGES) * PAGE_SIZE],
  loadIdtEntry: (below, address) => [
    below(256),
    address() & 0xffff,
    (address() & 0xffff_0000) | 0x8e00 | (below(2) << 8),
  ],
  setStack: (below, address) => [0x69, address(), below(3)],
  setPte: (below, address) => [below(PAGES) * PAGE_SIZE, address()],
  setTopEntry: (below) => [below(PAGES) * PAGE_SIZE, below(1024)],
  setMiddleEntry: (below) => [below(PAGES) * PAGE_SIZE, below(512)],
  loadTls: (_below, address) => [address()],
  notify: (_below, address) => [address()],
  loadGdtEntry: (below, address) => [below(32), address(), 0x00cf_9200 | (below(8) << 12)],
};
