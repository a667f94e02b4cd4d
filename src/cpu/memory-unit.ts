import type { DirtyLog } from '../memory/dirty-log.ts';
import type { FramePool } from '../memory/frame-pool.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import { PageAbsent } from '../memory/page-absent.ts';
import {
  type Frame,
  type GuestVirtual,
  type HostAddress,
  highWord,
  isCanonical,
  joinSigned,
  lowWord,
  PAGE_SIZE,
} from '../x86/brand.ts';
import { Vector } from '../x86/registers.ts';
import type { CodeCache } from './code-cache.ts';
import { Access, Exit } from './exits.ts';
import { FrameMark, type FrameMarks } from './frame-marks.ts';
import type { FrameWatchers } from './frame-watchers.ts';
import type { ObservedPages } from './observed-pages.ts';
import { State } from './state.ts';
import type { TableGenerations } from './table-generations.ts';
import { NO_TABLES, type TablePath, type Tlb } from './tlb.ts';
import { ONLY_CONTEXT, type ProcessContext, type TlbCounters, TlbSets } from './tlb-sets.ts';
import type { GuestMemory, ShadowWalks, TableFormat, Translation } from './translation.ts';
import { PageWalker, type WalkControls } from './walk.ts';

/** Where the pieces of a slow access are gathered: the last bytes of the state block's scratch area. */
const GATHER = State.scratch + 0x200;

/** What all processors of a host share. */
export interface HostParts {
  readonly memory: HostMemory;
  readonly pool: FramePool;
  readonly marks: FrameMarks;
  readonly watchers: FrameWatchers;
  readonly code: CodeCache;
  readonly tlbEntries: number;
  /** Roots whose translations a processor keeps, for each of the two privileges; 1 keeps none but the current one's. */
  readonly tlbRoots: number;
  /** Never filled: in place of a processor's TLB it makes all accesses come to the host, for checks that hits would not make. */
  readonly emptyTlb: Tlb;
}

/**
 * The memory side of one virtual processor: its two TLBs (kernel and user), the walk that fills them, and all accesses
 * that miss them: page crossings, code pages, watched pages, stores that the paging carries out itself.
 */
export class MemoryUnit implements GuestMemory {
  readonly #parts: HostParts;
  readonly #state: HostAddress;
  readonly #word: number;
  readonly #walker: PageWalker;
  readonly #kernelSets: TlbSets;
  readonly #userSets: TlbSets;
  readonly tlbCounters: TlbCounters = { misses: 0, fills: 0, flushes: 0, pageFlushes: 0, switches: 0, returns: 0 };
  /** Whether accesses that are not aligned to their size fault. */
  alignmentChecked = false;
  /** Told of each access that no TLB answers, before the walk. */
  onMiss: ((address: GuestVirtual, access: Access) => void) | undefined;
  /** Told of each change of the roots. */
  onRoots: ((format: TableFormat, kernelRoot: number, userRoot: number) => void) | undefined;
  /** Pages that someone wants to see all accesses to. */
  observed: ObservedPages | undefined;
  /** Whether accesses reach devices; otherwise they leave generated code first. */
  devicesOpen = false;
  /** The same of observed pages. */
  observedOpen = false;
  #metNotCanonical = false;
  /** Whether the last fetch met a page that the host must bring in. */
  fetchMetHostFault = false;
  readonly controls: WalkControls = { cr0: 0, cr4: 0, efer: 0 };
  #translation: Translation = { format: 'none', frames: new Int32Array(0) };
  #kernelRoot = -1;
  #userRoot = -1;
  #context = ONLY_CONTEXT.number;

  constructor(parts: HostParts, state: HostAddress) {
    this.#parts = parts;
    this.#state = state;
    this.#word = state >> 2;
    this.#walker = new PageWalker(parts.memory, parts.pool);
    const { memory, pool, marks, tlbEntries, tlbRoots } = parts;
    this.#kernelSets = new TlbSets(memory, pool, marks, tlbEntries, tlbRoots, this.tlbCounters);
    this.#userSets = new TlbSets(memory, pool, marks, tlbEntries, tlbRoots, this.tlbCounters);
  }

  get emptyTlb(): Tlb {
    return this.#parts.emptyTlb;
  }

  get kernelTlb(): Tlb {
    return this.#kernelSets.current;
  }

  get userTlb(): Tlb {
    return this.#userSets.current;
  }

  get translation(): Translation {
    return this.#translation;
  }

  set translation(translation: Translation) {
    this.#translation = translation;
    this.forget();
  }

  /** Drops all translations, and the roots. */
  forget(): void {
    this.#kernelRoot = -1;
    this.#userRoot = -1;
    this.#context = ONLY_CONTEXT.number;
    this.#kernelSets.forget();
    this.#userSets.forget();
  }

  /** Changes the roots; to load the same ones again is a flush, unless translations are kept. Global pages stay. */
  setRoots(kernelRoot: number, userRoot: number, context: ProcessContext = ONLY_CONTEXT): void {
    this.onRoots?.(this.#translation.format, kernelRoot, userRoot);
    this.#translation.shadow?.flush();
    const isOther = context.number !== this.#context;
    this.#context = context.number;
    if (!isOther && kernelRoot === this.#kernelRoot && userRoot === this.#userRoot) {
      if (!context.keep) this.#flush(false);
      return;
    }
    if (isOther || kernelRoot !== this.#kernelRoot) {
      this.#kernelRoot = kernelRoot;
      this.#kernelSets.select(kernelRoot, this.#translation, context);
    }
    if (isOther || userRoot !== this.#userRoot) {
      this.#userRoot = userRoot;
      this.#userSets.select(userRoot, this.#translation, context);
    }
  }

  /** The guest's flush of both TLBs, global pages included. */
  flush(): void {
    this.#translation.shadow?.flush();
    this.#flush(true);
  }

  /** The guest's flush of one page. */
  flushPage(address: GuestVirtual): void {
    this.tlbCounters.pageFlushes++;
    const low = lowWord(address);
    const high = highWord(address);
    this.#kernelSets.invalidatePage(low, high, this.#translation);
    this.#userSets.invalidatePage(low, high, this.#translation);
    const { shadow, format } = this.#translation;
    if (!shadow || format === 'none') return;
    shadow.flushPage(format, this.#kernelRoot, low, high);
    if (this.#userRoot !== this.#kernelRoot) shadow.flushPage(format, this.#userRoot, low, high);
  }

  #flush(all: boolean): void {
    this.tlbCounters.flushes++;
    this.#kernelSets.flush(this.#translation, all);
    this.#userSets.flush(this.#translation, all);
  }

  get #userMode(): boolean {
    return this.#parts.memory.u32[this.#word + State.userAccess / 4] !== 0;
  }

  /**
   * Translates for one access and caches the page. The host address of the byte, or −1 with the fault described by
   * the walker's result (`frame` −1).
   */
  #translate(low: number, high: number, access: Access, user: boolean): HostAddress {
    const { marks, pool } = this.#parts;
    const translation = this.#translation;
    this.onMiss?.(joinSigned(low, high) as GuestVirtual, access);
    const root = user ? this.#userRoot : this.#kernelRoot;
    const allowed =
      translation.shadow && translation.format !== 'none'
        ? this.#walkShadow(translation, translation.shadow, translation.format, root, low, high, access, user)
        : this.#walker.walk(translation, root, low, high, access, user, this.controls);
    if (!allowed) return -1 as HostAddress;
    const { frame, page, writable, executable } = this.#walker.result;
    if (this.observed?.isObserved(page)) return (pool.addressOf(frame) + (low & 0xfff)) as HostAddress;
    const unseen = this.#noteInLog(translation.log, page, access);
    const mayWrite = writable && unseen && !marks.has(frame, FrameMark.code | FrameMark.watched);
    const address = pool.addressOf(frame);
    const generations = translation.tableGenerations;
    const path = generations && this.#datePath(generations);
    this.tlbCounters.fills++;
    const { kind } = this.#walker.result;
    (user ? this.userTlb : this.kernelTlb).fill(low, high, address, mayWrite, executable, path, kind);
    marks.set(frame, mayWrite ? FrameMark.cached | FrameMark.cachedWritable : FrameMark.cached);
    return (address + (low & 0xfff)) as HostAddress;
  }

  #datePath(generations: TableGenerations): TablePath {
    const { path, tables } = this.#walker;
    const last = tables[0] as number;
    if (last === NO_TABLES) return path;
    path.lastGeneration = generations.of(last);
    path.upperGenerations = (generations.of(tables[1] as number) + generations.of(tables[2] as number)) >>> 0;
    return path;
  }

  /** Whether stores through a translation may go unseen: with a log of written pages, those to a page that it lists. */
  #noteInLog(log: DirtyLog | undefined, page: number, access: Access): boolean {
    if (!log?.isOn || page < 0) return true;
    if (access === Access.write) log.note(page);
    return log.has(page);
  }

  /** A walk of shadow tables; where they do not lead, the guest's tables are walked and entries made out of theirs. */
  #walkShadow(
    translation: Translation,
    shadow: ShadowWalks,
    format: Exclude<TableFormat, 'none'>,
    root: number,
    low: number,
    high: number,
    access: Access,
    user: boolean,
  ): boolean {
    const walker = this.#walker;
    const { result } = walker;
    const { controls } = this;
    if (shadow.walk(format, root, low, high, access, user, controls, walker)) return true;
    if (!walker.walk(translation, root, low, high, access, user, controls)) {
      if (result.absent < 0 && result.device < 0) shadow.passedOn();
      return false;
    }
    // What the host maps itself is in no table of the guest's.
    if (walker.tables[0] === NO_TABLES) return true;
    shadow.fill(format, root, low, high, controls);
    // Without CR0.WP the kernel may do more than an entry says: each time by a walk.
    if (!shadow.walk(format, root, low, high, access, user, controls, walker)) result.writable = false;
    return true;
  }

  /** Leaves the exception, or the page that the host must bring in, in the state block. */
  #pageFault(low: number, high: number): Exit {
    const { u32 } = this.#parts.memory;
    const { absent } = this.#walker.result;
    if (absent >= 0) return this.#hostFault(absent, this.#walker.result.absentForWrite);
    u32[this.#word + State.exitDetail / 4] = Vector.pageFault;
    u32[this.#word + State.exitError / 4] = this.#walker.result.error;
    u32[this.#word + State.cr2 / 4] = low;
    u32[this.#word + State.cr2 / 4 + 1] = high;
    return Exit.exception;
  }

  #hostFault(page: number, write: boolean): Exit {
    const { u32 } = this.#parts.memory;
    u32[this.#word + State.exitDetail / 4] = page;
    u32[this.#word + State.exitError / 4] = write ? 1 : 0;
    return Exit.hostFault;
  }

  #notCanonical(): Exit {
    this.#metNotCanonical = true;
    return this.#raise(Vector.generalProtection);
  }

  #raise(vector: Vector): Exit {
    const { u32 } = this.#parts.memory;
    u32[this.#word + State.exitDetail / 4] = vector;
    u32[this.#word + State.exitError / 4] = 0;
    return Exit.exception;
  }

  /** Whether any of the bytes has an address that is not canonical or, outside 64-bit code, lies beyond 4 GiB. */
  #isOutside(low: number, high: number, bytes: number): boolean {
    if (low + bytes <= 0x1_0000_0000) return !isCanonical(high);
    if (this.#parts.memory.u32[this.#word + State.codeSize / 4] !== 64) return true;
    return !isCanonical(high) || !isCanonical((high + 1) >>> 0);
  }

  #isMisaligned(low: number, bytes: number): boolean {
    return this.alignmentChecked && (low & (bytes - 1)) !== 0;
  }

  /** A load that missed: `missAddress` → `missValue`. 0 or an exit. */
  loadMiss(bytes: number): number {
    return this.#load(bytes, false);
  }

  #load(bytes: number, forUpdate: boolean): number {
    this.tlbCounters.misses++;
    const { u32, u8 } = this.#parts.memory;
    const low = u32[this.#word + State.missAddress / 4] as number;
    const high = u32[this.#word + State.missAddress / 4 + 1] as number;
    if (this.#isOutside(low, high, bytes)) return this.#notCanonical();
    if (this.#isMisaligned(low, bytes)) return this.#raise(Vector.alignmentCheck);
    const user = this.#userMode;
    const target = this.#state + State.missValue;
    const first = this.#translate(low, high, Access.read, user);
    const inFirst = Math.min(bytes, PAGE_SIZE - (low & 0xfff));
    if (first < 0) {
      const { device } = this.#walker.result;
      if (device < 0 || inFirst < bytes) return this.#pageFault(low, high);
      if (!this.devicesOpen) return Exit.device;
      this.#loadFromDevice(device * PAGE_SIZE + (low & 0xfff), bytes);
      return 0;
    }
    const { page } = this.#walker.result;
    if (this.#mustBeSeen(page)) return Exit.observed;
    if (inFirst < bytes) {
      const nextLow = (low + inFirst) >>> 0;
      const nextHigh = nextLow === 0 ? (high + 1) >>> 0 : high;
      const second = this.#translate(nextLow, nextHigh, Access.read, user);
      if (second < 0) return this.#pageFault(nextLow, nextHigh);
      const nextPage = this.#walker.result.page;
      if (this.#mustBeSeen(nextPage)) return Exit.observed;
      u8.copyWithin(target, first, first + inFirst);
      u8.copyWithin(target + inFirst, second, second + bytes - inFirst);
      this.#showLoad(nextPage, 0, bytes - inFirst, forUpdate);
    } else {
      this.#parts.memory.copyFew(target, first, bytes);
    }
    this.#showLoad(page, low & 0xfff, inFirst, forUpdate);
    return 0;
  }

  /** A store that missed: `missValue` → `missAddress`. 0 or an exit. */
  storeMiss(bytes: number): number {
    this.tlbCounters.misses++;
    const { u32 } = this.#parts.memory;
    const low = u32[this.#word + State.missAddress / 4] as number;
    const high = u32[this.#word + State.missAddress / 4 + 1] as number;
    return this.#storeFrom(this.#state + State.missValue, low, high, bytes, this.#userMode);
  }

  /** Stores bytes of host memory at a linear address; nothing is written unless all of it can be. */
  #storeFrom(source: number, low: number, high: number, bytes: number, user: boolean): number {
    if (this.#isOutside(low, high, bytes)) return this.#notCanonical();
    if (this.#isMisaligned(low, bytes)) return this.#raise(Vector.alignmentCheck);
    const inFirst = Math.min(bytes, PAGE_SIZE - (low & 0xfff));
    const first = this.#translate(low, high, Access.write, user);
    if (first < 0) {
      const { device } = this.#walker.result;
      if (device >= 0 && inFirst === bytes) {
        if (!this.devicesOpen) return Exit.device;
        this.#storeToDevice(device * PAGE_SIZE + (low & 0xfff), source, bytes);
        return 0;
      }
      if (this.#mustBeSeen(this.#walker.result.refused)) return Exit.observed;
      if (inFirst === bytes && this.#emulateStore(source, low, high, bytes, user)) return 0;
      return this.#pageFault(low, high);
    }
    const { page } = this.#walker.result;
    if (this.#mustBeSeen(page)) return Exit.observed;
    if (inFirst === bytes) {
      this.#showStore(page, low & 0xfff, bytes);
      this.#put(first, source, bytes);
      return 0;
    }
    const nextLow = (low + inFirst) >>> 0;
    const nextHigh = nextLow === 0 ? (high + 1) >>> 0 : high;
    const second = this.#translate(nextLow, nextHigh, Access.write, user);
    if (second < 0) return this.#pageFault(nextLow, nextHigh);
    const nextPage = this.#walker.result.page;
    if (this.#mustBeSeen(nextPage)) return Exit.observed;
    this.#showStore(page, low & 0xfff, inFirst);
    this.#showStore(nextPage, 0, bytes - inFirst);
    // With one entry a TLB, the second walk may have replaced the first page; the addresses stay good.
    this.#put(first, source, inFirst);
    this.#put(second, source + inFirst, bytes - inFirst);
    return 0;
  }

  /** Loads into `missValue`. */
  #loadFromDevice(address: number, bytes: number): void {
    const { u8 } = this.#parts.memory;
    for (let done = 0; done < bytes; ) {
      const size = deviceAccess(address + done, bytes - done);
      let value = this.#translation.devices?.load(address + done, size) ?? 0;
      for (const end = done + size; done < end; done++, value >>>= 8) u8[this.#state + State.missValue + done] = value;
    }
  }

  #storeToDevice(address: number, source: number, bytes: number): void {
    const { u8 } = this.#parts.memory;
    for (let done = 0; done < bytes; ) {
      const size = deviceAccess(address + done, bytes - done);
      let value = 0;
      for (let byte = size; byte-- > 0; ) value = ((value << 8) | (u8[source + done + byte] as number)) >>> 0;
      this.#translation.devices?.store(address + done, size, value);
      done += size;
    }
  }

  #put(target: HostAddress, source: number, bytes: number): void {
    this.#parts.memory.copyFew(target, source, bytes);
    this.#noteWrite(target, bytes);
  }

  /** Whether an access met a page that someone observes, by code that has not been left for it yet. */
  #mustBeSeen(page: number): boolean {
    return this.observed !== undefined && !this.observedOpen && page >= 0 && this.observed.isObserved(page);
  }

  #showLoad(page: number, offset: number, bytes: number, forUpdate: boolean): void {
    if (page >= 0 && this.observed?.isObserved(page)) this.observed.loaded(page, offset, bytes, forUpdate);
  }

  #showStore(page: number, offset: number, bytes: number): void {
    if (page >= 0 && this.observed?.isObserved(page)) this.observed.storing(page, offset, bytes);
  }

  #emulateStore(source: number, low: number, high: number, bytes: number, user: boolean): boolean {
    const target = this.#walker.result.refused;
    if (user || target < 0 || !this.#translation.emulateStore) return false;
    const { error } = this.#walker.result;
    const value = this.#parts.memory.u8.slice(source, source + bytes);
    try {
      if (this.#translation.emulateStore(joinSigned(low, high) as GuestVirtual, target, value)) return true;
    } catch (absent) {
      // Generated code is left by a result, never by an exception.
      if (!(absent instanceof PageAbsent)) throw absent;
      this.#walker.result.absent = absent.page;
      this.#walker.result.absentForWrite = absent.write;
    }
    this.#walker.result.error = error;
    return false;
  }

  /**
   * Begins a read-modify-write that missed: leaves the address to work on in `missValue`. Where the bytes are not
   * plainly writable in one page they are copied to the gather area, and `missPending` says how many to commit.
   */
  updateMiss(bytes: number): number {
    this.tlbCounters.misses++;
    const { memory, marks, pool } = this.#parts;
    const { u32 } = memory;
    const low = u32[this.#word + State.missAddress / 4] as number;
    const high = u32[this.#word + State.missAddress / 4 + 1] as number;
    if (this.#isOutside(low, high, bytes)) return this.#notCanonical();
    if (this.#isMisaligned(low, bytes)) return this.#raise(Vector.alignmentCheck);
    const user = this.#userMode;
    const pointerWord = this.#word + State.missValue / 4;
    const pendingWord = this.#word + State.missPending / 4;
    const crossing = (low & 0xfff) + bytes > PAGE_SIZE;
    const first = this.#translate(low, high, Access.write, user);
    const { device, refused, page } = this.#walker.result;
    if (this.#mustBeSeen(first < 0 ? refused : page)) return Exit.observed;
    const isPlain = first >= 0 && !crossing && !(page >= 0 && this.observed?.isObserved(page));
    if (isPlain && !marks.has(pool.frameAt(first), FrameMark.code | FrameMark.watched)) {
      u32[pointerWord] = first;
      u32[pendingWord] = 0;
      return 0;
    }
    const host = !crossing && (device >= 0 || (!user && refused >= 0 && this.#translation.emulateStore !== undefined));
    if (first < 0 && !host) return this.#pageFault(low, high);
    if (crossing) {
      const checked = this.#checkWritable(low, high, bytes, user);
      if (checked !== 0) return checked;
    }
    const failed = this.#load(bytes, true);
    if (failed !== 0) return failed;
    memory.u8.copyWithin(this.#state + GATHER, this.#state + State.missValue, this.#state + State.missValue + bytes);
    u32[pointerWord] = this.#state + GATHER;
    u32[pendingWord] = bytes;
    return 0;
  }

  /** Ends a read-modify-write that `updateMiss` began. */
  updateCommit(): number {
    const { u32 } = this.#parts.memory;
    const bytes = u32[this.#word + State.missPending / 4] as number;
    if (bytes === 0) return 0;
    const low = u32[this.#word + State.missAddress / 4] as number;
    const high = u32[this.#word + State.missAddress / 4 + 1] as number;
    return this.#storeFrom(this.#state + GATHER, low, high, bytes, this.#userMode);
  }

  /** Checks that `bytes` (below a page) at `missAddress` can be written; up to 8 bytes are one aligned access. */
  probeWrite(bytes: number): number {
    const { u32 } = this.#parts.memory;
    const low = u32[this.#word + State.missAddress / 4] as number;
    const high = u32[this.#word + State.missAddress / 4 + 1] as number;
    const aligned = bytes > 8 || !this.#isMisaligned(low, bytes) || this.#isOutside(low, high, bytes);
    if (!aligned) return this.#raise(Vector.alignmentCheck);
    return this.#checkWritable(low, high, bytes, this.#userMode);
  }

  #checkWritable(low: number, high: number, bytes: number, user: boolean): number {
    if (this.#isOutside(low, high, bytes)) return this.#notCanonical();
    if (this.#translate(low, high, Access.write, user) < 0) return this.#pageFault(low, high);
    if (this.#mustBeSeen(this.#walker.result.page)) return Exit.observed;
    const inFirst = PAGE_SIZE - (low & 0xfff);
    if (inFirst >= bytes) return 0;
    const nextLow = (low + inFirst) >>> 0;
    const nextHigh = nextLow === 0 ? (high + 1) >>> 0 : high;
    if (this.#translate(nextLow, nextHigh, Access.write, user) < 0) return this.#pageFault(nextLow, nextHigh);
    return this.#mustBeSeen(this.#walker.result.page) ? Exit.observed : 0;
  }

  /** Translates for a code fetch with the current privilege; −1 with the exception left in the state block. */
  fetch(low: number, high: number): HostAddress {
    this.fetchMetHostFault = false;
    if (!isCanonical(high)) {
      this.#raise(Vector.generalProtection);
      return -1 as HostAddress;
    }
    const address = this.tryFetch(low, high);
    this.fetchMetHostFault = address < 0 && this.#pageFault(low, high) === Exit.hostFault;
    return address;
  }

  /** As `fetch` of a canonical address, but leaves no exception. */
  tryFetch(low: number, high: number): HostAddress {
    return this.#translate(low, high, Access.fetch, this.#userMode);
  }

  translate(address: GuestVirtual, access: Access, userAccess = false): HostAddress {
    const high = highWord(address);
    const low = lowWord(address);
    const cached = (userAccess ? this.userTlb : this.kernelTlb).find(low, high, access);
    if (cached >= 0) return cached;
    if (!isCanonical(high)) return -1 as HostAddress;
    const walked = this.#translate(low, high, access, userAccess);
    const { absent } = this.#walker.result;
    if (walked < 0 && absent >= 0) throw new PageAbsent(absent, this.#walker.result.absentForWrite);
    return walked;
  }

  /**
   * A load as the guest's own, with its privilege: `missValue` holds it, or the exception stands in the state block.
   * An address that is not canonical raises `notCanonical`. @throws PageAbsent
   */
  loadAt(address: GuestVirtual, bytes: number, notCanonical = Vector.generalProtection): boolean {
    const cached = this.#findCached(address, bytes, Access.read);
    if (cached >= 0) {
      this.#parts.memory.copyFew(this.#state + State.missValue, cached, bytes);
      return true;
    }
    this.#setMissAddress(address);
    return this.#succeeded(
      this.#withDevices(() => this.loadMiss(bytes)),
      notCanonical,
    );
  }

  /** A store of `missValue` as the guest's own. @throws PageAbsent */
  storeAt(address: GuestVirtual, bytes: number, notCanonical = Vector.generalProtection): boolean {
    const cached = this.#findCached(address, bytes, Access.write);
    if (cached >= 0) {
      this.#parts.memory.copyFew(cached, this.#state + State.missValue, bytes);
      return true;
    }
    this.#setMissAddress(address);
    return this.#succeeded(
      this.#withDevices(() => this.storeMiss(bytes)),
      notCanonical,
    );
  }

  /** Where bytes are that lie in one page, when the TLB has it for such an access of the guest's; otherwise −1. */
  #findCached(address: GuestVirtual, bytes: number, access: Access): HostAddress {
    const low = lowWord(address);
    if ((low & 0xfff) > PAGE_SIZE - bytes || this.#isMisaligned(low, bytes)) return -1 as HostAddress;
    return (this.#userMode ? this.userTlb : this.kernelTlb).find(low, highWord(address), access);
  }

  /** For accesses that the host makes in carrying out an instruction: generated code has been left already. */
  #withDevices(access: () => number): number {
    const { devicesOpen, observedOpen } = this;
    this.devicesOpen = true;
    this.observedOpen = true;
    const result = access();
    this.devicesOpen = devicesOpen;
    this.observedOpen = observedOpen;
    return result;
  }

  #succeeded(exit: number, notCanonical: Vector): boolean {
    if (exit === 0) return true;
    if (exit === Exit.hostFault) {
      const { u32 } = this.#parts.memory;
      throw new PageAbsent(
        u32[this.#word + State.exitDetail / 4] as number,
        u32[this.#word + State.exitError / 4] !== 0,
      );
    }
    if (this.takeNotCanonical()) this.#raise(notCanonical);
    return false;
  }

  /** Whether the last exception came from an address that is not canonical; asked once. */
  takeNotCanonical(): boolean {
    const met = this.#metNotCanonical;
    this.#metNotCanonical = false;
    return met;
  }

  #setMissAddress(address: GuestVirtual): void {
    const { u32 } = this.#parts.memory;
    u32[this.#word + State.missAddress / 4] = lowWord(address);
    u32[this.#word + State.missAddress / 4 + 1] = highWord(address);
  }

  read(address: GuestVirtual, target: Uint8Array): boolean {
    const { u8 } = this.#parts.memory;
    for (let done = 0; done < target.length; ) {
      const from = this.translate((address + done) as GuestVirtual, Access.read);
      if (from < 0) return false;
      const bytes = Math.min(target.length - done, PAGE_SIZE - (from & 0xfff));
      target.set(u8.subarray(from, from + bytes), done);
      done += bytes;
    }
    return true;
  }

  write(address: GuestVirtual, source: Uint8Array): boolean {
    const { u8 } = this.#parts.memory;
    for (const commit of [false, true]) {
      for (let done = 0; done < source.length; ) {
        const to = this.translate((address + done) as GuestVirtual, Access.write);
        if (to < 0) return false;
        const bytes = Math.min(source.length - done, PAGE_SIZE - (to & 0xfff));
        if (commit) {
          u8.set(source.subarray(done, done + bytes), to);
          this.#noteWrite(to, bytes);
        }
        done += bytes;
      }
    }
    return true;
  }

  #noteWrite(target: HostAddress, bytes: number): void {
    const frame: Frame = this.#parts.pool.frameAt(target);
    noteFrameWritten(this.#parts, frame, target & 0xfff, bytes);
  }

  readWord(address: GuestVirtual): number {
    if ((address & 3) !== 0) {
      const bytes = new Uint8Array(4);
      if (!this.read(address, bytes)) return -1;
      return new DataView(bytes.buffer).getUint32(0, true);
    }
    const from = this.translate(address, Access.read);
    return from < 0 ? -1 : (this.#parts.memory.u32[from >>> 2] as number);
  }

  writeWord(address: GuestVirtual, value: number): boolean {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    return this.write(address, bytes);
  }

  readLong(address: GuestVirtual, out: Uint32Array): boolean {
    if (!areInPage(address, 2)) {
      const bytes = new Uint8Array(8);
      if (!this.read(address, bytes)) return false;
      const view = new DataView(bytes.buffer);
      out[0] = view.getUint32(0, true);
      out[1] = view.getUint32(4, true);
      return true;
    }
    const from = this.translate(address, Access.read);
    if (from < 0) return false;
    out[0] = this.#parts.memory.u32[from >>> 2] as number;
    out[1] = this.#parts.memory.u32[(from >>> 2) + 1] as number;
    return true;
  }

  /** Fills `out` with aligned words of one page; false when they are none, or on a fault. @throws PageAbsent */
  readInPage(address: GuestVirtual, out: Uint32Array): boolean {
    const from = areInPage(address, out.length) ? this.translate(address, Access.read) : -1;
    if (from < 0) return false;
    const { u32 } = this.#parts.memory;
    for (let word = 0; word < out.length; word++) out[word] = u32[(from >>> 2) + word] as number;
    return true;
  }

  /** Writes words where `readInPage` would read them. @throws PageAbsent */
  writeInPage(address: GuestVirtual, words: Uint32Array): boolean {
    const to = areInPage(address, words.length) ? this.translate(address, Access.write) : (-1 as HostAddress);
    if (to < 0) return false;
    const { u32 } = this.#parts.memory;
    for (let word = 0; word < words.length; word++) u32[(to >>> 2) + word] = words[word] as number;
    this.#noteWrite(to, words.length * 4);
    return true;
  }

  writeLong(address: GuestVirtual, low: number, high: number): boolean {
    if (areInPage(address, 2)) {
      const to = this.translate(address, Access.write);
      if (to < 0) return false;
      this.#parts.memory.u32[to >>> 2] = low;
      this.#parts.memory.u32[(to >>> 2) + 1] = high;
      this.#noteWrite(to, 8);
      return true;
    }
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, low, true);
    view.setUint32(4, high, true);
    return this.write(address, bytes);
  }
}

/** Whether so many words are aligned and of one page, as the two of a stack pointer in a TSS are. */
function areInPage(address: GuestVirtual, words: number): boolean {
  return (address & 3) === 0 && (address & (PAGE_SIZE - 1)) <= PAGE_SIZE - words * 4;
}

/** Bytes of a frame were written: drops the code that covers them, and tells who watches the frame. */
export function noteFrameWritten(parts: HostParts, frame: Frame, offset: number, length: number): void {
  const { marks, code, watchers } = parts;
  if (marks.has(frame, FrameMark.code)) code.written(frame, offset, length);
  if (marks.has(frame, FrameMark.watched)) watchers.written(frame, offset, length);
}

/** Bytes of the next access to a device, of those that are left: accesses of devices are aligned words or less. */
function deviceAccess(address: number, left: number): number {
  if ((address & 3) === 0 && left >= 4) return 4;
  return (address & 1) === 0 && left >= 2 ? 2 : 1;
}
