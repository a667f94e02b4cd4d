import type { Archive } from '../../archive/archive.ts';
import { InputError } from '../../boot/input-error.ts';

/** Bytes of a sector, whatever a disk's own blocks are: the unit of all addresses. */
export const SECTOR = 512;

/** What came of an operation on a disk. Why one failed is the host's affair; its user was told by the store. */
export type BlockResult = 'done' | 'failed';

/**
 * The contents of a disk: the back end of every kind of block device. Operations may be under way at the same time; two
 * of them have no order, unless one was begun after the other had ended.
 */
export interface BlockStore {
  /** Size in sectors. */
  readonly sectors: number;
  readonly isReadOnly: boolean;
  /** Shown to the guest as the disk's serial number; printable ASCII. */
  readonly identifier: string;
  /** Fills `target`, whole sectors that lie within the disk. */
  read(sector: number, target: Uint8Array): Promise<BlockResult>;
  /** Takes `source`, whole sectors that lie within a disk that is not read-only. The caller leaves it alone meanwhile. */
  write(sector: number, source: Uint8Array): Promise<BlockResult>;
  /** Makes all that was written safe from a loss of power. */
  flush(): Promise<BlockResult>;
  close(): Promise<void>;
}

/** Whether sectors lie within a disk; for any numbers. */
export function liesWithin(store: BlockStore, sector: number, sectors: number): boolean {
  return sector + sectors <= store.sectors;
}

/**
 * What a guest's archive says of a disk, whose contents are not in it.
 * @throws InputError when the guest goes on with a disk of another size than it had
 */
export function archiveSize(archive: Archive, { sectors }: BlockStore): void {
  const saved = archive.value('sectors', sectors);
  if (saved !== sectors) throw new InputError(`a disk has ${sectors} sectors, and ${saved} when the guest was saved`);
}
