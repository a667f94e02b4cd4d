import type { SetupHeader } from './bzimage.ts';

/** What a region of physical memory is, as firmware tells it. */
export const enum RegionType {
  ram = 1,
  reserved = 2,
  /** ACPI tables; RAM once they were read. */
  acpi = 3,
}

export interface MemoryRegion {
  readonly start: number;
  readonly bytes: number;
  readonly type: RegionType;
}

export interface BootParameters {
  /** From a bzImage; a kernel that came as ELF has none. */
  readonly header: SetupHeader | undefined;
  /** Physical addresses below 2^32. */
  readonly commandLine: number;
  readonly initrd: { readonly address: number; readonly bytes: number };
  readonly rsdp: number;
  readonly regions: readonly MemoryRegion[];
}

/** Offsets in the page that the kernel is given (Documentation/arch/x86/zero-page.rst). */
const enum Field {
  rsdpAddress = 0x070,
  regionCount = 0x1e8,
  header = 0x1f1,
  bootFlag = 0x1fe,
  magic = 0x202,
  version = 0x206,
  loaderType = 0x210,
  loadFlags = 0x211,
  initrdAddress = 0x218,
  initrdBytes = 0x21c,
  commandLine = 0x228,
  regions = 0x2d0,
}

const PAGE = 4096;
const REGION_BYTES = 20;
const MOST_REGIONS = 128;
const BOOT_FLAG = 0xaa55;
const HEADER_MAGIC = 0x5372_6448;
/** Boot protocol 2.14, the first with a place for the RSDP's address. */
const VERSION = 0x020e;
/** A loader without a number of its own. */
const UNKNOWN_LOADER = 0xff;
const LOADED_HIGH = 1;

/** The page that a kernel's 64-bit or 32-bit entry is given in RSI: boot_params, the "zero page". */
export function encodeBootParameters(parameters: BootParameters): Uint8Array {
  const { header, commandLine, initrd, rsdp, regions } = parameters;
  if (regions.length > MOST_REGIONS) throw new RangeError(`${regions.length} regions of memory`);
  const page = new Uint8Array(PAGE);
  const view = new DataView(page.buffer);
  if (header) {
    page.set(header.bytes, Field.header);
  } else {
    view.setUint16(Field.bootFlag, BOOT_FLAG, true);
    view.setUint32(Field.magic, HEADER_MAGIC, true);
    view.setUint16(Field.version, VERSION, true);
  }
  view.setUint8(Field.loaderType, UNKNOWN_LOADER);
  view.setUint8(Field.loadFlags, view.getUint8(Field.loadFlags) | LOADED_HIGH);
  view.setUint32(Field.initrdAddress, initrd.address, true);
  view.setUint32(Field.initrdBytes, initrd.bytes, true);
  view.setUint32(Field.commandLine, commandLine, true);
  view.setUint32(Field.rsdpAddress, rsdp, true);
  view.setUint8(Field.regionCount, regions.length);
  regions.forEach(({ start, bytes, type }, index) => {
    const at = Field.regions + index * REGION_BYTES;
    view.setUint32(at, start, true);
    view.setUint32(at + 8, bytes, true);
    view.setUint32(at + 16, type, true);
  });
  return page;
}
