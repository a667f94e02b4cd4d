import type { Archive, Archived } from '../../archive/archive.ts';
import { Access } from '../../cpu/exits.ts';
import { NO_TABLES, PageKind } from '../../cpu/tlb.ts';
import type { FoundPage, FrameInvalidator, ShadowWalks, TableFormat } from '../../cpu/translation.ts';
import type { WalkControls } from '../../cpu/walk.ts';
import type { FramePool } from '../../memory/frame-pool.ts';
import type { Frame, GuestVirtual } from '../../x86/brand.ts';
import { PAGE_SHIFT, PAGE_SIZE } from '../../x86/brand.ts';
import type { DrainReason, QueueStatistics } from './queue-statistics.ts';
import { MOST_RECORDS, WINDOW, WindowField } from './window.ts';

type Format = Exclude<TableFormat, 'none'>;

const WINDOW_PAGE = WINDOW >>> PAGE_SHIFT;
const WORD = 4;

/**
 * The private queue of one virtual processor: changes of page tables that its kernel has made and the shadows do not know
 * yet. It stands in the processor's window. It goes between the processor and the shadows: whatever makes these agree with
 * the guest's tables (a flush, another root) drains it first, and so does a fault.
 */
export class UpdateQueue implements ShadowWalks, Archived {
  readonly #shadow: ShadowWalks;
  readonly #pool: FramePool;
  readonly #frame: Frame;
  readonly #statistics: QueueStatistics;
  /** Where the window is, in words. */
  readonly #word: number;
  #isOpen = false;
  /** Takes each entry that has changed, by its linear address. */
  onChange: (entry: GuestVirtual) => void = () => {};

  /** @throws OutOfFrames */
  constructor(shadow: ShadowWalks, pool: FramePool, statistics: QueueStatistics) {
    this.#shadow = shadow;
    this.#pool = pool;
    this.#statistics = statistics;
    this.#frame = pool.allocate();
    this.#word = pool.addressOf(this.#frame) / WORD;
  }

  archive(archive: Archive): void {
    this.#isOpen = archive.value('isOpen', this.#isOpen);
    archive.words('window', this.#pool.memory.u32.subarray(this.#word, this.#word + PAGE_SIZE / WORD));
  }

  /** From here on the kernel has the window in every address space. */
  open(): void {
    this.#isOpen = true;
  }

  drain(reason: DrainReason): void {
    const { u32 } = this.#pool.memory;
    const count = Math.min(u32[this.#word + WindowField.count / WORD] as number, MOST_RECORDS);
    if (count === 0) return;
    u32[this.#word + WindowField.count / WORD] = 0;
    const first = this.#word + WindowField.records / WORD;
    for (let record = first; record < first + count; record++) this.onChange(u32[record] as GuestVirtual);
    this.#statistics.drained(reason, count);
  }

  /** Its processor is gone; the frame's next owner must not find it marked as one that processors have cached. */
  release(invalidator: Pick<FrameInvalidator, 'invalidateFrame'>): void {
    invalidator.invalidateFrame(this.#frame);
    this.#pool.release(this.#frame);
  }

  // What a processor asks

  walk(
    format: Format,
    root: number,
    low: number,
    high: number,
    access: Access,
    user: boolean,
    controls: WalkControls,
    found: FoundPage,
  ): boolean {
    if (low >>> PAGE_SHIFT === WINDOW_PAGE && this.#isOpen && !user && access !== Access.fetch && high === 0) {
      const { result, tables } = found;
      result.frame = this.#frame;
      result.page = -1;
      result.writable = true;
      result.executable = false;
      result.kind = PageKind.global;
      tables[0] = NO_TABLES;
      return true;
    }
    return this.#shadow.walk(format, root, low, high, access, user, controls, found);
  }

  fill(format: Format, root: number, low: number, high: number, controls: WalkControls): void {
    this.#shadow.fill(format, root, low, high, controls);
  }

  flush(): void {
    this.drain('flush');
    this.#shadow.flush();
  }

  flushPage(format: Format, root: number, low: number, high: number): void {
    this.drain('flush');
    this.#shadow.flushPage(format, root, low, high);
  }

  passedOn(): void {
    this.drain('fault');
    this.#shadow.passedOn();
  }
}
