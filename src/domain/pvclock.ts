import type { HostMemory } from '../memory/host-memory.ts';
import { type HostAddress, highWord, lowWord } from '../x86/brand.ts';
import { type Clock, TSC_FREQUENCY } from './clock.ts';

/**
 * The clock page that Xen and KVM guests read gives system time as a linear function of the time-stamp counter:
 * `((ticks << shift) · multiplier) >> 32` nanoseconds, a negative shift to the right.
 */
export interface TimeScale {
  readonly multiplier: number;
  readonly shift: number;
}

/** Xen's choice of scale: the frequency is brought above 1 GHz and to at most 2 GHz by the shift. */
export function timeScale(frequency: number): TimeScale {
  let scaled = frequency;
  let shift = 0;
  for (; scaled > 2e9; shift--) scaled /= 2;
  for (; scaled <= 1e9; shift++) scaled *= 2;
  return { multiplier: Number((1_000_000_000n << 32n) / BigInt(Math.floor(scaled))), shift };
}

const TSC_SCALE = timeScale(TSC_FREQUENCY);

/** vcpu_time_info, 32 bytes. */
export const enum VcpuTime {
  version = 0,
  tscTimestamp = 8,
  systemTime = 0x10,
  multiplier = 0x18,
  shift = 0x1c,
  flags = 0x1d,
  size = 0x20,
}

export const enum VcpuTimeFlag {
  /** All virtual processors' clocks agree; a guest may then let user programs read the page (VCPUOP 13). */
  tscStable = 1,
  guestStopped = 2,
}

/** One time info as bytes, for a copy at a guest's own address. `version` is even. */
export function encodeVcpuTime(clock: Clock, version: number, flags: number): Uint8Array {
  const bytes = new Uint8Array(VcpuTime.size);
  const view = new DataView(bytes.buffer);
  // One reading gives both: a tick is a nanosecond.
  const now = clock.tsc();
  view.setUint32(VcpuTime.version, version, true);
  view.setUint32(VcpuTime.tscTimestamp, lowWord(now), true);
  view.setUint32(VcpuTime.tscTimestamp + 4, highWord(now), true);
  view.setUint32(VcpuTime.systemTime, lowWord(now), true);
  view.setUint32(VcpuTime.systemTime + 4, highWord(now), true);
  view.setUint32(VcpuTime.multiplier, TSC_SCALE.multiplier, true);
  view.setInt8(VcpuTime.shift, TSC_SCALE.shift);
  view.setUint8(VcpuTime.flags, flags);
  return bytes;
}

/**
 * Writes a time info at a host address of any alignment: version odd, fields, version even. A reader that saw an odd
 * or changed version reads again.
 */
export function publishVcpuTime(memory: HostMemory, address: HostAddress, clock: Clock, flags: number): void {
  const odd = (memory.view.getUint32(address, true) | 1) >>> 0;
  const even = (odd + 1) >>> 0;
  memory.view.setUint32(address, odd, true);
  memory.u8.set(encodeVcpuTime(clock, odd, flags), address);
  memory.view.setUint32(address, even, true);
}
