import type { Audit, AuditedPlace } from '../inspect/audit.ts';

/**
 * An audit as lines for a reader: the sums, then each place with how often it read an entry of a live page table, asked
 * for a change, stored to one with the host's help or without, or was refused.
 * @param top lines of the list
 */
export function auditText({ places, violations, tablesMissed, touchesMissed }: Audit, top: number): string {
  const sum = (of: (place: AuditedPlace) => number): number => places.reduce((total, place) => total + of(place), 0);
  const recorded = places.some(({ accessor }) => accessor !== undefined);
  const outside = sum(({ accessor, reads }) => (accessor ? 0 : reads));
  return [
    `${places.length} places: ${sum(({ reads }) => reads)} reads${recorded ? `, ${outside} of them outside recorded accessors` : ''}; ` +
      `writes: ${sum(({ operations }) => operations)} by operations, ${sum(({ emulated }) => emulated)} by stores carried out, ` +
      `${sum(({ plain }) => plain)} by plain stores, ${sum(({ refused }) => refused)} by stores refused`,
    '',
    '    reads  operation   emulated      plain    refused  where',
    ...places.slice(0, top).map(line),
    ...(places.length > top ? [`and ${places.length - top} places more`] : []),
    ...(violations.length > 0 ? ['', 'contracts that were broken:'] : []),
    ...violations.map(({ times, text }) => `${column(times, 9)}  ${text}`),
    ...(tablesMissed > 0 ? [`there were too many tables: ${tablesMissed} times one was not looked at`] : []),
    ...(touchesMissed > 0 ? [`there were too many places: ${touchesMissed} accesses are of others`] : []),
    '',
  ].join('\n');
}

function line({ reads, operations, emulated, plain, refused, accessor, name }: AuditedPlace): string {
  const mark = reads === 0 || accessor === undefined ? '' : accessor ? ', an accessor' : ', no accessor';
  const counts = [operations, emulated, plain, refused].map((count) => column(count)).join('');
  return `${column(reads, 9)}${counts}  ${name}${mark}`;
}

function column(value: number, width = 11): string {
  return String(value).padStart(width);
}
