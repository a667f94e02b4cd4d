import type { MachineSpace } from '../../memory/machine-space.ts';
import { type Mfn, PAGE_SIZE } from '../../x86/brand.ts';

const STUB_BYTES = 32;
const IRET = 23;
const INT3 = 0xcc;

/** Code of a stub, and where in it the number of its hypercall stands. */
interface Stub {
  readonly bytes: readonly number[];
  readonly number: number;
}

export interface HypercallStubs {
  readonly call: Stub;
  /** The call that does not return. */
  readonly iret: Stub;
}

export const STUBS_64: HypercallStubs = {
  // push rcx; push r11; mov eax, number; syscall; pop r11; pop rcx; ret
  call: { bytes: [0x51, 0x41, 0x53, 0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3], number: 4 },
  // push rcx; push r11; push rax; mov eax, 23; syscall
  iret: { bytes: [0x51, 0x41, 0x53, 0x50, 0xb8, 0, 0, 0, 0, 0x0f, 0x05], number: 5 },
};

export const STUBS_32: HypercallStubs = {
  // mov eax, number; int 0x82; ret
  call: { bytes: [0xb8, 0, 0, 0, 0, 0xcd, 0x82, 0xc3], number: 1 },
  // push eax; mov eax, 23; int 0x82
  iret: { bytes: [0x50, 0xb8, 0, 0, 0, 0, 0xcd, 0x82], number: 2 },
};

/** Fills a frame with one stub for each hypercall number. The caller tells that it was written. */
export function fillHypercallPage(space: MachineSpace, mfn: Mfn, stubs: HypercallStubs): void {
  const page = space.writableAddressOf(mfn);
  const { u8, view } = space.pool.memory;
  u8.fill(INT3, page, page + PAGE_SIZE);
  for (let number = 0; number < PAGE_SIZE / STUB_BYTES; number++) {
    const stub = number === IRET ? stubs.iret : stubs.call;
    const at = page + number * STUB_BYTES;
    u8.set(stub.bytes, at);
    view.setUint32(at + stub.number, number, true);
  }
}
