import { hexadecimal } from './text.ts';

/** What a kernel asks for instead of a store into a live page table, by the table's level; level 1 has several. */
const TABLE_SETTERS: Readonly<Partial<Record<number, string>>> = {
  2: 'mmu.setPmd',
  3: 'mmu.setPud',
  4: 'mmu.setPgd',
};

/**
 * The reason of a crash that a store into a live page table may have led to.
 * @param where what else is known of the store, as the end of the clause that names the table
 */
export function afterStore(reason: string, level: number, index: number, where: string): string {
  const operation = TABLE_SETTERS[level] ?? 'an operation';
  return (
    `${reason}; before that it stored into entry ${hexadecimal(index)} of a live level-${level} page table${where}: ` +
    `that takes ${operation}, see docs/operations.md`
  );
}
