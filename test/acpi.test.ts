import { describe, expect, it } from 'vitest';
import { type AcpiOptions, createAcpiTables } from '../src/boot/acpi.ts';
import * as aml from '../src/boot/aml.ts';

const ADDRESS = 0xe_0000;

const OPTIONS: AcpiOptions = {
  address: ADDRESS,
  processors: 3,
  localApic: 0xfee0_0000,
  ioApic: { identifier: 3, address: 0xfec0_0000 },
  power: { control: 0x600, status: 0x601, reset: 0x602 },
  powerTimer: 0x608,
  resetValue: 1,
  sleepTypeOff: 5,
  generation: { address: 0xf_0000, line: 3 },
  devices: [
    {
      name: 'COM1',
      identifier: 'PNP0501',
      unique: 1,
      ports: { first: 0x3f8, count: 8 },
      interrupt: { line: 4, edgeTriggered: true },
    },
    {
      name: 'VR00',
      identifier: 'LNRO0005',
      unique: 0,
      memory: { first: 0xfeb0_0000, bytes: 0x200 },
      interrupt: { line: 5, edgeTriggered: false },
    },
  ],
};

const all = createAcpiTables(OPTIONS);
const view = new DataView(all.buffer, all.byteOffset);

function tableAt(address: number): Uint8Array {
  const start = address - ADDRESS;
  return all.subarray(start, start + view.getUint32(start + 4, true));
}

function tables(): Map<string, Uint8Array> {
  const xsdt = tableAt(view.getUint32(24, true));
  const found = new Map<string, Uint8Array>();
  const entries = new DataView(xsdt.buffer, xsdt.byteOffset, xsdt.length);
  for (let offset = 36; offset < xsdt.length; offset += 8) {
    const table = tableAt(entries.getUint32(offset, true));
    found.set(new TextDecoder().decode(table.subarray(0, 4)), table);
  }
  return found;
}

const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0);

describe('ACPI tables', () => {
  it('are found from the RSDP', () => {
    expect(new TextDecoder().decode(all.subarray(0, 8))).toBe('RSD PTR ');
    expect([...tables().keys()]).toEqual(['FACP', 'APIC']);
  });

  it('add up to 0', () => {
    expect([sum(all.subarray(0, 20)), sum(all.subarray(0, 36))]).toEqual([0, 0]);
    for (const table of tables().values()) expect(sum(table)).toBe(0);
  });

  it('say that there is no fixed hardware, and how to power off and reset', () => {
    const table = tables().get('FACP') as Uint8Array;
    const fields = new DataView(table.buffer, table.byteOffset, table.length);
    expect(fields.getUint32(112, true) & 0x10_0400).toBe(0x10_0400);
    const ports = [116, 244, 256].map((offset) => fields.getUint32(offset + 4, true));
    expect(ports).toEqual([0x602, 0x600, 0x601]);
  });

  it('name the timer to measure clocks by, as ACPI 1.0 did and as later versions do', () => {
    const table = tables().get('FACP') as Uint8Array;
    const fields = new DataView(table.buffer, table.byteOffset, table.length);
    expect([fields.getUint32(76, true), fields.getUint8(91)]).toEqual([0x608, 4]);
    expect([...table.subarray(208, 216)]).toEqual([1, 32, 0, 3, 0x08, 0x06, 0, 0]);
  });

  it('name each processor and the I/O APIC', () => {
    const table = tables().get('APIC') as Uint8Array;
    const entries: number[][] = [];
    for (let offset = 44; offset < table.length; offset += table[offset + 1] as number) {
      entries.push([...table.subarray(offset, offset + 4)]);
    }
    expect(entries).toEqual([
      [0, 8, 0, 0],
      [0, 8, 1, 1],
      [0, 8, 2, 2],
      [1, 12, 3, 0],
    ]);
  });

  it('describe devices with their resources', () => {
    const facp = tables().get('FACP') as Uint8Array;
    const dsdt = tableAt(new DataView(facp.buffer, facp.byteOffset).getUint32(40, true));
    const code = new TextDecoder('latin1').decode(dsdt);
    const bytesOf = (part: readonly number[]): string => String.fromCharCode(...part);
    expect(code).toContain(bytesOf([0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x89, 6, 0, 3, 1, 4, 0, 0, 0, 0x79, 0]));
    expect(code).toContain('LNRO0005\0');
    expect(code).toContain(bytesOf([0x86, 9, 0, 1, 0, 0, 0xb0, 0xfe, 0, 2, 0, 0]));
    expect(sum(dsdt)).toBe(0);
  });

  it('name the place of the generation, and notify its device by an edge-triggered interrupt', () => {
    const facp = tables().get('FACP') as Uint8Array;
    const dsdt = tableAt(new DataView(facp.buffer, facp.byteOffset).getUint32(40, true));
    const code = new TextDecoder('latin1').decode(dsdt);
    const bytesOf = (part: readonly number[]): string => String.fromCharCode(...part);
    // Package of 2: the double word 0xf0000, and zero.
    expect(code).toContain(`\x08ADDR${bytesOf([0x12, 8, 2, 0x0c, 0, 0, 0x0f, 0, 0])}`);
    expect(code).toContain(`ACPI0013\0`);
    expect(code).toContain(bytesOf([0x89, 6, 0, 3, 1, 3, 0, 0, 0, 0x79, 0]));
    // A method of one parameter, 14 bytes with its length: Notify (VGEN, 0x80).
    expect(code).toContain(`${bytesOf([0x14, 13])}_EVT\x01${bytesOf([0x86])}VGEN${bytesOf([0x0a, 0x80])}`);
  });
});

describe('the encoder of ACPI machine language', () => {
  it('encodes identifiers as the specification does', () => {
    expect(aml.identifier('PNP0501')).toEqual([0x0c, 0x41, 0xd0, 0x05, 0x01]);
  });

  it.each([
    [40, 1],
    [62, 1],
    [63, 2],
    [4000, 2],
    [5000, 3],
  ])('counts the bytes of its lengths: %i bytes need %i', (content, bytes) => {
    const term = aml.scope('A', new Array<number>(content - 4).fill(0));
    const first = term[1] as number;
    expect(term.length).toBe(1 + bytes + content);
    const length =
      bytes === 1
        ? first
        : (first & 0xf) | ((term[2] as number) << 4) | ((bytes === 3 ? (term[3] as number) : 0) << 12);
    expect([length, first >> 6]).toEqual([bytes + content, bytes - 1]);
  });
});
