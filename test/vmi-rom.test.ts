import { Decoder, DecoderOptions, Formatter, FormatterSyntax } from 'iced-x86';
import { describe, expect, it } from 'vitest';
import { CALL_COUNT, CALL_NAMES, Call } from '../src/interfaces/vmi/abi.ts';
import { createRom } from '../src/interfaces/vmi/rom.ts';

const { image: rom } = createRom('shadow');
const view = new DataView(rom.buffer);
const JUMP = 0xe9;

function textAt(offset: number): string {
  return new TextDecoder().decode(rom.subarray(offset, rom.indexOf(0, offset)));
}

/** Instructions from an offset up to the first that does not go on. */
function listing(offset: number, code = rom): string[] {
  const formatter = new Formatter(FormatterSyntax.Nasm);
  const decoder = new Decoder(32, code.subarray(offset), DecoderOptions.None);
  decoder.ip = BigInt(offset);
  const lines: string[] = [];
  try {
    for (;;) {
      const instruction = decoder.decode();
      const line = formatter.format(instruction);
      lines.push(line);
      instruction.free();
      if (/^(ret|jmp|iret|sysexit)/.test(line)) return lines;
    }
  } finally {
    decoder.free();
    formatter.free();
  }
}

/** Where GetRelocationInfo's table is: behind all code, at the end of the ROM but for padding. */
function placesOf(): ReadonlyMap<number, number> {
  const relocate = listing(0x88 + 5 + view.getInt32(0x89, true));
  const here = relocate.indexOf('pop ecx');
  expect(here).toBeGreaterThan(0);
  const start = 0x88 + 5 + view.getInt32(0x89, true);
  // cmp eax, imm32; jae rel32; call rel32: 6, 6 and 5 bytes.
  const base = start + 6 + 6 + 5;
  // mov edx, [ecx + eax * 8 + disp32] behind pop ecx.
  const table = base + view.getInt32(base + 1 + 3, true) - 4;
  return new Map(
    Array.from({ length: CALL_COUNT }, (_, call) => call)
      .filter((call) => view.getInt32(table + call * 8, true) !== 0)
      .map((call) => [call, base + view.getInt32(table + call * 8, true)]),
  );
}

describe('the ROM of the VMI interface', () => {
  it('has the headers of an option ROM, a VMI ROM, PCI and PnP', () => {
    expect(view.getUint16(0, true)).toBe(0xaa55);
    expect((rom[2] as number) * 512).toBe(rom.length);
    expect(rom.reduce((sum, byte) => (sum + byte) & 0xff, 0)).toBe(0);
    expect(new TextDecoder().decode(rom.subarray(8, 12))).toBe('cVmi');
    expect([rom[0x0d], rom[0x0c]]).toEqual([3, 0]);
    expect(textAt(view.getUint16(0x16, true))).toBe('GPL');
    const pci = view.getUint16(0x18, true);
    expect(new TextDecoder().decode(rom.subarray(pci, pci + 4))).toBe('PCIR');
    expect([view.getUint16(pci + 4, true), view.getUint16(pci + 6, true)]).toEqual([0x15ad, 0x0801]);
    const pnp = view.getUint16(0x1a, true);
    expect(new TextDecoder().decode(rom.subarray(pnp, pnp + 4))).toBe('$PnP');
    expect(textAt(view.getUint16(pnp + 0x0e, true))).toBe('ring1');
    expect(rom.subarray(pnp, pnp + 32).reduce((sum, byte) => (sum + byte) & 0xff, 0)).toBe(0);
  });

  const places = placesOf();
  const codeOf = (call: Call) => listing(places.get(call) as number);

  it.each([
    [Call.cpuid, 'cpuid'],
    [Call.writeMsr, 'wrmsr'],
    [Call.readMsr, 'rdmsr'],
    [Call.setGdt, 'lgdt [eax]'],
    [Call.setLdt, 'lldt ax'],
    [Call.setIdt, 'lidt [eax]'],
    [Call.setTask, 'ltr ax'],
    [Call.getGdt, 'sgdt [eax]'],
    [Call.getLdt, 'sldt eax'],
    [Call.getIdt, 'sidt [eax]'],
    [Call.getTask, 'str eax'],
    [Call.setCr0, 'mov cr0,eax'],
    [Call.setCr2, 'mov cr2,eax'],
    [Call.setCr3, 'mov cr3,eax'],
    [Call.setCr4, 'mov cr4,eax'],
    [Call.getCr0, 'mov eax,cr0'],
    [Call.getCr2, 'mov eax,cr2'],
    [Call.getCr3, 'mov eax,cr3'],
    [Call.getCr4, 'mov eax,cr4'],
    [Call.readTimeStamp, 'rdtsc'],
    [Call.readCounter, 'rdpmc'],
    [Call.clearTaskSwitched, 'clts'],
    [Call.enableInterrupts, 'sti'],
    [Call.disableInterrupts, 'cli'],
    [Call.invalidatePage, 'invlpg [eax]'],
  ])('does by an instruction what one is for: call %i', (call, instruction) => {
    expect(codeOf(call)).toEqual([instruction, 'ret']);
  });

  it.each([
    [Call.interruptReturn, ['iret']],
    [Call.systemExit, ['sti', 'sysexit']],
    [Call.halt, ['sti', 'hlt', 'ret']],
    [Call.getInterruptMask, ['pushf', 'pop eax', 'ret']],
  ])('has the instructions of call %i', (call, instructions) => {
    expect(codeOf(call)).toEqual(instructions);
  });

  it.each([Call.allocatePage, Call.flushTlb, Call.setAlarm, Call.apicWrite, Call.setInitialApState])(
    'goes to the host with the number of call %i, and changes no register but the result',
    (call) => {
      const number = `mov ebx,${call.toString(16).toUpperCase()}h`;
      expect(codeOf(call)).toEqual(['push ebx', number, 'vmcall', 'pop ebx', 'ret']);
    },
  );

  it('says only with direct paging that entries can be read by it, and has code for that then', () => {
    for (const kind of ['shadow', 'native', 'direct'] as const) {
      const { image, calls } = createRom(kind);
      const extension = new TextDecoder().decode(image.subarray(0x20, 0x24));
      const reads = [Call.getEntryLong, Call.swapEntryLong].map((call) => calls.has(call));
      const isDirect = kind === 'direct';
      expect([kind, extension, image[0x28], ...reads]).toEqual([
        kind,
        isDirect ? 'GPxE' : '\0\0\0\0',
        isDirect ? JUMP : 0,
        isDirect,
        isDirect,
      ]);
    }
  });

  it('reads entries without its host', () => {
    const { image, calls } = createRom('direct');
    const code = listing(calls.get(Call.getEntryLong) as number, image);
    expect(code.at(-1)).toBe('ret');
    expect(code).not.toContain('vmcall');
  });

  it('names each call once', () => {
    const names = Object.values(CALL_NAMES);
    expect(new Set(names).size).toBe(names.length);
    expect(names.length).toBe(CALL_COUNT - 11);
  });
});
