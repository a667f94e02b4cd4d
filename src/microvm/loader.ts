import { type AcpiDevice, createAcpiTables } from '../boot/acpi.ts';
import { encodeBootParameters, type MemoryRegion, RegionType } from '../boot/boot-parameters.ts';
import { InputError } from '../boot/input-error.ts';
import type { KernelImage } from '../boot/kernel.ts';
import { createMultiprocessorTable } from '../boot/multiprocessor-table.ts';
import { IO_APIC_VERSION } from '../devices/pc/io-apic.ts';
import { PowerRegister, RESET_VALUE, SLEEP_TYPE_OFF } from '../devices/pc/power.ts';
import { KernelPages } from '../domain/kernel-pages.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import type { NestedPaging } from '../paging/nested/nested-paging.ts';
import { type GuestPhysical, type GuestVirtual, PAGE_SIZE } from '../x86/brand.ts';
import { Pte } from '../x86/registers.ts';
import { machineCpuid } from './cpuid.ts';
import { initrdPage, Physical, Pin, PORT_COUNT, Port } from './layout.ts';

/**
 * Puts kernel, initrd, tables and parameters into the memory of a guest that does not run yet, as a boot loader does that
 * uses the kernel's 64-bit or 32-bit entry (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol" and "32-bit Boot
 * Protocol").
 */
export interface LoadOptions {
  readonly kernel: KernelImage;
  readonly initrd: Uint8Array;
  readonly commandLine: string;
  readonly processors: number;
  readonly devices: readonly AcpiDevice[];
  /** Identifier of the guest's generation. */
  readonly generation: Uint8Array;
  /** What stands where a PC has the ROMs of its cards. */
  readonly rom?: Uint8Array;
}

/** What the first processor begins with. */
export interface Entry {
  readonly rip: GuestVirtual;
  /** For CR3; a 32-bit kernel is entered without paging. */
  readonly root: number | undefined;
  /** The GDT, low and high halves. */
  readonly descriptors: readonly number[];
}

/** Selectors of the entry's GDT, which the boot protocol fixes. */
export const enum EntrySelector {
  code = 0x10,
  data = 0x18,
}

/** Null, unused, flat code of the kernel's size, flat data. */
const DESCRIPTORS = {
  64: [0, 0, 0, 0, 0xffff, 0x00af_9b00, 0xffff, 0x00cf_9300],
  32: [0, 0, 0, 0, 0xffff, 0x00cf_9b00, 0xffff, 0x00cf_9300],
} as const;

const LONGEST_COMMAND_LINE = 2047;
const GIBIBYTES = 4;
const ENTRIES = 512;
const LARGE_PAGE = 2 << 20;
const TABLE = Pte.present | Pte.writable;

/** How a kernel is laid out in guest-physical memory. @throws InputError when it does not fit */
export function layOutKernel(kernel: KernelImage, initrdBytes: number, pages: number): KernelPages {
  const layout = new KernelPages(kernel, 0);
  if (layout.startPfn * PAGE_SIZE < Physical.highStart) {
    throw new InputError('the kernel wants to be below 1M, where the parameters of its start are');
  }
  if (layout.endPfn > initrdPage(pages, initrdBytes)) {
    throw new InputError('kernel and initrd do not fit into the memory of the guest; raise --memory');
  }
  return layout;
}

/** @throws InputError for a command line that is too long */
export function loadGuest(paging: NestedPaging, host: HostMemory, options: LoadOptions): Entry {
  const { kernel, initrd } = options;
  const image = new PhysicalImage(paging, host);
  const end = paging.pages * PAGE_SIZE;
  const initrdAddress = initrdPage(paging.pages, initrd.length) * PAGE_SIZE;
  // In memory that is paged, both are pages of their files.
  if (!paging.pager) {
    for (const segment of kernel.segments) image.write(segment.paddr, segment.data);
    image.write(initrdAddress, initrd);
  }

  const commandLine = new TextEncoder().encode(`${options.commandLine}\0`);
  if (commandLine.length > LONGEST_COMMAND_LINE + 1) {
    throw new InputError(
      `the command line has ${commandLine.length - 1} bytes, and a kernel takes at most ${LONGEST_COMMAND_LINE}`,
    );
  }
  image.write(Physical.commandLine, commandLine);
  image.write(
    Physical.acpi,
    createAcpiTables({
      address: Physical.acpi,
      processors: options.processors,
      localApic: Physical.localApic,
      ioApic: { identifier: options.processors, address: Physical.ioApic },
      power: {
        control: Port.power + PowerRegister.sleepControl,
        status: Port.power + PowerRegister.sleepStatus,
        reset: Port.power + PowerRegister.reset,
      },
      powerTimer: Port.powerTimer,
      resetValue: RESET_VALUE,
      sleepTypeOff: SLEEP_TYPE_OFF,
      devices: [...BUILT_IN, ...options.devices],
      generation: { address: Physical.generation, line: Pin.generation },
    }),
  );
  image.write(Physical.generation, options.generation);
  if (options.rom) image.write(Physical.optionRom, options.rom);
  const [signature, , , features] = machineCpuid(1, 0, 0, 1);
  image.write(
    Physical.multiprocessor,
    createMultiprocessorTable({
      address: Physical.multiprocessor,
      processors: options.processors,
      signature,
      features,
      localApic: Physical.localApic,
      ioApic: { identifier: options.processors, address: Physical.ioApic, version: IO_APIC_VERSION },
    }),
  );
  image.write(
    Physical.bootParameters,
    encodeBootParameters({
      header: kernel.setupHeader,
      commandLine: Physical.commandLine,
      initrd: { address: initrd.length === 0 ? 0 : initrdAddress, bytes: initrd.length },
      rsdp: Physical.acpi,
      regions: memoryMap(end),
    }),
  );
  const descriptors = DESCRIPTORS[kernel.bits];
  descriptors.forEach((half, index) => {
    image.word(Physical.descriptorTable + index * 4, half);
  });
  const isLong = kernel.bits === 64;
  if (isLong) writePageTables(image);
  image.write(Physical.resetVector, RESET_CODE);
  return {
    rip: Number(kernel.entry) as GuestVirtual,
    root: isLong ? Physical.pageTables : undefined,
    descriptors,
  };
}

const BUILT_IN: readonly AcpiDevice[] = [
  {
    name: 'COM1',
    identifier: 'PNP0501',
    unique: 1,
    ports: { first: Port.serial, count: PORT_COUNT.serial },
    interrupt: { line: Pin.serial, edgeTriggered: true },
  },
  {
    name: 'RTC',
    identifier: 'PNP0B00',
    unique: 1,
    ports: { first: Port.realTimeClock, count: PORT_COUNT.realTimeClock },
  },
];

/** Kernels without other means jump to the BIOS in real mode: mov dx, reset; mov al, value; out dx, al; hlt; jmp to hlt. */
const RESET_PORT = Port.power + PowerRegister.reset;
const RESET_CODE = Uint8Array.of(0xba, RESET_PORT & 0xff, RESET_PORT >> 8, 0xb0, RESET_VALUE, 0xee, 0xf4, 0xeb, 0xfd);

function memoryMap(end: number): MemoryRegion[] {
  const region = (start: number, to: number, type: RegionType): MemoryRegion => ({ start, bytes: to - start, type });
  return [
    region(0, Physical.lowEnd, RegionType.ram),
    region(Physical.lowEnd, 0xa_0000, RegionType.reserved),
    region(Physical.acpi, Physical.acpiEnd, RegionType.acpi),
    region(Physical.acpiEnd, Physical.highStart, RegionType.reserved),
    region(Physical.highStart, end, RegionType.ram),
  ];
}

/** Maps the lowest 4 GiB one to one, with pages of 2 MiB. */
function writePageTables(image: PhysicalImage): void {
  const level3 = Physical.pageTables + PAGE_SIZE;
  const level2 = level3 + PAGE_SIZE;
  image.word(Physical.pageTables, level3 | TABLE);
  for (let table = 0; table < GIBIBYTES; table++) {
    image.word(level3 + table * 8, (level2 + table * PAGE_SIZE) | TABLE);
    for (let entry = 0; entry < ENTRIES; entry++) {
      const page = (table * ENTRIES + entry) * LARGE_PAGE;
      image.word(level2 + table * PAGE_SIZE + entry * 8, (page | TABLE | Pte.large) >>> 0);
    }
  }
}

/** RAM of a guest that does not run yet. */
class PhysicalImage {
  readonly #paging: NestedPaging;
  readonly #host: HostMemory;

  constructor(paging: NestedPaging, host: HostMemory) {
    this.#paging = paging;
    this.#host = host;
  }

  #addressOf(physical: number): number {
    const address = this.#paging.addressOf(physical as GuestPhysical);
    if (address < 0) {
      throw new InputError(
        `the kernel asks for memory at ${physical >> 20}M, which the guest does not have; raise --memory`,
      );
    }
    return address;
  }

  write(physical: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const room = PAGE_SIZE - ((physical + done) % PAGE_SIZE);
      const piece = bytes.subarray(done, done + room);
      this.#host.u8.set(piece, this.#addressOf(physical + done));
      done += piece.length;
    }
  }

  word(physical: number, value: number): void {
    this.#host.view.setUint32(this.#addressOf(physical), value, true);
  }
}
