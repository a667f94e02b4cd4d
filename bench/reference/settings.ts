import type { Image } from '../../guests/reference/build.ts';
import type { InterfaceName, PagingName } from '../../src/api.ts';
import { CELLS, type Cell } from '../../src/domain/cells.ts';

/** A cell of interfaces and ways of paging, with lazy mode or without. */
export interface Setting extends Cell {
  readonly lazy: boolean;
}

/** Cells that an image cannot serve: VMI and lguest are for 32 bits, Xen and VMI's direct paging need three levels there. */
const UNSERVED: Readonly<Record<Image, RegExp>> = {
  'x86-64': /^(?:vmi|lguest)\//,
  'i386-pae': /^$/,
  i386: /^(?:xen\/|vmi\/direct)/,
};

const cellName = ({ interface: way, paging }: Cell): string => `${way}/${paging}`;

/** As tables name it: `xen/direct nolazy`. */
export const settingName = (setting: Setting): string => `${cellName(setting)}${setting.lazy ? '' : ' nolazy'}`;

/** Every cell that an image serves. */
export function cellsOf(image: Image): Cell[] {
  return (Object.entries(CELLS) as [InterfaceName, readonly PagingName[]][])
    .flatMap(([way, pagings]) => pagings.map((paging) => ({ interface: way, paging })))
    .filter((cell) => !UNSERVED[image].test(cellName(cell)));
}

/** Every cell that an image serves, with lazy mode and without. */
export function settingsOf(image: Image): Setting[] {
  return cellsOf(image).flatMap((cell) => [true, false].map((lazy) => ({ ...cell, lazy })));
}
