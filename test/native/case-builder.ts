/**
 * Builds one case: encodes instructions with random operands, and gives registers and memory contents so that memory
 * operands land in the window, near the edges of its pages, and now and then on a page that faults.
 */
import { type Address, chooseAddress, encodeAddress } from './addresses.ts';
import {
  CODE_BASE,
  CODE_BYTES,
  FS_BASE,
  type Mode,
  type NativeCase,
  PAGE,
  type Patch,
  SEGMENT_LIMIT,
  WINDOW_BASE,
  WINDOW_BYTES,
} from './oracle.ts';
import type { Random } from './random.ts';
import { floatingPointState } from './states.ts';
import { type Domain, type Form, type Operation, parseForm, type Template } from './template.ts';
import { type DataKind, data, integer } from './values.ts';

const DATA_OF_DOMAIN: Readonly<Record<Domain, DataKind>> = {
  integer: 'integer',
  x87: 'integer',
  mmx: 'integer',
  xmm: 'integer',
  'xmm-f32': 'f32',
  'xmm-f64': 'f64',
  'xmm-text': 'text',
};

/** A RIP-relative displacement, to be written once the code has its place. */
interface Fixup {
  at: number;
  /** Where the instruction ends in `code`. */
  end: number;
  target: number;
}

export class CaseBuilder {
  readonly gprs = new BigUint64Array(16);
  /** Bit i: register i has a value that the case depends on. */
  pinned = 0;
  readonly code: number[] = [];
  readonly patches: Patch[] = [];
  flags: number;
  state: Uint8Array;
  /** Registers for addresses and for operands; a sequence separates them. */
  addressRegisters: readonly number[];
  operandRegisters: readonly number[];
  /** Percent of memory operands that may fault. */
  faults = 100;
  /** Percent of memory operands that may lie at the edge of a page, or fault. */
  edges = 100;
  /** Where the code should stand, from CODE_BASE; −1: anywhere. */
  codeOffset = -1;
  private readonly fixups: Fixup[] = [];

  constructor(
    readonly mode: Mode,
    public random: Random,
    domain: Domain,
  ) {
    const count = mode === 64 ? 16 : 8;
    for (let i = 0; i < count; i++) this.gprs[i] = mode === 64 ? integer(random) : integer(random) & 0xffffffffn;
    this.addressRegisters = Array.from({ length: count }, (_, i) => i);
    this.operandRegisters = this.addressRegisters;
    this.flags = 0x202 | (random.word() & 0xcd5);
    if (random.chance(70)) this.flags &= ~0x400;
    if (random.chance(4)) this.flags |= 0x20_0000;
    if (random.chance(1)) this.flags |= 0x4_0000;
    this.state = floatingPointState(random, domain);
  }

  isPinned(register: number): boolean {
    return ((this.pinned >> register) & 1) === 1;
  }

  /** Gives a register a value that nothing later changes. */
  pin(register: number, value: bigint | number): void {
    this.gprs[register] = BigInt.asUintN(this.mode, BigInt(value));
    this.pinned |= 1 << register;
  }

  /** Gives a register a value unless the case depends on the one it has. */
  suggest(register: number, value: bigint | number): void {
    if (!this.isPinned(register)) this.gprs[register] = BigInt.asUintN(this.mode, BigInt(value));
  }

  /** A place for `bytes` bytes in or near the window: mostly plain, often at a page's edge, sometimes faulting. */
  target(bytes: number, align = 1): number {
    const { random } = this;
    const kind = random.below(random.chance(this.edges) ? 100 : 70);
    const inside = Math.max(1, bytes - 1);
    const crossing = (page: number): number => WINDOW_BASE + page * PAGE - random.between(1, inside);
    let at: number;
    if (kind < 55 || bytes === 0) {
      at = WINDOW_BASE + random.pick([0, 1, 2, 5]) * PAGE + random.below(PAGE - bytes + 1);
      if (random.chance(50)) at -= at % Math.min(16, bytes || 1);
    } else if (kind < 70)
      at = WINDOW_BASE + random.pick([0, 1, 2, 5]) * PAGE + random.between(1, 62) * 64 - random.below(bytes);
    else if (kind < 82 || !random.chance(this.faults)) at = crossing(random.between(1, 2));
    else if (kind < 87) at = WINDOW_BASE + 3 * PAGE + random.below(PAGE - bytes + 1);
    else if (kind < 90) at = crossing(3);
    else if (kind < 92) at = crossing(4);
    else if (kind < 94) at = crossing(5);
    else if (kind < 96) at = crossing(6);
    else if (kind < 97) at = crossing(0);
    else at = WINDOW_BASE + 4 * PAGE + random.below(PAGE - bytes + 1);
    if (align > 1 && !random.chance(4)) at -= at % align;
    return at;
  }

  /** Puts bytes into the window, as far as they lie in it. `address` is linear. */
  patch(address: number, bytes: Uint8Array): void {
    const offset = address - WINDOW_BASE;
    const first = Math.max(0, -offset);
    const last = Math.min(bytes.length, WINDOW_BYTES - offset);
    if (last <= first) return;
    this.patches.push({ offset: offset + first, bytes: bytes.subarray(first, last) });
  }

  /** Puts a little-endian number of `size` bytes into the window. */
  patchNumber(address: number, value: bigint | number, size: number): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, BigInt(value)), true);
    this.patch(address, bytes.subarray(0, size));
  }

  /** Encodes one instruction of a template in one of its forms. */
  emit(template: Template, form: Form): Operation {
    const { random } = this;
    template.before?.(this, form);
    const prefixes: number[] = [];
    const size = this.chooseSize(form, prefixes);
    const wide = form.wide || (size === 8 && ((form.size !== 's' && form.size !== 'n') || random.chance(5)));
    if (form.prefix) prefixes.push(form.prefix);
    if (form.addressSize && random.chance(8)) prefixes.push(0x67);
    if (form.rep) this.chooseStringPrefixes(prefixes);

    let reg = typeof form.modrm === 'number' ? form.modrm : -1;
    let rm = -1;
    let address: Address | null = null;
    const memoryBytes = form.memoryBytes >= 0 ? form.memoryBytes : size;
    if (form.modrm === 'r') reg = random.pick(this.operandRegisters);
    if (form.modrm !== null) {
      const isMemory = form.operand === 'mem' || (form.operand === 'any' && random.chance(60));
      if (isMemory) {
        const adjustment = form.bits ? this.chooseBitOffset(reg, size) : 0;
        const align = form.align ? Math.min(16, memoryBytes) : 1;
        const target = this.target(memoryBytes, align);
        address = chooseAddress(this, target, memoryBytes, adjustment, prefixes);
        this.patch(target, data(random, template.data ?? DATA_OF_DOMAIN[template.domain ?? 'integer'], memoryBytes));
      } else rm = random.pick(this.operandRegisters);
    } else if (form.plus === 'r') rm = random.pick(this.operandRegisters);
    else if (form.plus === 'i') rm = random.below(8);
    let moffs: Address | null = null;
    if (form.immediates.includes('moffs')) {
      const target = this.target(memoryBytes);
      moffs = chooseAddress(this, target, memoryBytes, 0, prefixes, true);
      this.patch(target, data(random, 'integer', memoryBytes));
    }

    const lockable = form.lock && address !== null;
    if (random.chance(lockable ? 6 : 0.5)) prefixes.push(0xf0);

    for (let i = prefixes.length - 1; i > 0; i--) {
      const j = random.below(i + 1);
      const swapped = prefixes[i] as number;
      prefixes[i] = prefixes[j] as number;
      prefixes[j] = swapped;
    }
    const start = this.code.length;
    this.code.push(...prefixes);

    if (this.mode === 64) {
      let rex = wide ? 8 : 0;
      if (form.modrm === 'r' && reg & 8) rex |= 4;
      if (address) rex |= address.rex;
      if (rm >= 8 && form.plus !== 'i') rex |= 1;
      if (rex !== 0 || random.chance(6)) this.code.push(0x40 | rex);
    }
    const opcode = [...form.opcode];
    if (form.plus) opcode[opcode.length - 1] = (opcode.at(-1) as number) + (rm & 7);
    this.code.push(...opcode);
    let fixup: Fixup | null = null;
    if (address) {
      const ripAt = encodeAddress(this.code, reg & 7, address);
      if (ripAt >= 0) {
        fixup = { at: ripAt, end: 0, target: address.relativeTarget };
        this.fixups.push(fixup);
      }
    } else if (form.modrm !== null) this.code.push(0xc0 | ((reg & 7) << 3) | (rm & 7));

    let immediate = 0;
    for (const kind of form.immediates) {
      if (kind === 'moffs') {
        const bytes = (moffs as Address).size;
        this.pushNumber((moffs as Address).displacement, bytes);
        continue;
      }
      const bytes =
        kind === 'ib' || kind === 'cb'
          ? 1
          : kind === 'iw'
            ? 2
            : kind === 'id'
              ? 4
              : kind === 'iv'
                ? size
                : kind === 'cz' && this.mode === 64
                  ? 4
                  : size === 2
                    ? 2
                    : 4;
      let value = integer(random);
      if (template.immediate) value = BigInt(template.immediate(this, kind));
      else if (kind === 'cb' || kind === 'cz') value = BigInt(this.branchDistance(start, bytes));
      this.pushNumber(value, bytes);
      immediate = Number(BigInt.asUintN(bytes * 8, value));
    }
    if (fixup) fixup.end = this.code.length;
    const operation: Operation = {
      builder: this,
      form,
      size,
      reg,
      rm,
      address: address ? address.linear : moffs ? moffs.linear : -1,
      memoryBytes,
      immediate,
    };
    template.after?.(operation);
    return operation;
  }

  /** The forms of a template that the mode has. */
  formsOf(template: Template): Form[] {
    return template.forms.map(parseForm).filter((form) => form.mode === null || form.mode === this.mode);
  }

  /** Encodes one instruction in a random form of the template; null when the mode has none. */
  emitAny(template: Template): Operation | null {
    const forms = this.formsOf(template);
    return forms.length === 0 ? null : this.emit(template, this.random.pick(forms));
  }

  pushNumber(value: bigint, bytes: number): void {
    for (let i = 0; i < bytes; i++) this.code.push(Number((value >> BigInt(8 * i)) & 0xffn));
  }

  finish(): NativeCase {
    const { random } = this;
    const length = this.code.length;
    let codeOffset = this.codeOffset;
    if (codeOffset < 0) {
      const kind = random.below(100);
      if (kind < 88) codeOffset = 0x800 + random.below(0x100);
      else if (kind < 96) codeOffset = PAGE - random.below(length);
      else if (kind < 98) codeOffset = CODE_BYTES - length;
      else codeOffset = 0x800 + random.below(0x100);
    }
    for (const { at, end, target } of this.fixups) {
      const displacement = target - (CODE_BASE + codeOffset + end);
      for (let i = 0; i < 4; i++) this.code[at + i] = (displacement >> (8 * i)) & 0xff;
    }
    let code = Uint8Array.from(this.code);
    /* An instruction whose last bytes are on a page that is not there. */
    if (this.codeOffset < 0 && length > 1 && random.chance(0.7)) {
      code = code.subarray(0, random.between(1, length - 1));
      codeOffset = CODE_BYTES - code.length;
    }
    const { mode, flags, gprs, state, patches } = this;
    return { mode, code, codeOffset, flags, gprs, state, patches };
  }

  private chooseSize(form: Form, prefixes: number[]): number {
    const { random } = this;
    switch (form.size) {
      case 'b':
        return 1;
      case 'w':
        return 2;
      case 'y':
        return this.mode === 64 && random.chance(50) ? 8 : 4;
      case 'd':
      case 'v': {
        if (form.prefix === 0x66) return 2;
        if (form.size === 'v' && this.mode === 64 && random.chance(45)) {
          if (random.chance(5)) prefixes.push(0x66);
          return 8;
        }
        if (random.chance(30)) {
          prefixes.push(0x66);
          return 2;
        }
        return 4;
      }
      case 'n':
      case 's':
        if ((form.size === 's' || this.mode === 32) && random.chance(25)) {
          prefixes.push(0x66);
          return 2;
        }
        return this.mode === 64 ? 8 : 4;
      default:
        return form.wide ? 8 : 0;
    }
  }

  /** Repetition, and a segment for the source; FS moves RSI accordingly. */
  private chooseStringPrefixes(prefixes: number[]): void {
    const { random } = this;
    if (random.chance(65)) prefixes.push(random.chance(50) ? 0xf3 : 0xf2);
    const offset = (this.gprs[6] as bigint) - BigInt(FS_BASE);
    const fits = this.mode === 64 || (offset >= 0n && offset <= BigInt(SEGMENT_LIMIT));
    if (random.chance(6) && (fits || random.chance(10))) {
      prefixes.push(0x64);
      this.pin(6, offset);
    } else if (random.chance(10)) prefixes.push(random.pick([0x2e, 0x36, 0x3e, 0x26]));
  }

  /** Gives the bit-offset register a signed offset near the operand; returns the bytes it moves the access. */
  private chooseBitOffset(reg: number, size: number): number {
    if (this.isPinned(reg)) return 0;
    const offset = this.random.chance(50) ? this.random.between(-70, 140) : this.random.between(-30000, 30000);
    const width = BigInt(size * 8);
    const upper = this.random.chance(30) ? integer(this.random) : offset < 0 ? -1n : 0n;
    this.pin(reg, (upper & ~((1n << width) - 1n)) | BigInt.asUintN(size * 8, BigInt(offset)));
    const seen = BigInt.asIntN(size * 8, this.gprs[reg] as bigint);
    return (Number(seen) >> (size === 8 ? 6 : size === 4 ? 5 : 4)) * size;
  }

  /** A distance that does not lead back into the code, so that the case ends. */
  private branchDistance(start: number, bytes: number): number {
    const { random } = this;
    const length = this.code.length + bytes - start + 8;
    if (bytes > 1 && random.chance(5)) return random.word();
    const distance = bytes === 1 ? random.between(-128, 127) : random.between(-0x700, 0x600);
    return distance <= 0 && distance >= -length - start ? 1 - distance : distance;
  }
}
