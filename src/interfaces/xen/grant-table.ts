import type { Archive, Archived } from '../../archive/archive.ts';
import type { GrantUse } from '../../devices/xen/frontend.ts';
import { NO_FRAME, OutOfFrames } from '../../memory/frame-pool.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import type { SharedPages } from '../../paging/shared-pages.ts';
import type { HostAddress, Mfn } from '../../x86/brand.ts';
import { BACKEND_DOMAIN, DOMID_SELF, domainMeant } from './domain-id.ts';
import { Errno } from './errno.ts';

/** Status of one grant operation (xen/include/public/grant_table.h); goes into the operation's own status field. */
export const enum GrantStatus {
  okay = 0,
  generalError = -1,
  badDomain = -2,
  badReference = -3,
  badHandle = -4,
  badAddress = -5,
  permissionDenied = -8,
  badPage = -9,
  badCopyArgument = -10,
  again = -12,
}

/**
 * Version 1 entry, 8 bytes at reference · 8: flags u16 @0, domain u16 @2, frame u32 @4.
 * Flags: bits 1:0 type, 2 read only, 3 being read, 4 being written. The host sets the last two while it uses a page.
 */
const enum Entry {
  domain = 2,
  frame = 4,
  size = 8,
}
const FLAGS_BYTES = 2;

const enum EntryFlag {
  typeMask = 3,
  permitAccess = 1,
  readOnly = 4,
  reading = 8,
  writing = 16,
}

const ENTRIES_PER_FRAME = 512;
const PAGE_BYTES = 4096;
/** As `xl` configures domains. */
const DEFAULT_GRANT_FRAMES = 64;

/** The domain's pages, as whoever types and counts them lets the host hold them. */
export interface GrantedPages {
  /**
   * Holds a page of the domain for the time of an access: for writing, a reference and a writable type. The host may
   * page it out and in meanwhile.
   * @returns false when the number names no page of the domain or the page cannot be written by anyone (a page table)
   */
  hold(mfn: Mfn, write: boolean): boolean;
  release(mfn: Mfn, write: boolean): void;
}

interface ActiveGrant {
  readonly mfn: Mfn;
  readers: number;
  writers: number;
}

/** One end of GNTTABOP_copy: a grant reference, or a machine frame number of the caller's own. */
export interface CopyEnd {
  readonly domain: number;
  readonly offset: number;
  readonly isReference: boolean;
  readonly reference: number;
}

/**
 * The grant table of one domain, version 1 (public/grant_table.h). Its frames belong to the host, the guest maps them;
 * each entry is therefore read afresh and its frame number checked whenever an access begins.
 */
export class GrantTable implements Archived {
  readonly domain: number;
  readonly maximumFrames: number;
  /** Machine frame numbers of the table's frames. */
  readonly frames: Mfn[] = [];
  /** Grants in use, by reference. While one is, its frame is the one that the first access found. */
  readonly active = new Map<number, ActiveGrant>();
  readonly #shared: SharedPages;
  readonly #space: MachineSpace;
  readonly #pages: GrantedPages;
  readonly #frameFor: (index: number) => Mfn;

  /**
   * @param frameFor gives the table's frame `index` (zeroed, attached, host-owned), or −1 when there is none left
   * @param maximumFrames at least 1
   */
  constructor(
    domain: number,
    shared: SharedPages,
    pages: GrantedPages,
    frameFor: (index: number) => Mfn,
    maximumFrames = DEFAULT_GRANT_FRAMES,
  ) {
    this.domain = domain;
    this.maximumFrames = maximumFrames;
    this.#shared = shared;
    this.#space = shared.space;
    this.#pages = pages;
    this.#frameFor = frameFor;
    this.#grow(1);
  }

  /** The table's frames are the host's own. Whoever counts the domain's frames is read back after it. */
  archive(archive: Archive): void {
    if (!this.#grow(archive.value('count', this.frames.length))) throw new OutOfFrames(this.#space.pool.total);
    for (const [index, mfn] of this.frames.entries()) {
      const page = this.#space.addressOf(mfn);
      archive.words(`frame ${index}`, this.#space.pool.memory.u8.subarray(page, page + PAGE_BYTES));
    }
    for (const [index, mfn] of archive.value('numbers', this.frames).entries()) this.frames[index] = mfn;
    archive.map('active', this.active);
  }

  /** The builder grants a page to the back-end domain, as Xen's tools do for the console and XenStore rings. */
  prefill(reference: number, mfn: Mfn): void {
    const entry = this.#entry(reference);
    if (entry < 0) return;
    const { view } = this.#space.pool.memory;
    view.setUint16(entry + Entry.domain, BACKEND_DOMAIN, true);
    view.setUint32(entry + Entry.frame, mfn, true);
    view.setUint16(entry, EntryFlag.permitAccess, true);
    this.#shared.written(entry, Entry.size);
  }

  // grant_table_op

  /** GNTTABOP_set_version. Returns 0 or a negated errno; the version stays 1 in any case. */
  setVersion(version: number): number {
    if (version === 1) return 0;
    return version === 2 ? -Errno.ENOSYS : -Errno.EINVAL;
  }

  getVersion(domain: number): { status: GrantStatus; version: number } {
    const status = this.#ownOnly(domain);
    return { status, version: status === GrantStatus.okay ? 1 : 0 };
  }

  querySize(domain: number): { status: GrantStatus; frames: number; maximumFrames: number } {
    const status = this.#ownOnly(domain);
    if (status !== GrantStatus.okay) return { status, frames: 0, maximumFrames: 0 };
    return { status, frames: this.frames.length, maximumFrames: this.maximumFrames };
  }

  /** GNTTABOP_setup_table: grows the table to at least `count` frames; `frames` are the first `count` of them. */
  setupTable(domain: number, count: number): { status: GrantStatus; frames: readonly Mfn[] } {
    const status = this.#ownOnly(domain);
    if (status !== GrantStatus.okay) return { status, frames: [] };
    if (count > this.maximumFrames || !this.#grow(count)) return { status: GrantStatus.generalError, frames: [] };
    return { status, frames: this.frames.slice(0, count) };
  }

  /** GNTTABOP_map_grant_ref: no guest is a back end, so a sound request of the domain's own grant fails as well. */
  mapGrantReference(domain: number, reference: number): GrantStatus {
    if (domainMeant(domain, this.domain) !== 'self') return GrantStatus.badDomain;
    return this.#entry(reference) < 0 ? GrantStatus.badReference : GrantStatus.generalError;
  }

  /** GNTTABOP_unmap_grant_ref: nothing is ever mapped, so no handle is good. */
  unmapGrantReference(_handle: number): GrantStatus {
    return GrantStatus.badHandle;
  }

  /** GNTTABOP_copy within the domain: own frames by number, or frames that it has granted to itself. @throws PageAbsent */
  copy(source: CopyEnd, target: CopyEnd, length: number): GrantStatus {
    if (source.offset + length > PAGE_BYTES || target.offset + length > PAGE_BYTES) return GrantStatus.badCopyArgument;
    const from = this.#beginCopyEnd(source, false);
    if (typeof from === 'number') return from;
    try {
      const to = this.#beginCopyEnd(target, true);
      if (typeof to === 'number') return to;
      try {
        const end = this.#space.writableAddressOf(to.mfn) + target.offset;
        const start = this.#space.addressOf(from.mfn) + source.offset;
        this.#space.pool.memory.u8.copyWithin(end, start, start + length);
        if (length > 0) this.#shared.written(end, length);
        return GrantStatus.okay;
      } finally {
        this.#endCopyEnd(target, to);
      }
    } finally {
      this.#endCopyEnd(source, from);
    }
  }

  /** The number of one of the table's frames, which grows to have it; −1 when it cannot. */
  frameAt(index: number): Mfn {
    const isOne = Number.isInteger(index) && index >= 0 && index < this.maximumFrames;
    return isOne && this.#grow(index + 1) ? (this.frames[index] as Mfn) : (-1 as Mfn);
  }

  /** One of the table's frames has got another number. */
  moved(index: number, mfn: Mfn): void {
    this.frames[index] = mfn;
  }

  // The back ends' side

  /**
   * Begins an access to a page that the guest has granted. The entry says so with its reading and writing bits until
   * `end`, and the guest does not take the page back meanwhile.
   * @param reference any unsigned 32-bit number, from a ring
   */
  begin(reference: number, write: boolean, grantee = BACKEND_DOMAIN): GrantUse | GrantStatus {
    const entry = this.#entry(reference);
    if (entry < 0) return GrantStatus.badReference;
    const { view } = this.#space.pool.memory;
    const flags = view.getUint16(entry, true);
    const active = this.active.get(reference);
    // Who already writes may write again, whatever has become of the entry; the same for reading.
    if (active === undefined || (write && active.writers === 0)) {
      if ((flags & EntryFlag.typeMask) !== EntryFlag.permitAccess) return GrantStatus.generalError;
      const granted = view.getUint16(entry + Entry.domain, true);
      if (granted !== grantee && !(granted === DOMID_SELF && grantee === this.domain)) return GrantStatus.generalError;
      if (write && flags & EntryFlag.readOnly) return GrantStatus.generalError;
    }
    const mfn = active?.mfn ?? (view.getUint32(entry + Entry.frame, true) as Mfn);
    if (!this.#isPage(mfn) || !this.#pages.hold(mfn, write)) return GrantStatus.badPage;
    const grant = active ?? { mfn, readers: 0, writers: 0 };
    this.active.set(reference, grant);
    if (write) grant.writers++;
    else grant.readers++;
    this.#storeFlags(entry, flags | EntryFlag.reading | (write ? EntryFlag.writing : 0));
    return { reference, mfn, write };
  }

  /** Ends an access; the last one clears the entry's bits. */
  end(use: GrantUse): void {
    const grant = this.active.get(use.reference);
    if (grant === undefined || (use.write ? grant.writers : grant.readers) === 0) return;
    if (use.write) grant.writers--;
    else grant.readers--;
    this.#pages.release(use.mfn, use.write);
    const entry = this.#entry(use.reference);
    const { view } = this.#space.pool.memory;
    let clear = 0;
    if (grant.writers === 0) clear |= EntryFlag.writing;
    if (grant.writers === 0 && grant.readers === 0) {
      clear |= EntryFlag.reading;
      this.active.delete(use.reference);
    }
    if (entry >= 0) this.#storeFlags(entry, view.getUint16(entry, true) & ~clear);
  }

  /** Whether the number has a page, be it absent at present. */
  #isPage(mfn: Mfn): boolean {
    return (this.#space.frames[mfn] ?? NO_FRAME) !== NO_FRAME;
  }

  /** Host address of an entry, −1 beyond the table. */
  #entry(reference: number): HostAddress {
    const frame = this.frames[Math.floor(reference / ENTRIES_PER_FRAME)];
    if (frame === undefined) return -1 as HostAddress;
    const page = this.#space.writableAddressOf(frame);
    return (page < 0 ? -1 : page + (reference % ENTRIES_PER_FRAME) * Entry.size) as HostAddress;
  }

  #storeFlags(entry: HostAddress, flags: number): void {
    this.#space.pool.memory.view.setUint16(entry, flags, true);
    this.#shared.written(entry, FLAGS_BYTES);
  }

  #grow(count: number): boolean {
    while (this.frames.length < count) {
      const mfn = this.#frameFor(this.frames.length);
      if (mfn < 0) return false;
      this.frames.push(mfn);
    }
    return true;
  }

  #ownOnly(domain: number): GrantStatus {
    const meant = domainMeant(domain, this.domain);
    if (meant === 'self') return GrantStatus.okay;
    return meant === 'host' ? GrantStatus.permissionDenied : GrantStatus.badDomain;
  }

  #beginCopyEnd(end: CopyEnd, write: boolean): GrantUse | GrantStatus {
    if (end.isReference) {
      if (domainMeant(end.domain, this.domain) !== 'self') return GrantStatus.badDomain;
      return this.begin(end.reference, write, this.domain);
    }
    if (end.domain !== DOMID_SELF) return GrantStatus.permissionDenied;
    const mfn = end.reference as Mfn;
    if (!this.#isPage(mfn) || !this.#pages.hold(mfn, write)) return GrantStatus.badPage;
    return { reference: 0, mfn, write };
  }

  #endCopyEnd(end: CopyEnd, use: GrantUse): void {
    if (end.isReference) this.end(use);
    else this.#pages.release(use.mfn, use.write);
  }
}
