import { describe, expect, test } from 'vitest';
import { compileTables } from '../src/cpu/decode/compile.ts';
import { createDecoder, createInstruction, DecodeResult, decode, operationNames } from '../src/cpu/decode/decoder.ts';
import { knownFeatures, reportedFeatures } from '../src/cpu/decode/features.ts';
import { formatInstruction } from '../src/cpu/decode/format.ts';
import { AddressRegister, type CodeSize, OperandKind, SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { parseSections } from '../src/cpu/decode/rows.ts';
import { compareDecoders } from './decode/agreement.ts';

function bytesOf(hexadecimal: string): Uint8Array {
  return Uint8Array.from(hexadecimal.match(/[0-9a-f]{2}/gi) ?? [], (digits) => Number.parseInt(digits, 16));
}

/** Decodes exactly the given bytes. */
function decodeText(hexadecimal: string, codeSize: CodeSize = 64, decoder = decode) {
  const bytes = bytesOf(hexadecimal);
  const instruction = createInstruction();
  const result = decoder(bytes, 0, bytes.length, codeSize, instruction);
  return { result, instruction };
}

/** The Intel syntax of valid bytes, or the name of the failure. */
function print(hexadecimal: string, codeSize: CodeSize = 64, decoder = decode): string {
  const { result, instruction } = decodeText(hexadecimal, codeSize, decoder);
  return result === DecodeResult.ok
    ? formatInstruction(instruction)
    : (['', 'invalid', 'truncated', 'too long'][result] ?? '');
}

describe('agreement with iced-x86', () => {
  const seed = (Date.now() % 1_000_000) + 1;

  test(`every generated sequence decodes the same at the reported level (seed ${seed})`, () => {
    const { differences, operations } = compareDecoders({ count: 200_000, seed, maximumDifferences: 10 });
    expect(differences).toEqual([]);
    expect(operations.size).toBeGreaterThan(400);
  });

  test(`every generated sequence decodes the same with all described extensions (seed ${seed})`, () => {
    const { differences } = compareDecoders({ count: 100_000, seed, level: 'known', maximumDifferences: 10 });
    expect(differences).toEqual([]);
  });

  test('a comparison that finds a decoder at the wrong level reports it', () => {
    const { differences } = compareDecoders({
      count: 200_000,
      seed: 1,
      level: 'known',
      decoder: createDecoder(reportedFeatures),
      maximumDifferences: 10,
    });
    expect(differences.length).toBeGreaterThan(0);
  });
});

describe('the end of the available bytes', () => {
  test.each([
    ['', 1],
    ['48', 2],
    ['0f', 2],
    ['0f 38', 3],
    ['89', 2],
    ['8b 04', 3],
    ['8b 05 00 00', 6],
    ['81 00', 6],
    ['48 b8 00 00 00 00', 10],
    ['c8 10 00', 4],
  ])('%j is truncated and asks for %i bytes', (text, needed) => {
    const { result, instruction } = decodeText(text);
    expect(result).toBe(DecodeResult.truncated);
    expect(instruction.length).toBe(needed);
  });

  test.each([
    ['06', 64, 1],
    ['0f 04', 64, 2],
    ['0f 3a 00', 64, 3],
    ['c4', 64, 1],
    ['c4 c0', 32, 2],
    ['f0 01 c0', 64, 3],
    ['8d c0', 64, 2],
    ['8e c8', 64, 2],
  ] as const)('%j in %i-bit code is invalid after %i bytes without asking for more', (text, codeSize, length) => {
    const { result, instruction } = decodeText(text, codeSize);
    expect(result).toBe(DecodeResult.invalid);
    expect(instruction.length).toBe(length);
  });

  test('bytes before the offset and beyond the available ones are not read', () => {
    const bytes = bytesOf('f0 f0 90 cc cc');
    const instruction = createInstruction();
    expect(decode(bytes, 2, 1, 64, instruction)).toBe(DecodeResult.ok);
    expect(instruction).toMatchObject({ operation: 'nop', length: 1, lock: false });
  });

  test('fifteen bytes are an instruction and sixteen are too long', () => {
    expect(print(`${'66'.repeat(14)} 90`)).toBe('nop');
    expect(print(`${'66'.repeat(15)} 90`)).toBe('too long');
    expect(print(`${'2e'.repeat(10)} 81 05 00 00 00 00 01 00 00 00`)).toBe('too long');
  });

  test('an instruction that will be too long first demands the fifteen bytes', () => {
    const { result, instruction } = decodeText(`${'2e'.repeat(10)} 81 05`);
    expect(result).toBe(DecodeResult.truncated);
    expect(instruction.length).toBe(15);
  });
});

describe('prefixes', () => {
  test('REX counts only directly before the opcode', () => {
    expect(print('48 66 01 c8')).toBe('add ax, cx');
    expect(print('66 48 01 c8')).toBe('add rax, rcx');
  });

  test('any REX turns AH into SPL', () => {
    expect(print('88 e0')).toBe('mov al, ah');
    expect(print('40 88 e0')).toBe('mov al, spl');
  });

  test('F3 and F2 win over 66 as mandatory prefix, and the later of the two counts', () => {
    expect(print('66 f2 0f 58 c1')).toBe('addsd xmm0, xmm1');
    expect(print('f3 66 0f 58 c1')).toBe('addss xmm0, xmm1');
    expect(print('f3 f2 0f 58 c1')).toBe('addsd xmm0, xmm1');
  });

  test('a mandatory 66 leaves the operand size alone', () => {
    expect(decodeText('66 0f 3a 61 c1 00').instruction.operandSize).toBe(4);
    expect(decodeText('66 48 0f 3a 61 c1 00').instruction.operandSize).toBe(8);
  });

  test('F3 and F2 repeat string instructions and no others', () => {
    expect(decodeText('f3 48 a5').instruction).toMatchObject({ operation: 'movs', operandSize: 8, repeatEqual: true });
    expect(decodeText('f2 ae').instruction).toMatchObject({ operation: 'scas', operandSize: 1, repeatNotEqual: true });
    expect(decodeText('f3 c3').instruction).toMatchObject({ operation: 'ret', repeatEqual: false });
    expect(decodeText('f2 e8 00 00 00 00').instruction).toMatchObject({ operation: 'call', repeatNotEqual: false });
  });

  test('LOCK needs a lockable operation with a memory destination', () => {
    expect(print('f0 01 08')).toBe('lock add dword ptr ds:[rax], ecx');
    expect(print('f0 01 c8')).toBe('invalid');
    expect(print('f0 03 08')).toBe('invalid');
    expect(print('f0 89 08')).toBe('invalid');
    expect(print('f0 39 08')).toBe('invalid');
    expect(print('f0 0f c7 08')).toBe('lock cmpxchg8b qword ptr ds:[rax]');
  });

  test('in 64-bit code the overrides other than FS and GS do not undo those', () => {
    expect(decodeText('64 2e 8b 00').instruction.segment).toBe(SegmentRegister.fs);
    expect(decodeText('64 2e 8b 00', 32).instruction.segment).toBe(SegmentRegister.cs);
  });

  test('66 is ignored on near branches in 64-bit code only', () => {
    expect(decodeText('66 e8 00 00 00 00').instruction).toMatchObject({ length: 6, operandSize: 8 });
    expect(decodeText('66 e8 00 00', 32).instruction).toMatchObject({ length: 4, operandSize: 2 });
  });

  test('NOP, PAUSE and the exchange with R8 share an opcode', () => {
    expect(print('90')).toBe('nop');
    expect(print('48 90')).toBe('nop');
    expect(print('f3 90')).toBe('pause');
    expect(print('49 90')).toBe('xchg r8, rax');
    expect(print('f3 49 90')).toBe('xchg r8, rax');
  });
});

describe('addresses', () => {
  test('relative to RIP in 64-bit code, absolute elsewhere', () => {
    expect(decodeText('8b 05 f0 ff ff ff').instruction).toMatchObject({
      base: AddressRegister.rip,
      index: AddressRegister.none,
      displacement: -16,
      displacementHigh: -1,
    });
    expect(decodeText('8b 05 f0 ff ff ff', 32).instruction.base).toBe(AddressRegister.none);
  });

  test('the stack segment belongs to RSP and RBP as bases, not to R12 and R13', () => {
    expect(decodeText('8b 04 24').instruction.segment).toBe(SegmentRegister.ss);
    expect(decodeText('8b 45 00').instruction.segment).toBe(SegmentRegister.ss);
    expect(decodeText('41 8b 04 24').instruction.segment).toBe(SegmentRegister.ds);
    expect(decodeText('41 8b 45 00').instruction.segment).toBe(SegmentRegister.ds);
    expect(decodeText('8b 04 2d 00 00 00 00').instruction.segment).toBe(SegmentRegister.ds);
    expect(decodeText('8b 46 00', 16).instruction.segment).toBe(SegmentRegister.ss);
  });

  test('R12 is an index, RSP is none', () => {
    expect(print('42 8b 04 a0')).toBe('mov eax, dword ptr ds:[rax+r12*4]');
    expect(decodeText('8b 04 a0').instruction).toMatchObject({ index: AddressRegister.none, scale: 1 });
  });

  test('MOV moffs has an address of the address size', () => {
    expect(print('a1 88 77 66 55 44 33 22 11')).toBe('mov eax, dword ptr ds:[0x1122334455667788]');
    expect(print('67 a1 44 33 22 11')).toBe('mov eax, dword ptr ds:[0x11223344]');
    expect(print('a0 34 12', 16)).toBe('mov al, byte ptr ds:[0x1234]');
  });

  test('sixteen-bit forms', () => {
    expect(print('8b 42 fe', 16)).toBe('mov ax, word ptr ss:[bp+si-0x2]');
    expect(print('8b 0e 34 12', 16)).toBe('mov cx, word ptr ds:[0x1234]');
  });
});

describe('immediates', () => {
  test('arithmetic immediates are sign-extended to 64 bits', () => {
    expect(decodeText('48 83 c0 ff').instruction).toMatchObject({ immediateLow: -1, immediateHigh: -1 });
    expect(decodeText('48 05 00 00 00 80').instruction).toMatchObject({
      immediateLow: -0x8000_0000,
      immediateHigh: -1,
    });
    expect(decodeText('6a 80').instruction).toMatchObject({ immediateLow: -128, immediateHigh: -1, operandSize: 8 });
  });

  test('counts, ports, vectors and RET and ENTER sizes are zero-extended', () => {
    expect(decodeText('c1 e0 ff').instruction).toMatchObject({ immediateLow: 255, immediateHigh: 0 });
    expect(decodeText('e6 ff').instruction).toMatchObject({ immediateLow: 255, operandSize: 1 });
    expect(decodeText('cd 80').instruction).toMatchObject({ immediateLow: 128 });
    expect(decodeText('c2 00 80').instruction).toMatchObject({ immediateLow: 0x8000, immediateHigh: 0 });
    expect(decodeText('c8 00 80 1f').instruction).toMatchObject({ immediateLow: 0x8000, secondImmediate: 31 });
  });

  test('shifts by one and by CL list their count', () => {
    expect(print('d1 e0')).toBe('shl eax, 0x1');
    expect(print('d3 e0')).toBe('shl eax, cl');
  });

  test('far pointers', () => {
    expect(print('ea 78 56 34 12 10 00', 32)).toBe('jmpf 0x10:0x12345678');
    expect(decodeText('ff 2b', 64).instruction.operands[0]).toMatchObject({ kind: OperandKind.memory, size: 6 });
    expect(decodeText('48 ff 2b', 64).instruction.operands[0].size).toBe(10);
  });
});

describe('the reported level', () => {
  test.each([
    ['endbr64', 'f3 0f 1e fa', 'nop edx'],
    ['multi-byte NOP', '66 0f 1f 44 00 00', 'nop ds:[rax+rax]'],
    ['TZCNT', 'f3 0f bc c1', 'bsf eax, ecx'],
    ['LZCNT', 'f3 0f bd c1', 'bsr eax, ecx'],
    ['WBNOINVD', 'f3 0f 09', 'wbinvd'],
    ['XGETBV', '0f 01 d0', 'invalid'],
    ['RDFSBASE', 'f3 48 0f ae c0', 'rdfsbase rax'],
    ['MOVBE', '0f 38 f0 00', 'invalid'],
    ['CLAC', '0f 01 ca', 'invalid'],
    ['VMCALL', '0f 01 c1', 'vmcall'],
    ['VMMCALL', '0f 01 d9', 'vmmcall'],
    ['RDRAND', '0f c7 f0', 'rdrand eax'],
    ['RDPID', 'f3 0f c7 f8', 'invalid'],
    ['SERIALIZE', '0f 01 e8', 'serialize'],
    ['SERIALIZE with a prefix', '66 0f 01 e8', 'invalid'],
    ['VEX', 'c5 f8 77', 'invalid'],
  ])('%s', (_name, text, expected) => {
    expect(print(text)).toBe(expected);
  });

  test('a feature passed to createDecoder brings its instructions', () => {
    const wider = createDecoder(knownFeatures);
    expect(print('f3 0f bc c1', 64, wider)).toBe('tzcnt eax, ecx');
    expect(print('0f 01 d0', 64, wider)).toBe('xgetbv');
    expect(print('66 f2 0f bc c1', 64, wider)).toBe('bsf ax, cx');
  });

  test('operation names contain no two spellings of one operation', () => {
    const names = operationNames();
    expect(names).toContain('cmovae');
    for (const other of ['cmovnc', 'cmovnb', 'setz', 'jnz', 'sal', 'movsb', 'cwde', 'retn', 'tzcnt']) {
      expect(names).not.toContain(other);
    }
  });
});

describe('opcode tables', () => {
  test('two rows that demand equally much of one encoding are refused', () => {
    const rows = parseSections([{ feature: 'base', rows: 'FE /0 | inc | r/m8 |\nFE /0 | dec | r/m8 |' }]);
    expect(() => compileTables(rows, reportedFeatures, true)).toThrow('cover the same encoding');
  });

  test.each([
    ['00 | add | r/m7 |', 'unknown operand size "7"'],
    ['00 | add | bogus |', 'unknown operand "bogus"'],
    ['00 | add | al, imm8 | bogus', 'unknown attribute "bogus"'],
  ])('%j is refused', (rows, message) => {
    expect(() => parseSections([{ feature: 'base', rows }])).toThrow(message);
  });
});
