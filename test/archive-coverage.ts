import { expect, it } from 'vitest';
import type { Archive, Archived, SharedPieces, WordArray } from '../src/archive/archive.ts';
import { decodeCbor, encodeCbor } from '../src/archive/cbor.ts';
import type { Plain, PlainRecord } from '../src/archive/plain.ts';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { type Field, fieldsOf } from './private-fields.ts';

export interface Coverage {
  /** Makes a component with all that it consists of; each is like the others. */
  readonly create: () => Archived | Promise<Archived>;
  /** Saved fields that are compared when they are read back, not taken over. */
  readonly kept?: ReadonlySet<string>;
  /** Fields with data that is no state of the guest, as `withoutPlace` names them. */
  readonly noState: ReadonlySet<string>;
  /** Paths of fields that are the same in each such component. */
  readonly fixed?: ReadonlySet<string>;
}

/** Tests that an archived component gives back all that it has, and forgets no field that it ought to save. */
export function itIsSavedWhole({ create, kept = new Set(), noState, fixed = new Set() }: Coverage): void {
  it('is given back as it was saved, changed in every part', async () => {
    const target = await create();
    const wanted = changed(save(await create()), kept);
    restore(target, decodeCbor(encodeCbor(wanted)) as PlainRecord);
    expect(save(target)).toEqual(wanted);
  });

  it('has every field that holds data', async () => {
    const before = dataOf(await create());
    const target = await create();
    restore(target, changed(save(target), kept));
    const after = dataOf(target);
    expect([...after.keys()]).toEqual([...before.keys()]);
    const forgotten = [...before]
      .filter(([path, data]) => after.get(path) === data && !fixed.has(path))
      .map(([path]) => withoutPlace(path));
    const unnamed = new Set(forgotten.filter((name) => !noState.has(name)));
    expect(unnamed, 'fields that `archive` forgets; those that are no state belong into noState').toEqual(new Set());
  });

  it('names no field in vain', async () => {
    const names = new Set([...dataOf(await create()).keys()].map(withoutPlace));
    expect([...noState].filter((name) => !names.has(name))).toEqual([]);
  });
}

/** Another value of the same kind as each one in saved fields. */
function changed(saved: PlainRecord, keep: ReadonlySet<string>): PlainRecord {
  return changeRecord(saved, keep);
}

function changeRecord(record: PlainRecord, keep: ReadonlySet<string>): PlainRecord {
  return Object.fromEntries(
    Object.entries(record).map(([name, value]) => [name, keep.has(name) ? value : change(value, keep)]),
  );
}

function change(value: Plain, keep: ReadonlySet<string>): Plain {
  if (typeof value === 'boolean') return !value;
  if (typeof value === 'number') return Number.isFinite(value) ? value + 1 : 12_345;
  if (typeof value === 'string') return `${value}?`;
  if (value instanceof Uint8Array) return value.map((byte) => byte ^ 1);
  if (Array.isArray(value)) return value.length === 0 ? [[1, 2]] : value.map((item) => change(item, keep));
  if (value === undefined || value === null) return { anything: 1 };
  return changeRecord(value as PlainRecord, keep);
}

/** The components that an archived one consists of, by their paths, itself included. */
export function componentsOf(root: Archived): Map<string, Archived> {
  const found = new Map<string, Archived>();
  const visit = (path: string, component: Archived): void => {
    found.set(path, component);
    component.archive(new Walker((name, part) => visit(`${path}.${name}`, part)));
  };
  visit('guest', root);
  return found;
}

/** Changes nothing, and meets each part. */
class Walker implements Archive {
  readonly #meet: (name: string, part: Archived) => void;

  constructor(meet: (name: string, part: Archived) => void) {
    this.#meet = meet;
  }

  value<Value>(_name: string, value: Value): Value {
    return value;
  }

  map<Key extends string | number, Value>(_name: string, _map: Map<Key, Value>): void {}

  words(_name: string, _words: WordArray): void {}

  shared(_name: string, _pieces: SharedPieces): void {}

  record(_name: string, _record: object): void {}

  part(name: string, part: Archived): void {
    this.#meet(name, part);
  }

  parts(name: string, parts: readonly Archived[]): void {
    for (const [index, part] of parts.entries()) this.#meet(`${name}[${index}]`, part);
  }
}

/** Fields with data of every component, by path and name; a component stands for its own. */
function dataOf(root: Archived): Map<string, string> {
  const data = new Map<string, string>();
  for (const [path, component] of componentsOf(root)) {
    for (const field of fieldsOf(component)) {
      if (field.data !== undefined) data.set(`${path}.${field.name}`, (field as Required<Field>).data as string);
    }
  }
  return data;
}

/** `guest.vcpus[1].apic.#errors` → `apic.#errors`: the same for all components of a kind. */
function withoutPlace(path: string): string {
  const [field = '', owner = ''] = path.split('.').reverse();
  return `${owner.replace(/\[\d+\]$/, '')}.${field}`;
}
