/**
 * How the state of a guest is written down and read back. A component that has state implements `Archived`: one method
 * that names each of its fields once and serves both directions, so that what is saved and what is restored cannot
 * differ:
 *
 *     archive(archive: Archive): void {
 *       this.#select = archive.value('select', this.#select);
 *       archive.words('levels', this.#levels);
 *       archive.part('timer', this.timer);
 *     }
 *
 * `ArchiveWriter` takes what it is given and gives it back; `ArchiveReader` gives what was saved under that name. What a
 * component can work out from the rest (caches, what is wired to what) is no state. In between stands plain data
 * (`plain.ts`), which `cbor.ts` turns into bytes.
 */
export interface Archived {
  archive(archive: Archive): void;
  /** All fields of the component have been read back: what follows from them is worked out again. */
  restored?(): void;
}

export interface Archive {
  /**
   * One field: a number, a text, or a record of such things, taken as it is and given back whole.
   * @returns what the field shall hold from here on
   */
  value<Value>(name: string, value: Value): Value;
  /** Entries of a map, which are replaced; keys and values are taken as they are. */
  map<Key extends string | number, Value>(name: string, map: Map<Key, Value>): void;
  /** An array of a fixed length, whose elements are replaced. */
  words(name: string, words: WordArray): void;
  /** Bytes in pieces that copies of the component share. */
  shared(name: string, pieces: SharedPieces): void;
  /** A record that others refer to: its fields are replaced, and it stays the same object. */
  record(name: string, record: object): void;
  /** A component that belongs to this one. */
  part(name: string, part: Archived): void;
  /** Components of the same kind; as many as were saved. */
  parts(name: string, parts: readonly Archived[]): void;
}

export interface SharedPieces {
  /** All bytes, in pieces that do not change from here on. */
  share(): Uint8Array[];
  /** Takes over such pieces, without a copy where that can be. False when they are not as many or not as long. */
  adopt(pieces: readonly unknown[]): boolean;
}

export type WordArray = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array;
