import type { Archive, Archived, SharedPieces, WordArray } from './archive.ts';
import { type Plain, type PlainRecord, plainCopy } from './plain.ts';

/** What a component has at present, as plain data. */
export function save(component: Archived): PlainRecord {
  const writer = new ArchiveWriter();
  component.archive(writer);
  return writer.fields;
}

class ArchiveWriter implements Archive {
  readonly fields: Record<string, Plain> = {};

  value<Value>(name: string, value: Value): Value {
    this.#set(name, plainCopy(value, name));
    return value;
  }

  map<Key extends string | number, Value>(name: string, map: Map<Key, Value>): void {
    this.#set(name, plainCopy([...map], name));
  }

  words(name: string, words: WordArray): void {
    this.#set(name, new Uint8Array(words.buffer, words.byteOffset, words.byteLength).slice());
  }

  shared(name: string, pieces: SharedPieces): void {
    this.#set(name, pieces.share());
  }

  record(name: string, record: object): void {
    this.#set(name, plainCopy(record, name));
  }

  part(name: string, part: Archived): void {
    this.#set(name, save(part));
  }

  parts(name: string, parts: readonly Archived[]): void {
    this.#set(name, parts.map(save));
  }

  #set(name: string, value: Plain): void {
    if (Object.hasOwn(this.fields, name)) throw new Error(`two fields of one component have the name ${name}`);
    this.fields[name] = value;
  }
}
