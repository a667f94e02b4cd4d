import { PAGE_SIZE } from '../x86/brand.ts';

/**
 * The microVM: what a guest of the interfaces kvm, vmi and native finds itself on. A small PC: RAM, APICs, one serial port, a
 * clock with the date, virtio devices, and for old kernels 8259A, 8254, ACPI's timer and an MP table; no BIOS, PCI or
 * VGA. This file is its map.
 *
 *     0000 0500  GDT for the entry
 *     0000 7000  boot parameters (the "zero page")
 *     0000 9000  page tables for the entry: the lowest 4 GiB, as they are
 *     0002 0000  command line
 *     0009 fc00  reserved, as on every PC
 *     000c 0000  an interface's option ROM, if it has one
 *     000e 0000  ACPI tables
 *     000f 0100  identifier of the guest's generation
 *     000f 0400  MP table
 *     000f fff0  what a BIOS begins with; here it resets the machine
 *     0010 0000  RAM; the kernel where its ELF segments want to be, the initrd at the end
 *     e000 0000  end of what can be RAM
 *     feb0 0000  virtio devices, a page each
 *     fec0 0000  I/O APIC
 *     fee0 0000  local APIC, each processor its own
 */
export const enum Physical {
  descriptorTable = 0x500,
  bootParameters = 0x7000,
  pageTables = 0x9000,
  commandLine = 0x2_0000,
  lowEnd = 0x9_fc00,
  optionRom = 0xc_0000,
  acpi = 0xe_0000,
  acpiEnd = 0xf_0000,
  generation = 0xf_0100,
  multiprocessor = 0xf_0400,
  resetVector = 0xf_fff0,
  highStart = 0x10_0000,
  virtio = 0xfeb0_0000,
  ioApic = 0xfec0_0000,
  localApic = 0xfee0_0000,
}

/** I/O ports. */
export const enum Port {
  timer = 0x40,
  system = 0x61,
  keyboardCommand = 0x64,
  realTimeClock = 0x70,
  delay = 0x80,
  serial = 0x3f8,
  power = 0x600,
  powerTimer = 0x608,
}

/** Pins of the I/O APIC. */
export const enum Pin {
  timer = 0,
  generation = 3,
  serial = 4,
  /** The first virtio device; the others follow. */
  virtio = 5,
}

/** Bytes of a device's registers. */
export const PORT_COUNT = { timer: 4, realTimeClock: 2, serial: 8, powerTimer: 4 } as const;
export const WINDOW_BYTES = 0x1000;

/** The first page of an initrd at the end of RAM. */
export function initrdPage(pages: number, bytes: number): number {
  return pages - Math.ceil(bytes / PAGE_SIZE);
}

/** Pages that the loader writes: all below 1 MiB. */
export const LOADED_PAGES: readonly number[] = Array.from(
  { length: Physical.highStart / PAGE_SIZE },
  (_, page) => page,
);
