import { highWord, lowWord } from '../../x86/brand.ts';
import type { SharedInfo } from './shared-info.ts';

/**
 * Writes the wall clock of the shared_info page: Unix time at system time 0, with the version protocol.
 * @param seconds since 1970, a whole number that may exceed 32 bits
 */
export function publishWallclock(shared: SharedInfo, seconds: number, nanoseconds: number): void {
  const page = shared.address();
  if (page < 0) return;
  const { view } = shared.memory;
  const { wallclock, wallclockSecondsHigh } = shared.layout;
  const odd = (view.getUint32(page + wallclock, true) | 1) >>> 0;
  view.setUint32(page + wallclock, odd, true);
  view.setUint32(page + wallclock + 4, lowWord(seconds), true);
  view.setUint32(page + wallclock + 8, nanoseconds, true);
  view.setUint32(page + wallclockSecondsHigh, highWord(seconds), true);
  view.setUint32(page + wallclock, (odd + 1) >>> 0, true);
  shared.pages.written(page + wallclock, wallclockSecondsHigh + 4 - wallclock);
}
