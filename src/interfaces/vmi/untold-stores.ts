import { afterStore } from '../../inspect/store-text.ts';
import { hexadecimal } from '../../inspect/text.ts';
import type { UntoldEntry } from '../../paging/shadow/shadow-tables.ts';

/**
 * The reason of a crash, with what may have led to it: a store to an announced table is seen by nobody, but the entry that
 * it leaves behind is not what processors walk.
 */
export function explainUntold(reason: string, entry: UntoldEntry | undefined): string {
  if (!entry) return reason;
  const where = `, page ${hexadecimal(entry.page)}, as memory, so that it is walked as it was`;
  return afterStore(reason, entry.level, entry.index, where);
}
