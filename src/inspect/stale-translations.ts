import type { FullName } from '../ops/catalogue.ts';
import type { GuestVirtual } from '../x86/brand.ts';
import { frameOfEntry } from '../x86/page-table.ts';
import { PTE_NO_EXECUTE_HIGH, Pte } from '../x86/registers.ts';

/** Whether a replaced entry is the same but for the right to write and the dirty bit. */
export function losesOnlyWriting(oldLow: number, oldHigh: number, newLow: number, newHigh: number): boolean {
  const ignored = Pte.writable | Pte.dirty | Pte.accessed;
  return (newLow & Pte.present) !== 0 && ((oldLow ^ newLow) & ~ignored) === 0 && (oldHigh ^ newHigh) === 0;
}

/** Whether a translation made from the old entry allows what the new one does not, or hides that a bit is to be set. */
export function needsFlush(oldLow: number, oldHigh: number, newLow: number, newHigh: number): boolean {
  if ((oldLow & Pte.present) === 0) return false;
  if ((newLow & Pte.present) === 0 || frameOfEntry(oldLow, oldHigh) !== frameOfEntry(newLow, newHigh)) return true;
  const lost = oldLow & ~newLow;
  if ((lost & (Pte.writable | Pte.user)) !== 0) return true;
  if ((lost & Pte.dirty) !== 0 && (oldLow & Pte.writable) !== 0) return true;
  return (newHigh & ~oldHigh & PTE_NO_EXECUTE_HIGH) !== 0;
}

/** A translation that a vCPU had when its entry was replaced, and may have until it flushes. */
export interface Holder {
  readonly vcpu: number;
  readonly address: GuestVirtual;
  /** Root that it was filled from, −1 for the current one. */
  readonly root: number;
  readonly writable: boolean;
}

/** A present entry that was replaced by one that allows less, with the translations of it that await a flush. */
export interface StaleRecord {
  readonly table: number;
  readonly index: number;
  readonly oldLow: number;
  readonly oldHigh: number;
  /** Page that the old entry named. */
  readonly page: number;
  readonly global: boolean;
  /** Only the right to write was lost. */
  readonly writeOnly: boolean;
  holders: readonly Holder[];
  readonly operation: FullName;
  readonly changedBy: number;
  readonly changedAt: GuestVirtual;
  /** As `MmuState.threadOf` of the vCPU that changed it. */
  readonly thread: number | undefined;
  /**
   * How far the work is that the change was a part of: `done` from when its vCPU, or its thread, has gone back to user mode, `unknown`
   * when that vCPU has switched to another task first, since nobody can tell when the first one goes on.
   */
  work: 'begun' | 'done' | 'unknown';
}

/** Enough for the largest unmapping between two flushes that Linux does; beyond it the oldest record is dropped. */
const MOST_RECORDS = 65_536;

const pageOf = (address: GuestVirtual): number => Math.floor(address / 4096);

/** Which replaced entries still await a flush, and by whom. */
export class StaleTranslations {
  readonly #byPage = new Map<number, Set<StaleRecord>>();
  readonly #byAddress = new Map<number, Set<StaleRecord>>();
  readonly #records = new Set<StaleRecord>();

  get size(): number {
    return this.#records.size;
  }

  add(record: StaleRecord): void {
    if (this.#records.size >= MOST_RECORDS) {
      const [oldest] = this.#records;
      if (oldest !== undefined) this.forget(oldest);
    }
    this.#records.add(record);
    addTo(this.#byPage, record.page, record);
    for (const { address } of record.holders) addTo(this.#byAddress, pageOf(address), record);
  }

  /** An entry that allows again what the old one did makes cached translations right again. */
  restored(table: number, index: number, newLow: number, newHigh: number): void {
    if ((newLow & Pte.present) === 0) return;
    for (const record of this.onPage(frameOfEntry(newLow, newHigh))) {
      if (record.table !== table || record.index !== index) continue;
      const lost = record.oldLow & ~newLow & (Pte.writable | Pte.user);
      if (lost === 0 && (newHigh & ~record.oldHigh & PTE_NO_EXECUTE_HIGH) === 0) this.forget(record);
    }
  }

  /**
   * @param vcpus who flushed
   * @param address what was flushed; undefined for everything
   * @param globalToo whether global translations went too
   */
  flushed(vcpus: number, address: GuestVirtual | undefined, globalToo: boolean): void {
    const records = address === undefined ? this.#records : (this.#byAddress.get(pageOf(address)) ?? []);
    for (const record of [...records]) {
      if (record.global && !globalToo) continue;
      this.#keep(record, (holder) => {
        const isMeant = address === undefined || pageOf(holder.address) === pageOf(address);
        return !isMeant || (vcpus & (1 << holder.vcpu)) === 0;
      });
    }
  }

  /** The host itself has removed all writable translations of a page: what stands allows no store. */
  writableRemoved(page: number): void {
    for (const record of this.onPage(page)) {
      if (record.writeOnly) this.forget(record);
      else record.holders = record.holders.map((holder) => ({ ...holder, writable: false }));
    }
  }

  /** The work is done that some changes were a part of. Gives what others have to have flushed by then. */
  settle(isMeant: (record: StaleRecord) => boolean): Holder[] {
    const left: Holder[] = [];
    for (const record of this.#records) {
      if (record.work !== 'begun' || !isMeant(record)) continue;
      record.work = 'done';
      left.push(...record.holders);
    }
    return left;
  }

  /** A vCPU leaves its work to do something else. */
  interrupt(vcpu: number): void {
    for (const record of this.#records) {
      if (record.changedBy === vcpu && record.work === 'begun') record.work = 'unknown';
    }
  }

  /** Changes that made translations of a page stale. */
  onPage(page: number): StaleRecord[] {
    return [...(this.#byPage.get(page) ?? [])];
  }

  /** A vCPU's stale translations of an address, each with the change that made it so. */
  at(vcpu: number, address: GuestVirtual): { record: StaleRecord; holder: Holder }[] {
    const page = pageOf(address);
    return [...(this.#byAddress.get(page) ?? [])].flatMap((record) => {
      const holder = record.holders.find((other) => other.vcpu === vcpu && pageOf(other.address) === page);
      return holder ? [{ record, holder }] : [];
    });
  }

  forget(record: StaleRecord): void {
    this.#records.delete(record);
    removeFrom(this.#byPage, record.page, record);
    for (const { address } of record.holders) removeFrom(this.#byAddress, pageOf(address), record);
  }

  forgetPage(page: number): void {
    for (const record of this.onPage(page)) this.forget(record);
  }

  /** Keeps the holders for which `stays` is true, and the record if there are any. */
  #keep(record: StaleRecord, stays: (holder: Holder) => boolean): void {
    const kept = record.holders.filter(stays);
    if (kept.length === record.holders.length) return;
    if (kept.length === 0) {
      this.forget(record);
      return;
    }
    const pages = new Set(kept.map(({ address }) => pageOf(address)));
    for (const { address } of record.holders) {
      if (!pages.has(pageOf(address))) removeFrom(this.#byAddress, pageOf(address), record);
    }
    record.holders = kept;
  }
}

function addTo(map: Map<number, Set<StaleRecord>>, key: number, record: StaleRecord): void {
  const records = map.get(key);
  if (records === undefined) map.set(key, new Set([record]));
  else records.add(record);
}

function removeFrom(map: Map<number, Set<StaleRecord>>, key: number, record: StaleRecord): void {
  const records = map.get(key);
  if (records?.delete(record) && records.size === 0) map.delete(key);
}
