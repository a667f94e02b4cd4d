import { InputError } from './input-error.ts';
import { type KernelImage, loadKernel } from './kernel.ts';

/**
 * What a kernel records of its call sites, as guests/reference has it: where they are and which operation each is for
 * (`.parainstructions`), what its operation tables hold at first, what each interface puts there, and which functions are
 * short enough to stand at a site themselves. A word is 8 bytes in a 64-bit kernel, otherwise 4.
 *
 *   sites             word address, u8 operation, u8 bytes, u16 registers that may be destroyed; to a whole word
 *   operation_groups  word table, u32 its first operation, u32 operations, u32 of these, from the first, keep registers
 *   choices           word function, u32 condition, u8 interface, u8 operation, u8 changes later; to a whole word
 *   templates         word function, word first and word behind the last byte of the instructions in its place
 *
 * Addresses are those that the kernel is linked for, as canonical numbers.
 */
export interface RecordedSites {
  readonly sites: readonly CallSite[];
  readonly groups: readonly OperationGroup[];
  readonly choices: readonly Choice[];
  readonly templates: readonly CodeTemplate[];
  /** The function that does nothing. */
  readonly nothing: number;
  /** The word that says that the sites are patched. */
  readonly patchedFlag: number;
}

export interface CallSite {
  readonly address: number;
  readonly operation: number;
  readonly length: number;
  readonly clobbers: number;
}

export interface OperationGroup {
  readonly table: number;
  readonly first: number;
  readonly count: number;
  readonly kept: number;
}

/** What an interface puts into a table, under a condition of its own. */
export interface Choice {
  /** 0 where the condition says which function it is. */
  readonly function: number;
  readonly condition: number;
  readonly interface: number;
  readonly operation: number;
  readonly changes: boolean;
}

export interface CodeTemplate {
  readonly function: number;
  readonly begin: number;
  readonly end: number;
}

/** The contents of a kernel's segments by the addresses that it is linked for. */
export class KernelBytes {
  readonly image: KernelImage;
  readonly wordBytes: 4 | 8;
  readonly #symbols: ReadonlyMap<string, number>;

  /** @param file an ELF file that is not compressed: what is written to its segments is written to it */
  constructor(file: Uint8Array) {
    const image = loadKernel(file);
    if (image.format !== 'elf' || image.compression !== 'none') throw noSites();
    this.image = image;
    this.wordBytes = image.bits === 64 ? 8 : 4;
    this.#symbols = new Map(image.symbols.map(({ name, address }) => [name, canonical(address, image.bits)]));
  }

  symbol(name: string): number {
    const address = this.#symbols.get(name);
    if (address === undefined) throw noSites();
    return address;
  }

  /** Bytes of the file, not copied. @throws InputError when they are in no segment */
  at(address: number, length: number): Uint8Array {
    for (const { vaddr, data } of this.image.segments) {
      const offset = address - canonical(vaddr, this.image.bits);
      if (offset >= 0 && offset + length <= data.length) return data.subarray(offset, offset + length);
    }
    throw damaged();
  }

  word(address: number): number {
    const view = viewOf(this.at(address, this.wordBytes));
    return this.wordBytes === 8 ? Number(view.getBigInt64(0, true)) : view.getUint32(0, true);
  }

  /** As the symbols around it say. @param size of a record */
  records(name: string, size: number): readonly number[] {
    const begin = this.symbol(name);
    const count = Math.ceil((this.symbol(`${name}_end`) - begin) / size);
    return this.#addresses(begin, count, size);
  }

  counted(name: string, count: string, size: number): readonly number[] {
    return this.#addresses(this.symbol(name), viewOf(this.at(this.symbol(count), 4)).getUint32(0, true), size);
  }

  #addresses(begin: number, count: number, size: number): readonly number[] {
    if (count < 0 || count > MOST_RECORDS) throw damaged();
    return Array.from({ length: count }, (_none, index) => begin + index * size);
  }

  /** How far above its place in physical memory the kernel is linked. */
  get base(): number {
    const [segment] = this.image.segments;
    return segment ? canonical(segment.vaddr, this.image.bits) - segment.paddr : 0;
  }
}

const MOST_RECORDS = 100_000;

/** @throws InputError when the kernel has no such records */
export function readRecordedSites(bytes: KernelBytes): RecordedSites {
  const { wordBytes } = bytes;
  const whole = (size: number): number => Math.ceil(size / wordBytes) * wordBytes;
  const rest = (address: number, length: number): DataView => viewOf(bytes.at(address + wordBytes, length));
  return {
    sites: bytes.records('sites', whole(wordBytes + 4)).map((at) => {
      const fields = rest(at, 4);
      return {
        address: bytes.word(at),
        operation: fields.getUint8(0),
        length: fields.getUint8(1),
        clobbers: fields.getUint16(2, true),
      };
    }),
    groups: bytes.counted('operation_groups', 'operation_group_count', whole(wordBytes + 12)).map((at) => {
      const fields = rest(at, 12);
      const [first, count, kept] = [fields.getUint32(0, true), fields.getUint32(4, true), fields.getUint32(8, true)];
      return { table: bytes.word(at), first, count, kept };
    }),
    choices: bytes.records('choices', whole(wordBytes + 7)).map((at) => {
      const fields = rest(at, 7);
      return {
        function: bytes.word(at),
        condition: fields.getUint32(0, true),
        interface: fields.getUint8(4),
        operation: fields.getUint8(5),
        changes: fields.getUint8(6) !== 0,
      };
    }),
    templates: bytes.records('templates', wordBytes * 3).map((at) => {
      return { function: bytes.word(at), begin: bytes.word(at + wordBytes), end: bytes.word(at + wordBytes * 2) };
    }),
    nothing: bytes.symbol('paravirt_nop'),
    patchedFlag: bytes.symbol('sites_are_patched'),
  };
}

function canonical(address: bigint, bits: 32 | 64): number {
  return Number(bits === 64 ? BigInt.asIntN(64, address) : address);
}

export function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

function noSites(): InputError {
  return new InputError(
    'the kernel has no records of its call sites that a loader could patch them by; leave out --afterburn, or give the reference guest',
  );
}

export function damaged(): InputError {
  return new InputError("the kernel's records of its call sites are damaged; give an intact file");
}
