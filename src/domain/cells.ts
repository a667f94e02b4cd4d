import type { InterfaceName, PagingName } from '../api.ts';
import { InputError } from '../boot/input-error.ts';

/** Which ways of paging exist for each interface; the first is what is taken when none is named. */
export const CELLS: Readonly<Record<InterfaceName, readonly [PagingName, ...PagingName[]]>> = {
  xen: ['direct', 'shadow', 'translated'],
  kvm: ['nested', 'shadow'],
  native: ['native', 'nested', 'shadow'],
  vmi: ['shadow', 'direct', 'native'],
  lguest: ['shadow'],
};

export interface Cell {
  readonly interface: InterfaceName;
  readonly paging: PagingName;
}

/** @throws InputError when the two do not go together */
export function chooseCell(name: InterfaceName = 'xen', paging?: PagingName): Cell {
  const pagings = CELLS[name];
  const [preferred] = pagings;
  if (paging !== undefined && !pagings.includes(paging)) {
    throw new InputError(`the interface ${name} does not go with ${paging} paging; give ${pagings.join(' or ')}`);
  }
  return { interface: name, paging: paging ?? preferred };
}
