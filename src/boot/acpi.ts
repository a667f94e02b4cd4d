import * as aml from './aml.ts';

/**
 * ACPI tables of a microVM: hardware-reduced (no fixed hardware, no interrupt of ACPI's own), with local APICs, one I/O
 * APIC, devices that the DSDT describes (ACPI 6.4, chapter 5), and the identifier of the guest's generation.
 *
 *   RSDP · XSDT · FADT · MADT · DSDT, one behind the other, each 16-byte aligned
 */
export interface AcpiOptions {
  /** Physical address of the first byte. */
  readonly address: number;
  readonly processors: number;
  readonly localApic: number;
  readonly ioApic: { readonly identifier: number; readonly address: number };
  /** Ports of ACPI's sleep control, sleep status and reset. */
  readonly power: { readonly control: number; readonly status: number; readonly reset: number };
  /** Port of the power management timer. Kernels use it although hardware-reduced machines need none. */
  readonly powerTimer: number;
  readonly resetValue: number;
  /** SLP_TYP of a power-off. */
  readonly sleepTypeOff: number;
  readonly devices: readonly AcpiDevice[];
  /** Where the identifier of the guest's generation stands, and the edge-triggered interrupt that tells of another one. */
  readonly generation: { readonly address: number; readonly line: number };
}

/** A device as the DSDT has it. */
export interface AcpiDevice {
  /** Four characters, unique. */
  readonly name: string;
  /** A PNP or ACPI identifier, as in "PNP0501" or "LNRO0005". */
  readonly identifier: string;
  readonly unique: number;
  readonly ports?: { readonly first: number; readonly count: number };
  readonly memory?: { readonly first: number; readonly bytes: number };
  readonly interrupt?: { readonly line: number; readonly edgeTriggered: boolean };
}

/** OEM and creator, in the header of each table. */
const OEM = 'RING1 ';
const OEM_TABLE = 'MICROVM ';
const CREATOR = 'RNG1';
const GENERATION_IDENTIFIER = 'RNG10001';
const HEADER_BYTES = 36;
const ALIGNMENT = 16;
const RSDP_BYTES = 36;

/** Bytes of a table under construction, little-endian. */
class Table {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
    this.#view = new DataView(this.bytes.buffer);
  }

  text(offset: number, value: string): void {
    this.bytes.set(new TextEncoder().encode(value), offset);
  }

  byte(offset: number, value: number): void {
    this.bytes[offset] = value;
  }

  half(offset: number, value: number): void {
    this.#view.setUint16(offset, value, true);
  }

  word(offset: number, value: number): void {
    this.#view.setUint32(offset, value, true);
  }

  /** An address of 64 bits, below 2^32. */
  long(offset: number, address: number): void {
    this.word(offset, address);
  }

  /** A register in port space, accessed as a whole (generic address structure). */
  portRegister(offset: number, port: number, bytes: 1 | 4 = 1): void {
    const SYSTEM_IO = 1;
    const BYTE_ACCESS = 1;
    const WORD_ACCESS = 3;
    this.bytes.set([SYSTEM_IO, 8 * bytes, 0, bytes === 1 ? BYTE_ACCESS : WORD_ACCESS], offset);
    this.long(offset + 4, port);
  }

  checksum(offset: number, length: number): void {
    this.bytes[offset] = 0;
    let sum = 0;
    for (let index = 0; index < length; index++) sum += this.bytes[index] as number;
    this.bytes[offset] = -sum & 0xff;
  }
}

function describedTable(signature: string, revision: number, length: number): Table {
  const table = new Table(length);
  table.text(0, signature);
  table.word(4, length);
  table.byte(8, revision);
  table.text(10, OEM);
  table.text(16, OEM_TABLE);
  table.word(24, 1);
  table.text(28, CREATOR);
  table.word(32, 1);
  return table;
}

function finished(table: Table): Uint8Array {
  table.checksum(9, table.bytes.length);
  return table.bytes;
}

/** The bytes that are to stand at `options.address`; the RSDP comes first. */
export function createAcpiTables(options: AcpiOptions): Uint8Array {
  const pieces: { at: number; bytes: Uint8Array }[] = [];
  let next = options.address + align(RSDP_BYTES);
  const place = (bytes: Uint8Array): number => {
    const at = next;
    pieces.push({ at, bytes });
    next += align(bytes.length);
    return at;
  };
  const dsdt = place(createDsdt(options));
  const fadt = place(createFadt(options, dsdt));
  const madt = place(createMadt(options));
  const xsdt = place(createXsdt([fadt, madt]));
  pieces.push({ at: options.address, bytes: createRsdp(xsdt) });
  const all = new Uint8Array(next - options.address);
  for (const { at, bytes } of pieces) all.set(bytes, at - options.address);
  return all;
}

function align(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

function createRsdp(xsdt: number): Uint8Array {
  const table = new Table(RSDP_BYTES);
  table.text(0, 'RSD PTR ');
  table.text(9, OEM);
  table.byte(15, 2);
  table.word(20, RSDP_BYTES);
  table.long(24, xsdt);
  // The first checksum covers what ACPI 1.0 had, the second all.
  table.checksum(8, 20);
  table.checksum(32, RSDP_BYTES);
  return table.bytes;
}

function createXsdt(tables: readonly number[]): Uint8Array {
  const table = describedTable('XSDT', 1, HEADER_BYTES + tables.length * 8);
  tables.forEach((address, index) => {
    table.long(HEADER_BYTES + index * 8, address);
  });
  return finished(table);
}

const FADT_BYTES = 276;
const POWER_TIMER_BYTES = 4;

function createFadt({ power, powerTimer, resetValue }: AcpiOptions, dsdt: number): Uint8Array {
  const NO_VGA = 1 << 2;
  const WBINVD_WORKS = 1 << 0;
  const RESET_REGISTER = 1 << 10;
  const HARDWARE_REDUCED = 1 << 20;
  const table = describedTable('FACP', 6, FADT_BYTES);
  table.word(40, dsdt);
  table.word(76, powerTimer);
  table.byte(91, POWER_TIMER_BYTES);
  table.half(109, NO_VGA);
  table.word(112, WBINVD_WORKS | RESET_REGISTER | HARDWARE_REDUCED);
  table.portRegister(116, power.reset);
  table.byte(128, resetValue);
  table.byte(131, 4);
  table.long(140, dsdt);
  table.portRegister(208, powerTimer, POWER_TIMER_BYTES);
  table.portRegister(244, power.control);
  table.portRegister(256, power.status);
  return finished(table);
}

function createMadt({ processors, localApic, ioApic }: AcpiOptions): Uint8Array {
  const LOCAL_APIC_BYTES = 8;
  const IO_APIC_BYTES = 12;
  const ENABLED = 1;
  const table = describedTable('APIC', 5, HEADER_BYTES + 8 + processors * LOCAL_APIC_BYTES + IO_APIC_BYTES);
  table.word(HEADER_BYTES, localApic);
  let at = HEADER_BYTES + 8;
  for (let index = 0; index < processors; index++) {
    table.bytes.set([0, LOCAL_APIC_BYTES, index, index], at);
    table.word(at + 4, ENABLED);
    at += LOCAL_APIC_BYTES;
  }
  table.bytes.set([1, IO_APIC_BYTES, ioApic.identifier], at);
  table.word(at + 4, ioApic.address);
  return finished(table);
}

function createDsdt({ sleepTypeOff, devices, generation }: AcpiOptions): Uint8Array {
  const off = aml.number(sleepTypeOff);
  const body = [
    ...aml.name('\\_S5', aml.packageOf(off, off, aml.number(0), aml.number(0))),
    ...aml.scope('\\_SB', ...devices.map(describeDevice), ...describeGeneration(generation)),
  ];
  const table = describedTable('DSDT', 2, HEADER_BYTES + body.length);
  table.bytes.set(body, HEADER_BYTES);
  return finished(table);
}

/** The device that has the identifier, and a generic event device (ACPI 6.4, 5.6.9) that notifies it. */
function describeGeneration({ address, line }: AcpiOptions['generation']): aml.Aml[] {
  const STATUS_CHANGED = 0x80;
  const EDGE_TRIGGERED = true;
  return [
    aml.device(
      'VGEN',
      aml.name('_HID', aml.text(GENERATION_IDENTIFIER)),
      aml.name('_CID', aml.text('VM_Gen_Counter')),
      aml.name('_DDN', aml.text('VM_Gen_Counter')),
      aml.name('ADDR', aml.packageOf(aml.number(address), aml.number(0))),
    ),
    aml.device(
      'GED',
      aml.name('_HID', aml.text('ACPI0013')),
      aml.name('_UID', aml.number(0)),
      aml.name('_CRS', aml.resources(aml.interrupt(line, EDGE_TRIGGERED))),
      aml.method('_EVT', 1, aml.notify('VGEN', STATUS_CHANGED)),
    ),
  ];
}

function describeDevice({ name, identifier, unique, ports, memory, interrupt }: AcpiDevice): aml.Aml {
  const isCompressed = identifier.length === 7;
  return aml.device(
    name,
    aml.name('_HID', isCompressed ? aml.identifier(identifier) : aml.text(identifier)),
    aml.name('_UID', aml.number(unique)),
    // Devices see memory as the processor does.
    ...(memory ? [aml.name('_CCA', aml.number(1))] : []),
    aml.name(
      '_CRS',
      aml.resources(
        ...(ports ? [aml.ports(ports.first, ports.count)] : []),
        ...(memory ? [aml.memory(memory.first, memory.bytes)] : []),
        ...(interrupt ? [aml.interrupt(interrupt.line, interrupt.edgeTriggered)] : []),
      ),
    ),
  );
}
