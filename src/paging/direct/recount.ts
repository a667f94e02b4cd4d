import { Pte } from '../../x86/registers.ts';
import type { TableEntries } from './entries.ts';
import { FRAME_TYPE_NAMES, FrameFlag, FrameOwner, FrameType, type FrameTypes } from './frame-types.ts';
import { isHostSlot } from './table-rules.ts';
import type { TableValidator } from './validate.ts';

/** A count that is not what the tables and holds add up to. */
export interface Discrepancy {
  readonly mfn: number;
  readonly what: 'type' | 'typeCount' | 'references' | 'linear' | 'held' | 'framesByType';
  readonly stored: number;
  readonly expected: number;
}

/** What holds frames beside table entries, flags and the host's own holds. */
export interface Holds {
  /** Processors' roots, −1 for none. */
  readonly roots: Int32Array;
  /** Frames of each processor's GDT. */
  readonly gdtFrames: readonly (readonly number[])[];
}

/** Adds up every type and reference from the tables' contents and the holds, and compares. Costs a look at every entry of every table. */
export function recountFrames(
  types: FrameTypes,
  validator: Pick<TableValidator, 'rules' | 'topLevel' | 'pending' | 'entriesOf'>,
  entries: TableEntries,
  holds: Holds,
): Discrepancy[] {
  const found: Discrepancy[] = [];
  const { words } = entries;
  const typeCount = new Uint32Array(types.limit);
  const references = new Uint32Array(types.limit);
  const linear = new Int32Array(types.limit);
  const framesByType = new Uint32Array(FRAME_TYPE_NAMES.length);

  function compare(mfn: number, what: Discrepancy['what'], stored: number, expected: number): void {
    if (stored !== expected) found.push({ mfn, what, stored, expected });
  }
  function use(mfn: number, type: FrameType): void {
    compare(mfn, 'type', types.type.get(mfn), type);
    typeCount[mfn]!++; // a number beyond the limit was reported above, and the store is ignored
    references[mfn]!++;
  }
  function useEntry(table: number, level: number, low: number, high: number): void {
    const mfn = types.namedBy(low, high);
    if (level === 1) {
      // A device's.
      if (mfn >= types.limit) return;
      if ((low & Pte.writable) !== 0) use(mfn, FrameType.writable);
      else references[mfn]!++;
    } else if (types.type.get(mfn) !== level) {
      use(mfn, (level - 1) as FrameType);
    } else if (mfn !== table) {
      use(mfn, level as FrameType);
      linear[table]!++;
      linear[mfn]!--;
    }
  }

  for (let mfn = 0; mfn < types.limit; mfn++) {
    if (types.owner.get(mfn) === FrameOwner.none) continue;
    const type = types.type.get(mfn);
    framesByType[type]!++; // every stored type is an index
    if (types.hasFlag(mfn, FrameFlag.localDescriptors)) use(mfn, FrameType.segmentDescriptors);
    for (let hold = 0; hold < types.hostHolds.get(mfn); hold++) use(mfn, FrameType.writable);
    if (type < FrameType.level1 || type > FrameType.level4) {
      compare(mfn, 'held', types.held.get(mfn), 0);
      continue;
    }
    if (types.hasFlag(mfn, FrameFlag.pinned)) use(mfn, type);
    if (types.hasFlag(mfn, FrameFlag.claimed)) use(mfn, type);
    if (!validator.pending) compare(mfn, 'held', types.held.get(mfn), validator.entriesOf(type));
    const base = entries.wordOf(mfn);
    for (let index = 0; index < types.held.get(mfn); index++) {
      const low = words[base + index * 2]!;
      if ((low & Pte.present) === 0 || isHostSlot(validator.rules, type, index)) continue;
      useEntry(mfn, type, low, words[base + index * 2 + 1]!);
    }
  }
  for (const root of holds.roots) if (root >= 0) use(root, validator.topLevel as FrameType);
  for (const frames of holds.gdtFrames) for (const mfn of frames) use(mfn, FrameType.segmentDescriptors);

  for (let mfn = 0; mfn < types.limit; mfn++) {
    compare(mfn, 'typeCount', types.typeCount.get(mfn), typeCount[mfn]!);
    compare(mfn, 'references', types.references.get(mfn), references[mfn]!);
    compare(mfn, 'linear', types.linear.get(mfn), linear[mfn]!);
    // A table keeps its type without a count only while its demotion is under way.
    if (typeCount[mfn] === 0 && !validator.pending) compare(mfn, 'type', types.type.get(mfn), FrameType.none);
  }
  for (let type = 0; type < framesByType.length; type++) {
    compare(-1, 'framesByType', types.framesByType[type]!, framesByType[type]!);
  }
  return found;
}
