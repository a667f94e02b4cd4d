import type { FullName } from '../ops/catalogue.ts';
import type { GuestVirtual } from '../x86/brand.ts';
import { frameOfEntry } from '../x86/page-table.ts';
import { PTE_NO_EXECUTE_HIGH, Pte } from '../x86/registers.ts';

/** Whether a translation made from the old entry allows what the new one does not, or hides that a bit is to be set. */
export function needsFlush(oldLow: number, oldHigh: number, newLow: number, newHigh: number): boolean {
  if ((oldLow & Pte.present) === 0) return false;
  if ((newLow & Pte.present) === 0 || frameOfEntry(oldLow, oldHigh) !== frameOfEntry(newLow, newHigh)) return true;
  const lost = oldLow & ~newLow;
  if ((lost & (Pte.writable | Pte.user)) !== 0) return true;
  if ((lost & Pte.dirty) !== 0 && (oldLow & Pte.writable) !== 0) return true;
  return (newHigh & ~oldHigh & PTE_NO_EXECUTE_HIGH) !== 0;
}

/** A present entry that was replaced by one that allows less, with the vCPUs that had it in a TLB and have not flushed since. */
export interface StaleRecord {
  readonly table: number;
  readonly index: number;
  readonly oldLow: number;
  readonly oldHigh: number;
  /** Page that the old entry named. */
  readonly page: number;
  /** Address that the entry maps, where the operation told it. */
  readonly address: GuestVirtual | undefined;
  readonly global: boolean;
  /** Bit n: vCPU n had the translation and has not flushed. */
  pending: number;
  readonly operation: FullName;
  readonly changedBy: number;
  readonly changedAt: GuestVirtual;
  /** The vCPU that changed the entry has gone back to user mode since. */
  settled: boolean;
}

/** Enough for the largest unmapping between two flushes that Linux does; beyond it the oldest record is dropped. */
const MOST_RECORDS = 65_536;

export const samePage = (a: GuestVirtual, b: GuestVirtual): boolean => Math.floor(a / 4096) === Math.floor(b / 4096);

/** Which replaced entries still await a flush, and by whom. */
export class StaleTranslations {
  readonly #byPage = new Map<number, StaleRecord[]>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  add(record: StaleRecord): void {
    if (this.#size >= MOST_RECORDS) {
      const [oldest] = this.#byPage.values();
      if (oldest?.[0] !== undefined) this.forget(oldest[0]);
    }
    const records = this.#byPage.get(record.page);
    if (records === undefined) this.#byPage.set(record.page, [record]);
    else records.push(record);
    this.#size++;
  }

  /** An entry that allows again what the old one did makes cached translations right again. */
  restored(table: number, index: number, newLow: number, newHigh: number): void {
    if ((newLow & Pte.present) === 0) return;
    const page = frameOfEntry(newLow, newHigh);
    this.#drop(this.#byPage.get(page), (record) => {
      if (record.table !== table || record.index !== index) return false;
      const lost = record.oldLow & ~newLow & (Pte.writable | Pte.user);
      return lost === 0 && (newHigh & ~record.oldHigh & PTE_NO_EXECUTE_HIGH) === 0;
    });
  }

  /**
   * @param vcpus who flushed
   * @param address what was flushed; undefined for everything
   * @param globalToo whether global translations went too
   */
  flushed(vcpus: number, address: GuestVirtual | undefined, globalToo: boolean): void {
    for (const records of [...this.#byPage.values()]) {
      this.#drop(records, (record) => {
        if (record.global && !globalToo) return false;
        if (address !== undefined && (record.address === undefined || !samePage(record.address, address))) return false;
        record.pending &= ~vcpus;
        return record.pending === 0;
      });
    }
  }

  settle(vcpu: number): void {
    for (const records of this.#byPage.values()) {
      for (const record of records) if (record.changedBy === vcpu) record.settled = true;
    }
  }

  /** The change that made this vCPU's translation of the address stale. */
  find(page: number, vcpu: number, address: GuestVirtual): StaleRecord | undefined {
    return this.#byPage
      .get(page)
      ?.find(
        (record) =>
          (record.pending & (1 << vcpu)) !== 0 && (record.address === undefined || samePage(record.address, address)),
      );
  }

  forget(record: StaleRecord): void {
    this.#drop(this.#byPage.get(record.page), (other) => other === record);
  }

  forgetPage(page: number): void {
    this.#drop(this.#byPage.get(page), () => true);
  }

  /** Removes the records for which `gone` is true; all of the list are of one page. */
  #drop(records: StaleRecord[] | undefined, gone: (record: StaleRecord) => boolean): void {
    const page = records?.[0]?.page;
    if (records === undefined || page === undefined) return;
    const kept = records.filter((record) => !gone(record));
    this.#size -= records.length - kept.length;
    if (kept.length === 0) this.#byPage.delete(page);
    else this.#byPage.set(page, kept);
  }
}
