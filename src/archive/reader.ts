import { InputError } from '../boot/input-error.ts';
import type { Archive, Archived, SharedPieces, WordArray } from './archive.ts';
import { isRecord, kindOf, type Plain, type PlainRecord, plainCopy } from './plain.ts';

/** Gives a component, which is built as the saved one was, what that had. @throws InputError when it had other fields */
export function restore(component: Archived, fields: PlainRecord): void {
  restoreAt(component, fields, 'the guest');
}

function restoreAt(component: Archived, fields: Plain, path: string): void {
  if (!isRecord(fields)) throw mismatch(path, 'is no record');
  const reader = new ArchiveReader(fields, path);
  component.archive(reader);
  reader.finish();
  component.restored?.();
}

function mismatch(path: string, what: string): InputError {
  return new InputError(`the snapshot does not fit: ${path} ${what}`);
}

class ArchiveReader implements Archive {
  readonly #fields: PlainRecord;
  readonly #path: string;
  readonly #taken = new Set<string>();

  constructor(fields: PlainRecord, path: string) {
    this.#fields = fields;
    this.#path = path;
  }

  /** Each field that was saved has been asked for. */
  finish(): void {
    const left = Object.keys(this.#fields).find((name) => !this.#taken.has(name));
    if (left !== undefined) throw mismatch(`${this.#path}.${left}`, 'is unknown');
  }

  #take(name: string): Plain {
    if (!Object.hasOwn(this.#fields, name)) throw mismatch(`${this.#path}.${name}`, 'is missing');
    this.#taken.add(name);
    return this.#fields[name];
  }

  #takeOf(name: string, kind: string): Plain {
    const saved = this.#take(name);
    if (kindOf(saved) !== kind) throw mismatch(`${this.#path}.${name}`, `is ${kindOf(saved)} and not ${kind}`);
    return saved;
  }

  value<Value>(name: string, value: Value): Value {
    const saved = this.#take(name);
    const kind = kindOf(value as Plain);
    // What may be absent says nothing of its kind while it is.
    const fits = kind === 'nothing' || kindOf(saved) === 'nothing' || kindOf(saved) === kind;
    if (!fits) throw mismatch(`${this.#path}.${name}`, `is ${kindOf(saved)} and not ${kind}`);
    return plainCopy(saved, name) as Value;
  }

  map<Key extends string | number, Value>(name: string, map: Map<Key, Value>): void {
    const saved = plainCopy(this.#takeOf(name, 'list'), name) as [Key, Value][];
    map.clear();
    for (const [key, value] of saved) map.set(key, value);
  }

  words(name: string, words: WordArray): void {
    const saved = this.#takeOf(name, 'bytes') as Uint8Array;
    if (saved.length !== words.byteLength) {
      throw mismatch(`${this.#path}.${name}`, `has ${saved.length} bytes and not ${words.byteLength}`);
    }
    replace(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), saved);
  }

  shared(name: string, pieces: SharedPieces): void {
    const saved = this.#takeOf(name, 'list') as readonly Plain[];
    if (!pieces.adopt(saved)) throw mismatch(`${this.#path}.${name}`, 'has other pieces');
  }

  record(name: string, record: object): void {
    const saved = this.#takeOf(name, 'object') as PlainRecord;
    for (const field of Object.keys(record)) {
      if (!Object.hasOwn(saved, field)) throw mismatch(`${this.#path}.${name}.${field}`, 'is missing');
    }
    for (const field of Object.keys(saved)) {
      if (!Object.hasOwn(record, field)) throw mismatch(`${this.#path}.${name}.${field}`, 'is unknown');
    }
    Object.assign(record, plainCopy(saved, name));
  }

  part(name: string, part: Archived): void {
    restoreAt(part, this.#take(name), `${this.#path}.${name}`);
  }

  parts(name: string, parts: readonly Archived[]): void {
    const saved = this.#takeOf(name, 'list') as readonly Plain[];
    if (saved.length !== parts.length) {
      throw mismatch(`${this.#path}.${name}`, `are ${saved.length} and not ${parts.length}`);
    }
    for (const [index, part] of parts.entries()) restoreAt(part, saved[index], `${this.#path}.${name}[${index}]`);
  }
}

/** What an operating system commits at a time. */
const PIECE = 4096;

/** Writes only pieces that differ: a large array that is mostly zero takes memory only where it is not. */
function replace(target: Uint8Array, saved: Uint8Array): void {
  for (let start = 0; start < saved.length; start += PIECE) {
    const piece = saved.subarray(start, start + PIECE);
    const isEqual = piece.every((byte, index) => byte === target[start + index]);
    if (!isEqual) target.set(piece, start);
  }
}
