import { SnapshotFile } from '../node/snapshot-file.ts';
import type { Snapshot } from '../snapshot/snapshot.ts';
import { openSnapshot } from './core.ts';

/** A snapshot, and its file, which is to be closed when no guest needs it any more. */
export interface SavedGuest {
  readonly file: SnapshotFile;
  readonly snapshot: Snapshot;
}

/** @throws InputError when there is no such file, or it is no whole snapshot */
export async function openSavedGuest(path: string): Promise<SavedGuest> {
  const file = await SnapshotFile.open(path);
  try {
    return { file, snapshot: await openSnapshot(file) };
  } catch (error) {
    await file.close();
    throw error;
  }
}
