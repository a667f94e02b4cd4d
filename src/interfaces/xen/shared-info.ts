import type { Archive, Archived } from '../../archive/archive.ts';
import type { HostMemory } from '../../memory/host-memory.ts';
import type { SharedPages } from '../../paging/shared-pages.ts';
import type { HostAddress, Mfn } from '../../x86/brand.ts';
import { Errno } from './errno.ts';

/**
 * The shared_info page of a domain, and where each virtual processor's vcpu_info is (public/xen.h).
 *
 *                              64-bit   32-bit guest
 *   vcpu_info[32], 64 each     0x000    0x000
 *   evtchn_pending             0x800    0x800      4096 / 1024 ports
 *   evtchn_mask                0xa00    0x880
 *   wc_version, sec, nsec      0xc00    0x900
 *   wc_sec_hi                  0xc0c    0x924
 *
 *   vcpu_info:                 64-bit   32-bit guest
 *   evtchn_upcall_pending (u8) 0        0
 *   evtchn_upcall_mask (u8)    1        1
 *   evtchn_pending_sel (long)  8        4
 *   arch.cr2 (long)            0x10     8
 *   time (32 bytes)            0x20     0x20
 */
export interface SharedInfoLayout {
  /** Bytes of the guest's `long`. */
  readonly longSize: 8 | 4;
  /** Port number to selector bit. */
  readonly wordShift: 6 | 5;
  readonly ports: number;
  readonly pending: number;
  readonly mask: number;
  readonly wallclock: number;
  readonly wallclockSecondsHigh: number;
  readonly selector: number;
  readonly cr2: number;
}

export const SHARED_INFO_64: SharedInfoLayout = {
  longSize: 8,
  wordShift: 6,
  ports: 4096,
  pending: 0x800,
  mask: 0xa00,
  wallclock: 0xc00,
  wallclockSecondsHigh: 0xc0c,
  selector: 8,
  cr2: 0x10,
};

export const SHARED_INFO_32: SharedInfoLayout = {
  longSize: 4,
  wordShift: 5,
  ports: 1024,
  pending: 0x800,
  mask: 0x880,
  wallclock: 0x900,
  wallclockSecondsHigh: 0x924,
  selector: 4,
  cr2: 8,
};

/** Offsets in vcpu_info that both layouts share. */
export const enum VcpuInfo {
  upcallPending = 0,
  upcallMask = 1,
  time = 0x20,
  size = 64,
}

/** vcpu_info structures that fit into the shared page. */
export const LEGACY_VCPUS = 32;
const PAGE_BYTES = 4096;
const NOWHERE = -1;

/** Every access translates the machine frame number again; nothing here keeps a host address. */
export class SharedInfo implements Archived {
  readonly pages: SharedPages;
  readonly memory: HostMemory;
  mfn: Mfn;
  readonly layout: SharedInfoLayout;
  readonly vcpus: number;
  readonly vcpuInfoMfn: Int32Array;
  readonly vcpuInfoOffset: Uint16Array;
  /** 1 for each virtual processor that has registered a place of its own. */
  readonly vcpuInfoMoved: Uint8Array;

  /** @param mfn the host-owned page; it stays attached for the domain's life and is zeroed here */
  constructor(pages: SharedPages, mfn: Mfn, layout: SharedInfoLayout, vcpus: number) {
    this.pages = pages;
    this.memory = pages.memory;
    this.mfn = mfn;
    this.layout = layout;
    this.vcpus = vcpus;
    this.vcpuInfoMfn = new Int32Array(vcpus).fill(NOWHERE).fill(mfn, 0, LEGACY_VCPUS);
    this.vcpuInfoOffset = new Uint16Array(vcpus);
    this.vcpuInfoMoved = new Uint8Array(vcpus);
    const page = this.address();
    this.memory.u8.fill(0, page, page + PAGE_BYTES);
    for (let vcpu = 0; vcpu < LEGACY_VCPUS; vcpu++) {
      if (vcpu < vcpus) this.vcpuInfoOffset[vcpu] = vcpu * VcpuInfo.size;
      this.memory.u8[page + vcpu * VcpuInfo.size + VcpuInfo.upcallMask] = 1;
    }
    pages.written(page, PAGE_BYTES);
  }

  /** The page is the host's own, and no part of the guest's memory. */
  archive(archive: Archive): void {
    const page = this.address();
    archive.words('page', this.memory.u8.subarray(page, page + PAGE_BYTES));
    this.mfn = archive.value('number', this.mfn);
    archive.words('vcpuInfoMfn', this.vcpuInfoMfn);
    archive.words('vcpuInfoOffset', this.vcpuInfoOffset);
    archive.words('vcpuInfoMoved', this.vcpuInfoMoved);
  }

  /** The page has got another number, with all of it that has stayed in it. */
  moved(mfn: Mfn): void {
    for (const [vcpu, place] of this.vcpuInfoMfn.entries()) if (place === this.mfn) this.vcpuInfoMfn[vcpu] = mfn;
    this.mfn = mfn;
  }

  address(): HostAddress {
    return this.pages.addressOf(this.mfn);
  }

  /** First byte of a processor's vcpu_info at any alignment, or −1 when its page has gone. */
  vcpuInfo(vcpu: number): HostAddress {
    const page = this.pages.addressOf((this.vcpuInfoMfn[vcpu] ?? NOWHERE) as Mfn);
    return page < 0 ? page : ((page + (this.vcpuInfoOffset[vcpu] ?? 0)) as HostAddress);
  }

  /**
   * VCPUOP_register_vcpu_info: the content moves to the given place, then everything is marked pending so that no
   * event is lost in between. The caller holds a writable type reference on the page.
   * @returns 0, −EINVAL for a second registration, an offset that does not fit or a number that names no page
   */
  registerVcpuInfo(vcpu: number, mfn: Mfn, offset: number): number {
    if (offset > PAGE_BYTES - VcpuInfo.size || this.vcpuInfoMoved[vcpu] !== 0) return -Errno.EINVAL;
    const page = this.pages.addressOf(mfn);
    if (page < 0) return -Errno.EINVAL;
    const { u8 } = this.memory;
    const target = page + offset;
    const source = this.vcpuInfo(vcpu);
    if (source >= 0) u8.copyWithin(target, source, source + VcpuInfo.size);
    else u8.fill(0, target, target + VcpuInfo.size);
    this.vcpuInfoMfn[vcpu] = mfn;
    this.vcpuInfoOffset[vcpu] = offset;
    this.vcpuInfoMoved[vcpu] = 1;
    const selector = target + this.layout.selector;
    u8.fill(0xff, selector, selector + this.layout.longSize);
    u8[target + VcpuInfo.upcallPending] = 1;
    this.pages.written(target, VcpuInfo.size);
    return 0;
  }
}
