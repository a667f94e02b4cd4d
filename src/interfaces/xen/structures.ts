/**
 * The structures of Xen's public interface whose layout depends on the guest's `long` (public/xen.h, public/memory.h and
 * others, compiled for both widths): sizes, and offsets of the fields that the host uses. Each line has the figure for
 * 64-bit guests and the one for 32-bit guests.
 */

/** A field that one of the two does not have. */
export const ABSENT = -1;

const COLUMNS = {
  multicall: { size: [64, 32], result: [8, 4], arguments: [16, 8] },
  trapInfo: { size: [16, 8], address: [8, 4] },
  callback: { size: [16, 12], selector: [ABSENT, 4], address: [8, 8] },
  mmuExtended: { size: [24, 12], first: [8, 4], second: [16, 8] },
  reservation: { size: [32, 20], count: [8, 4], order: [16, 8], domain: [24, 16] },
  addToPhysmap: { size: [24, 16], space: [4, 4], index: [8, 8], gpfn: [16, 12] },
  memoryMap: { size: [16, 8], buffer: [8, 4] },
  machineToPhysical: { size: [24, 12], end: [8, 4], maximum: [16, 8] },
  poll: { size: [24, 16], count: [8, 4], timeout: [16, 8] },
  singleShot: { size: [16, 12], flags: [8, 8] },
  portBitmap: { size: [16, 8], ports: [8, 4] },
  grantSetup: { size: [24, 16], list: [16, 12] },
  grantCopy: {
    size: [40, 24],
    target: [16, 8],
    domain: [8, 4],
    offset: [10, 6],
    length: [32, 16],
    flags: [34, 18],
    status: [36, 20],
  },
  /** start_info. */
  startInfo: {
    pages: [0x20, 0x20],
    sharedInfo: [0x28, 0x24],
    flags: [0x30, 0x28],
    storeMfn: [0x38, 0x2c],
    storePort: [0x40, 0x30],
    consoleMfn: [0x48, 0x34],
    consolePort: [0x50, 0x38],
    tableBase: [0x58, 0x3c],
    tableFrames: [0x60, 0x40],
    frameList: [0x68, 0x44],
    moduleStart: [0x70, 0x48],
    moduleLength: [0x78, 0x4c],
    commandLine: [0x80, 0x50],
    firstP2mPfn: [0x480, 0x450],
    p2mFrames: [0x488, 0x454],
  },
  /** vcpu_guest_context. */
  context: {
    size: [0x1430, 0xaf0],
    flags: [0x200, 0x200],
    registers: [0x208, 0x204],
    traps: [0x2d0, 0x248],
    ldtBase: [0x12d0, 0xa48],
    ldtEntries: [0x12d8, 0xa4c],
    gdtFrames: [0x12e0, 0xa50],
    gdtEntries: [0x1360, 0xa90],
    kernelSs: [0x1368, 0xa94],
    kernelSp: [0x1370, 0xa98],
    controlRegisters: [0x1378, 0xa9c],
    eventSelector: [ABSENT, 0xadc],
    eventAddress: [0x13f8, 0xae0],
    failsafeSelector: [ABSENT, 0xae4],
    failsafeAddress: [0x1400, 0xae8],
    syscallAddress: [0x1408, ABSENT],
    fsBase: [0x1418, ABSENT],
    gsBaseKernel: [0x1420, ABSENT],
    gsBaseUser: [0x1428, ABSENT],
  },
  /** cpu_user_regs, behind the general registers. */
  userRegisters: {
    rip: [0x80, 0x20],
    cs: [0x88, 0x24],
    flags: [0x90, 0x28],
    rsp: [0x98, 0x2c],
    ss: [0xa0, 0x30],
    es: [0xa8, 0x34],
    ds: [0xb0, 0x38],
    fs: [0xb8, 0x3c],
    gs: [0xc0, 0x40],
  },
} as const satisfies Record<string, Record<string, readonly [wide: number, narrow: number]>>;

export type Structures = {
  readonly [Name in keyof typeof COLUMNS]: { readonly [Field in keyof (typeof COLUMNS)[Name]]: number };
};

function column(position: 0 | 1): Structures {
  const structures = Object.entries(COLUMNS).map(([name, fields]) => {
    const offsets = Object.entries(fields).map(([field, columns]) => [field, columns[position]]);
    return [name, Object.fromEntries(offsets)];
  });
  return Object.fromEntries(structures) as Structures;
}

export const STRUCTURES_64 = column(0);
export const STRUCTURES_32 = column(1);
