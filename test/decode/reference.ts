/**
 * iced-x86 as reference for the decoder: turns its instructions into ours.
 *
 * iced knows every instruction of every processor, we know one level. What differs on purpose stands in the tables at
 * the top, each with its reason; all else has to agree.
 */
import {
  Code,
  CodeExt,
  CpuidFeature,
  Decoder,
  DecoderOptions,
  type Instruction as IcedInstruction,
  MemorySizeExt,
  Mnemonic,
  OpKind,
  Register,
} from 'iced-x86';
import { type CodeSize, type Instruction, type Operand, OperandKind } from '../../src/cpu/decode/instruction.ts';

export type Level = 'reported' | 'known';

/** iced's feature groups which belong to the reported level. */
const reportedGroups = [
  'FSGSBASE',
  'INTEL8086',
  'INTEL186',
  'INTEL286',
  'INTEL386',
  'INTEL486',
  'X64',
  'CLFSH',
  'CMOV',
  'CMPXCHG16B',
  'CPUID',
  'CX8',
  'FPU',
  'FPU287',
  'FPU387',
  'FXSR',
  'MMX',
  'MONITOR',
  'MSR',
  'MULTIBYTENOP',
  'PAUSE',
  'POPCNT',
  'PREFETCHW',
  'RDPMC',
  'RDRAND',
  'RDSEED',
  'RDTSCP',
  'SEP',
  'SERIALIZE',
  'SMM',
  'SSE',
  'SSE2',
  'SSE3',
  'SSE4_1',
  'SSE4_2',
  'SSSE3',
  'SYSCALL',
  'TSC',
] as const;

/** Groups of the extensions table, in addition. */
const knownGroups = [
  ...reportedGroups,
  'AES',
  'BMI1',
  'CLFLUSHOPT',
  'CLWB',
  'LZCNT',
  'MOVBE',
  'PCLMULQDQ',
  'RDPID',
  'SMAP',
  'WBNOINVD',
  'XSAVE',
  'XSAVEOPT',
] as const;

/** Codes accepted although their group is not part of the level. */
const acceptedCodes: Record<string, string> = {
  Vmcall: 'KVM guests call with it; the other VMX instructions do not exist',
  Vmmcall: 'KVM guests call with it; the other SVM instructions do not exist',
  Vmgexit: 'VMMCALL on processors without SEV-ES, which ignore its prefix',
};

/** Codes whose meaning we name differently. */
const renamed: Record<string, [operation: string, reason: string]> = {
  Fneni: ['fnop', 'does nothing after the 8087'],
  Fndisi: ['fnop', 'does nothing after the 8087'],
  Fnsetpm: ['fnop', 'does nothing after the 80287'],
  Fstpnce: ['fstp', 'second encoding of FSTP'],
  Sal: ['shl', 'the same operation'],
  Wait: ['fwait', 'the other spelling'],
  Xlatb: ['xlat', 'the other spelling'],
  Reservednop: ['nop', 'hint of a later processor'],
  Prefetch: ['nop', '0F 0D /0 belongs to 3DNow!'],
  Vmgexit: ['vmmcall', 'F3 and F2 are ignored without SEV-ES'],
};

/** Mnemonics with a width in the name; for us `operandSize` or `addressSize` tells. */
const widthless: Record<string, string> = {
  cwde: 'cbw',
  cdqe: 'cbw',
  cdq: 'cwd',
  cqo: 'cwd',
  pushfd: 'pushf',
  pushfq: 'pushf',
  popfd: 'popf',
  popfq: 'popf',
  pushad: 'pusha',
  popad: 'popa',
  iretd: 'iret',
  iretq: 'iret',
  sysretq: 'sysret',
  sysexitq: 'sysexit',
  jecxz: 'jcxz',
  jrcxz: 'jcxz',
  pcmpestrm64: 'pcmpestrm',
  pcmpestri64: 'pcmpestri',
  fxsave64: 'fxsave',
  fxrstor64: 'fxrstor',
  xsave64: 'xsave',
  xrstor64: 'xrstor',
  xsaveopt64: 'xsaveopt',
};

/** iced gives source registers of these the operand size, but sixteen bits of them are read, and we say so. */
const readsWord = new Set(['lldt', 'ltr', 'verr', 'verw', 'lmsw', 'lar', 'lsl', 'arpl']);

/** iced gives a size to the memory operand of these; nothing is accessed there (`xsave`: an area of variable size). */
const accessesNothing = /^(prefetch.*|nop|lea|invlpg|xsave|xrstor|xsaveopt)$/;

const stringCode = /^(Movs|Cmps|Stos|Lods|Scas|Ins|Outs)([bwdq])_(?:m\d+|AL|AX|EAX|RAX|DX)/;
const byteCode = /^[A-Za-z]+_(rm8|r8|AL|moffs8|DX_AL|imm8_AL)(_|$)/;
/** ASCII adjustments, SAHF, LAHF, SALC and XLAT serve bytes. */
const implicitBytes = /^(aa[adms]|da[as]|sahf|lahf|salc|xlat)$/;

const widths: Record<string, number> = { b: 1, w: 2, d: 4, q: 8 };

/** What a code says regardless of operands. */
interface CodeFacts {
  accepted: boolean;
  operation: string;
  /** Bytes; 0 if iced does not say. */
  operandSize: number;
  addressSize: number;
  isString: boolean;
  /** How many leading operands of iced's are implicit for us. */
  implicitOperands: number;
  operandCount: number;
}

function describeCode(instruction: IcedInstruction, groups: ReadonlySet<number>): CodeFacts {
  const name = Code[instruction.code] ?? '';
  const stem = name.split('_')[0] ?? '';
  const mnemonic = Mnemonic[instruction.mnemonic] ?? '';
  const description = CodeExt.opCode(instruction.code);
  const string = stringCode.exec(name);

  let operation = mnemonic.toLowerCase();
  operation = widthless[operation] ?? operation;
  operation = renamed[stem]?.[0] ?? renamed[mnemonic]?.[0] ?? operation;
  if (string) operation = (string[1] ?? '').toLowerCase();
  const far = /_(m16(16|32|64)|m1616|m1632|m1664|ptr1616|ptr1632)$/.test(name);
  if (far && (operation === 'call' || operation === 'jmp')) operation += 'f';

  let operandSize = description.operandSize / 8;
  if (string) operandSize = widths[string[2] ?? ''] ?? 0;
  else if (byteCode.test(name) || implicitBytes.test(operation)) operandSize = 1;

  let operandCount = description.opCount;
  let implicitOperands = 0;
  if (string || operation === 'xlat') implicitOperands = operandCount;
  // The address in rDI is implicit.
  if (operation.startsWith('maskmov')) implicitOperands = 1;
  // iced repeats rCX, which the address size names.
  if (/^(loop|jcxz)/.test(operation)) operandCount = 1;
  // The register of a reserved hint means nothing.
  if (operation === 'nop' && operandCount === 2) operandCount = 1;

  const features = [...instruction.cpuidFeatures()];
  return {
    accepted: features.every((feature) => groups.has(feature)) || stem in acceptedCodes,
    operation,
    operandSize,
    addressSize: description.addressSize / 8,
    isString: string !== null,
    implicitOperands,
    operandCount: operandCount - implicitOperands,
  };
}

/** `Operand` by iced register. */
const registerOperands: Operand[] = [];

function defineRegisters(first: Register, count: number, kind: OperandKind, size: number, number = 0): void {
  for (let index = 0; index < count; index++) {
    registerOperands[first + index] = { kind, size, register: number + index };
  }
}

defineRegisters(Register.AL, 4, OperandKind.gpr, 1);
defineRegisters(Register.AH, 4, OperandKind.highByte, 1);
defineRegisters(Register.SPL, 12, OperandKind.gpr, 1, 4);
defineRegisters(Register.AX, 16, OperandKind.gpr, 2);
defineRegisters(Register.EAX, 16, OperandKind.gpr, 4);
defineRegisters(Register.RAX, 16, OperandKind.gpr, 8);
defineRegisters(Register.ES, 6, OperandKind.segment, 2);
defineRegisters(Register.XMM0, 16, OperandKind.xmm, 16);
defineRegisters(Register.CR0, 16, OperandKind.control, 0);
defineRegisters(Register.DR0, 16, OperandKind.debug, 0);
defineRegisters(Register.ST0, 8, OperandKind.st, 10);
defineRegisters(Register.MM0, 8, OperandKind.mmx, 8);

function setFrom(target: Operand, source: Operand): void {
  target.kind = source.kind;
  target.register = source.register;
  target.size = source.size;
}

function set(target: Operand, kind: OperandKind, size: number): void {
  target.kind = kind;
  target.register = 0;
  target.size = size;
}

/** Splits a number of `bytes` bytes, sign-extended to 64 bits. */
function signedLow(value: bigint, bytes: number): number {
  return Number(BigInt.asIntN(32, BigInt.asIntN(bytes * 8, value)));
}

function signedHigh(value: bigint, bytes: number): number {
  return Number(BigInt.asIntN(64, BigInt.asIntN(bytes * 8, value)) >> 32n);
}

const nearBranchBytes: Record<number, number> = {
  [OpKind.NearBranch16]: 2,
  [OpKind.NearBranch32]: 4,
  [OpKind.NearBranch64]: 8,
};

/** Bytes an immediate has after extension. */
const immediateBytes: Record<number, number> = {
  [OpKind.Immediate8]: 1,
  [OpKind.Immediate16]: 2,
  [OpKind.Immediate32]: 4,
  [OpKind.Immediate64]: 8,
  [OpKind.Immediate8to16]: 2,
  [OpKind.Immediate8to32]: 4,
  [OpKind.Immediate8to64]: 8,
  [OpKind.Immediate32to64]: 8,
};

const stringAddressBytes: Record<number, number> = {
  [OpKind.MemorySegSI]: 2,
  [OpKind.MemorySegESI]: 4,
  [OpKind.MemorySegRSI]: 8,
  [OpKind.MemorySegDI]: 2,
  [OpKind.MemorySegEDI]: 4,
  [OpKind.MemorySegRDI]: 8,
  [OpKind.MemoryESDI]: 2,
  [OpKind.MemoryESEDI]: 4,
  [OpKind.MemoryESRDI]: 8,
};

function describeMemory(iced: IcedInstruction, facts: CodeFacts, out: Instruction, operand: Operand): void {
  const base = iced.memoryBase;
  const index = iced.memoryIndex;
  const registerSize = registerOperands[base]?.size ?? registerOperands[index]?.size;
  let displacement = iced.memoryDisplacement;
  if (base === Register.RIP || base === Register.EIP) {
    out.base = 16;
    out.addressSize = base === Register.RIP ? 8 : 4;
    displacement -= iced.nextIP;
  } else {
    out.base = base === Register.None ? -1 : (registerOperands[base]?.register ?? -2);
    out.addressSize = registerSize ?? iced.memoryDisplSize;
  }
  out.index = index === Register.None ? -1 : (registerOperands[index]?.register ?? -2);
  out.scale = index === Register.None ? 1 : iced.memoryIndexScale;
  out.displacement = signedLow(displacement, out.addressSize);
  out.displacementHigh = signedHigh(displacement, out.addressSize);
  out.segment = (registerOperands[iced.memorySegment]?.register ?? -1) as Instruction['segment'];
  const accessed = accessesNothing.test(facts.operation) ? 0 : MemorySizeExt.size(iced.memorySize);
  set(operand, OperandKind.memory, accessed);
}

/** Decodes with iced at a given level. */
export class Reference {
  readonly #groups: ReadonlySet<number>;
  readonly #options: number;
  readonly #facts: (CodeFacts | undefined)[] = [];

  constructor(level: Level) {
    const names = level === 'reported' ? reportedGroups : knownGroups;
    this.#groups = new Set(names.map((name) => CpuidFeature[name]));
    // Older processors ignore F3 before BSF, BSR and WBINVD.
    const withoutExtensions = DecoderOptions.NoMPFX_0FBC | DecoderOptions.NoMPFX_0FBD | DecoderOptions.NoWbnoinvd;
    this.#options = level === 'reported' ? withoutExtensions : DecoderOptions.None;
  }

  /** A pair of iced decoders over `bytes`: one as configured, one that knows no meaning of hint opcodes, nor PAUSE. */
  open(bytes: Uint8Array, codeSize: CodeSize): { plain: Decoder; hints: Decoder; free(): void } {
    const plain = new Decoder(codeSize, bytes, this.#options);
    const hints = new Decoder(
      codeSize,
      bytes,
      this.#options | DecoderOptions.ForceReservedNop | DecoderOptions.NoPause,
    );
    return {
      plain,
      hints,
      free: () => {
        plain.free();
        hints.free();
      },
    };
  }

  /** Fills `out` as our decoder should and returns true, or returns false for an invalid instruction. */
  decode(
    decoders: { plain: Decoder; hints: Decoder },
    bytes: Uint8Array,
    offset: number,
    iced: IcedInstruction,
    out: Instruction,
  ): boolean {
    decoders.plain.position = offset;
    decoders.plain.decodeOut(iced);
    if (iced.code === Code.INVALID) return false;
    if (iced.code === Code.Pause && decoders.hints.bitness === 64) {
      // F3 REX.B 90 exchanges R8 with the accumulator: measured on an AMD EPYC. iced calls it PAUSE in spite of REX.B.
      const rex = bytes[offset + iced.length - 2] ?? 0;
      if ((rex & 0xf1) === 0x41) {
        decoders.hints.position = offset;
        decoders.hints.decodeOut(iced);
      }
    }
    let facts = this.#factsOf(iced);
    if (!facts.accepted) {
      // A hint or a check of a later processor (CLDEMOTE, PREFETCHIT, ENDBR, RDSSP) is a NOP on ours.
      decoders.hints.position = offset;
      decoders.hints.decodeOut(iced);
      if (iced.mnemonic !== Mnemonic.Reservednop) return false;
      facts = { ...this.#factsOf(iced), accepted: true };
    }
    this.#describe(iced, facts, out);
    return true;
  }

  #factsOf(iced: IcedInstruction): CodeFacts {
    let facts = this.#facts[iced.code];
    if (!facts) {
      facts = describeCode(iced, this.#groups);
      this.#facts[iced.code] = facts;
    }
    return facts;
  }

  #describe(iced: IcedInstruction, facts: CodeFacts, out: Instruction): void {
    out.length = iced.length;
    out.operation = facts.operation;
    out.operandSize = facts.operandSize;
    out.addressSize = facts.addressSize;
    out.operandCount = facts.operandCount;
    out.lock = iced.hasLockPrefix;
    out.repeatEqual = facts.isString && iced.hasRepPrefix;
    out.repeatNotEqual = facts.isString && iced.hasRepnePrefix;
    out.segment = -1 as Instruction['segment'];
    if (facts.isString) {
      for (let index = 0; index < facts.implicitOperands; index++) {
        const kind = iced.opKind(index);
        out.addressSize = stringAddressBytes[kind] ?? out.addressSize;
        if (kind >= OpKind.MemorySegSI && kind <= OpKind.MemorySegRDI) {
          out.segment = (registerOperands[iced.memorySegment]?.register ?? -1) as Instruction['segment'];
        }
      }
      return;
    }
    if (facts.operation === 'xlat') {
      describeMemory(iced, facts, out, { kind: 0, register: 0, size: 0 });
      return;
    }
    for (let number = 0; number < facts.operandCount; number++) {
      this.#describeOperand(iced, number + facts.implicitOperands, facts, out, out.operands[number as 0 | 1 | 2 | 3]);
    }
    if (facts.implicitOperands === 1) {
      out.addressSize = stringAddressBytes[iced.op0Kind] ?? 0;
      out.segment = (registerOperands[iced.memorySegment]?.register ?? -1) as Instruction['segment'];
    }
  }

  #describeOperand(iced: IcedInstruction, number: number, facts: CodeFacts, out: Instruction, operand: Operand): void {
    const kind = iced.opKind(number);
    switch (kind) {
      case OpKind.Register: {
        const register = registerOperands[iced.opRegister(number)];
        if (!register) throw new Error(`unexpected register ${Register[iced.opRegister(number)]}`);
        setFrom(operand, register);
        const toSegment = facts.operation === 'mov' && number === 1 && out.operands[0].kind === OperandKind.segment;
        const selector = readsWord.has(facts.operation) && (facts.operandCount === 1 || number === 1);
        if (operand.kind === OperandKind.gpr && (toSegment || selector || facts.operation === 'arpl')) operand.size = 2;
        break;
      }
      case OpKind.Memory:
        describeMemory(iced, facts, out, operand);
        break;
      case OpKind.NearBranch16:
      case OpKind.NearBranch32:
      case OpKind.NearBranch64: {
        const bytes = nearBranchBytes[kind] ?? 0;
        const distance = iced.nearBranchTarget - iced.nextIP;
        out.immediateLow = signedLow(distance, bytes);
        out.immediateHigh = signedHigh(distance, bytes);
        set(operand, OperandKind.relative, bytes);
        break;
      }
      case OpKind.FarBranch16:
      case OpKind.FarBranch32: {
        const wide = kind === OpKind.FarBranch32;
        out.immediateLow = wide ? iced.farBranch32 | 0 : iced.farBranch16;
        out.immediateHigh = 0;
        out.secondImmediate = iced.farBranchSelector;
        set(operand, OperandKind.farPointer, wide ? 6 : 4);
        break;
      }
      case OpKind.Immediate8_2nd:
        out.secondImmediate = iced.immediate8_2nd;
        set(operand, OperandKind.secondImmediate, 1);
        break;
      default: {
        const bytes = immediateBytes[kind];
        if (bytes === undefined) throw new Error(`unexpected operand kind ${OpKind[kind]}`);
        const value = iced.immediate(number);
        out.immediateLow = signedLow(value, bytes);
        out.immediateHigh = signedHigh(value, bytes);
        set(operand, OperandKind.immediate, bytes);
      }
    }
  }
}
