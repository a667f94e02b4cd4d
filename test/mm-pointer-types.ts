import type { PageTables, PgdPointer, PmdPointer, PtePointer } from '../src/mm/page-tables.ts';
import type { GuestVirtual, HostVirtual } from '../src/x86/brand.ts';

/**
 * The compiler is the test: where a directive below expects an error and there is none, `npm run types` fails.
 * The function is never called.
 */
export function handMadeDereferencesDoNotCompile(
  words: Uint32Array,
  tables: PageTables,
  pgd: PgdPointer,
  pmd: PmdPointer,
  pte: PtePointer,
  address: HostVirtual,
): void {
  // @ts-expect-error an entry is not an index of the host's memory
  words[pte];
  // @ts-expect-error nor a number to calculate the next entry with
  pte + 8;
  // @ts-expect-error nor an object with the entry's value
  pte.value;
  // @ts-expect-error a number is no pointer
  tables.readPte(0x1000);
  // @ts-expect-error entries of upper levels are not read as if they mapped pages
  tables.readPte(pmd);
  // @ts-expect-error levels are not skipped
  tables.getPte(pgd, address);
  // @ts-expect-error a value is made by presentPte and swapPte
  tables.setPteAt(pte, 0x1003);
  // @ts-expect-error an address of a guest is none of the host's address space
  tables.getPgd(-1 as GuestVirtual);
}
