/** What a kernel asks for instead of a store into a live page table, by the table's level; level 1 has several. */
export const TABLE_SETTERS: Readonly<Partial<Record<number, string>>> = {
  2: 'mmu.setPmd',
  3: 'mmu.setPud',
  4: 'mmu.setPgd',
};
