import { ByteReader } from './byte-reader.ts';
import { type Compression, decompress, detectCompression } from './decompress.ts';
import { isElf } from './elf.ts';
import { InputError } from './input-error.ts';

/**
 * Linux's bzImage: boot sector and real-mode setup code, then the protected-mode part, which holds the packed vmlinux
 * (Documentation/arch/x86/boot.rst).
 *
 *   0                         boot sector and setup code, (setup_sects + 1) × 512 bytes
 *   (setup_sects + 1) × 512   protected-mode code, syssize × 16 bytes
 *     + payload_offset        packed vmlinux, payload_length bytes
 *                             then perhaps padding and a signature
 *
 * The setup header lies at 0x1f1 of the file and keeps its offsets in boot_params.
 */
const enum Header {
  setupSectors = 0x1f1,
  systemSize = 0x1f4,
  bootFlag = 0x1fe,
  jump = 0x201,
  magic = 0x202,
  version = 0x206,
  kernelVersion = 0x20e,
  loadFlags = 0x211,
  code32Start = 0x214,
  initrdAddressMax = 0x22c,
  kernelAlignment = 0x230,
  relocatableKernel = 0x234,
  minimumAlignment = 0x235,
  xloadFlags = 0x236,
  commandLineSize = 0x238,
  hardwareSubarch = 0x23c,
  payloadOffset = 0x248,
  payloadLength = 0x24c,
  preferredAddress = 0x258,
  initSize = 0x260,
}

const BOOT_FLAG = 0xaa55;
/** "HdrS" */
const HEADER_MAGIC = 0x5372_6448;
const SECTOR = 512;
/** Boot protocol 2.00, the first with a header. */
const OLDEST_VERSION = 0x0200;

/** Fields that the image's boot protocol does not have yet are undefined. */
export interface SetupHeader {
  /** Boot protocol, 0x020f for 2.15. */
  readonly version: number;
  /** As in "6.1.0-56-amd64 (…) #1 SMP …". */
  readonly kernelVersion: string;
  readonly loadFlags: number;
  readonly code32Start: number;
  readonly initrdAddressMax: number | undefined;
  readonly kernelAlignment: number | undefined;
  readonly relocatable: boolean;
  readonly xloadFlags: number | undefined;
  /** Longest command line without its NUL. */
  readonly commandLineSize: number;
  readonly hardwareSubarch: number | undefined;
  readonly preferredAddress: bigint | undefined;
  /** Memory that the decompressor needs from the load address on. */
  readonly initSize: number | undefined;
  /** The header's bytes, file offsets 0x1f1 and on, to be copied to the same offset of boot_params. */
  readonly bytes: Uint8Array;
}

export interface BzImage {
  readonly header: SetupHeader;
  /** What a 32-bit boot loader copies to `code32Start`. */
  readonly protectedModeCode: Uint8Array;
  /** The packed vmlinux. */
  readonly payload: Uint8Array;
}

export function isBzImage(bytes: Uint8Array): boolean {
  if (bytes.length < Header.version) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return view.getUint16(Header.bootFlag, true) === BOOT_FLAG && view.getUint32(Header.magic, true) === HEADER_MAGIC;
}

/** @throws InputError if a part lies outside the file or the boot protocol is too old to tell. */
export function parseBzImage(bytes: Uint8Array): BzImage {
  const reader = new ByteReader(bytes, 'the bzImage');
  const version = reader.u16(Header.version);
  if (version < OLDEST_VERSION) {
    throw new InputError(
      `the bzImage has boot protocol ${version.toString(16)}, which is older than 2.00; give a newer kernel`,
    );
  }
  // Protocols before 2.02 wrote 0 for the 4 sectors that were the only possibility.
  const setupSize = ((reader.u8(Header.setupSectors) || 4) + 1) * SECTOR;
  const systemSize = reader.u32(Header.systemSize) * 16;
  // The size is rounded up, so the file may end up to 15 bytes earlier.
  if (bytes.length < setupSize || bytes.length + 15 < setupSize + systemSize) {
    throw new InputError(
      `the bzImage is cut short: it has ${bytes.length} bytes, its header says ${setupSize + systemSize}; give a whole file`,
    );
  }
  const protectedModeCode = bytes.subarray(setupSize, Math.min(setupSize + systemSize, bytes.length));
  const headerEnd = Header.magic + reader.u8(Header.jump);
  const since = <Value>(oldest: number, read: () => Value): Value | undefined =>
    version >= oldest ? read() : undefined;
  const header: SetupHeader = {
    version,
    kernelVersion: kernelVersion(reader),
    loadFlags: reader.u8(Header.loadFlags),
    code32Start: reader.u32(Header.code32Start),
    initrdAddressMax: since(0x203, () => reader.u32(Header.initrdAddressMax)),
    kernelAlignment: since(0x205, () => reader.u32(Header.kernelAlignment)),
    relocatable: since(0x205, () => reader.u8(Header.relocatableKernel) !== 0) ?? false,
    xloadFlags: since(0x20c, () => reader.u16(Header.xloadFlags)),
    commandLineSize: since(0x206, () => reader.u32(Header.commandLineSize)) ?? 255,
    hardwareSubarch: since(0x207, () => reader.u32(Header.hardwareSubarch)),
    preferredAddress: since(0x20a, () => reader.u64(Header.preferredAddress)),
    initSize: since(0x20a, () => reader.u32(Header.initSize)),
    bytes: reader.slice(Header.setupSectors, headerEnd - Header.setupSectors),
  };
  const payload =
    version >= 0x208
      ? declaredPayload(reader, protectedModeCode)
      : protectedModeCode.subarray(findPayload(protectedModeCode));
  return { header, protectedModeCode, payload };
}

function kernelVersion(reader: ByteReader): string {
  const pointer = reader.u16(Header.kernelVersion);
  const at = pointer + 0x200;
  return pointer !== 0 && reader.has(at, 1) ? reader.text(at, 256) : '';
}

function declaredPayload(reader: ByteReader, protectedModeCode: Uint8Array): Uint8Array {
  const offset = reader.u32(Header.payloadOffset);
  const length = reader.u32(Header.payloadLength);
  if (offset + length > protectedModeCode.length) {
    throw new InputError(
      `the bzImage is damaged: its payload ends at ${offset + length}, its code at ${protectedModeCode.length}; give a whole file`,
    );
  }
  return protectedModeCode.subarray(offset, offset + length);
}

/** Protocols before 2.08 do not say where the payload is. They had gzip only, whose first three bytes are known. */
function findPayload(code: Uint8Array): number {
  for (let at = code.indexOf(0x1f); at >= 0; at = code.indexOf(0x1f, at + 1)) {
    if (code[at + 1] === 0x8b && code[at + 2] === 8) return at;
  }
  throw new InputError('the bzImage has no packed kernel; give a Linux kernel, or unpack it and give the ELF file');
}

/** Unpacks the vmlinux out of a bzImage's payload. */
export function unpackPayload({ payload }: BzImage): { vmlinux: Uint8Array; compression: Compression | 'none' } {
  if (isElf(payload)) return { vmlinux: payload, compression: 'none' };
  const compression = detectCompression(payload);
  if (compression === undefined) {
    const start = Array.from(payload.subarray(0, 4), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
    throw new InputError(
      `the bzImage's payload begins with "${start}", which is no known compression; unpack it and give the ELF file`,
    );
  }
  // The build appends the unpacked size as 32 bits, but not to gzip, which ends with it anyway.
  if (compression === 'gzip') return { vmlinux: requireElf(decompress(payload, compression)), compression };
  const end = payload.length - 4;
  if (end < 4) throw new InputError(`the bzImage's payload has only ${payload.length} bytes; give a whole file`);
  const size = new DataView(payload.buffer, payload.byteOffset + end, 4).getUint32(0, true);
  return { vmlinux: requireElf(decompress(payload.subarray(0, end), compression, size)), compression };
}

/** Before 2.6.26 a bzImage held the bare bytes of the kernel, which do not say where they belong. */
function requireElf(unpacked: Uint8Array): Uint8Array {
  if (isElf(unpacked)) return unpacked;
  throw new InputError(
    'the bzImage holds no ELF file, as those of Linux before 2.6.26 do not; give the ELF kernel (vmlinux) of the same build',
  );
}
