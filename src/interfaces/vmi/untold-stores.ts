import { hexadecimal } from '../../inspect/text.ts';
import { TABLE_SETTERS } from '../../ops/table-setters.ts';
import type { UntoldEntry } from '../../paging/shadow/shadow-tables.ts';

/**
 * The reason of a crash, with what may have led to it: a store to an announced table is seen by nobody, but the entry that
 * it leaves behind is not what processors walk.
 */
export function explainUntold(reason: string, entry: UntoldEntry | undefined): string {
  if (!entry) return reason;
  const { index, level, page } = entry;
  return (
    `${reason}; before that it stored into entry ${hexadecimal(index)} of a live level-${level} page table, page ` +
    `${hexadecimal(page)}, as memory, so that it is walked as it was: that takes ${TABLE_SETTERS[level] ?? 'an operation'}, ` +
    'see docs/operations.md'
  );
}
