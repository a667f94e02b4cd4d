import { Session } from 'node:inspector';

/** What a field of an object holds: plain data as text, or that it is something else (another component, a function). */
export interface Field {
  readonly name: string;
  /** JSON of plain data; undefined for what is none. */
  readonly data: string | undefined;
}

interface RemoteObject {
  readonly type: string;
  readonly objectId?: string;
  readonly value?: unknown;
  readonly unserializableValue?: string;
}

interface RemoteProperty {
  readonly name: string;
  readonly value?: RemoteObject;
}

/** Turns plain data into text that is equal for equal data; undefined when something in it has behaviour. */
function describePlain(this: unknown): string | undefined {
  const isPlain = (value: unknown): boolean => {
    if (typeof value === 'function') return false;
    if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return true;
    if (value instanceof Map || value instanceof Set) return [...value].every(isPlain);
    if (Array.isArray(value)) return value.every(isPlain);
    return Object.getPrototypeOf(value) === Object.prototype && Object.values(value).every(isPlain);
  };
  if (!isPlain(this)) return undefined;
  return JSON.stringify(this, (_name, value) => {
    if (value instanceof Map || value instanceof Set) return [...value];
    if (ArrayBuffer.isView(value)) return [...(value as Uint8Array)];
    return typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;
  });
}

/** All fields that an object has of its own, private ones too, which only the inspector sees. */
export function fieldsOf(object: object): Field[] {
  const session = new Session();
  session.connect();
  const shared = globalThis as { inspected?: object };
  shared.inspected = object;
  const send = <Result>(method: string, parameters: object): Result => {
    let answer: Result | undefined;
    session.post(method, parameters, (error: Error | null, result?: object) => {
      if (error) throw error;
      answer = result as Result;
    });
    // A session in the thread that it looks at answers at once.
    return answer as Result;
  };
  try {
    const { result } = send<{ result: RemoteObject }>('Runtime.evaluate', { expression: 'globalThis.inspected' });
    const all = send<{ result: RemoteProperty[]; privateProperties?: RemoteProperty[] }>('Runtime.getProperties', {
      objectId: result.objectId,
      ownProperties: true,
    });
    const properties = [...all.result, ...(all.privateProperties ?? [])].filter(({ name }) => name !== '__proto__');
    return properties.flatMap(({ name, value }): Field[] => {
      if (value === undefined) return [];
      if (value.objectId === undefined) {
        return [{ name, data: value.unserializableValue ?? JSON.stringify(value.value) ?? 'undefined' }];
      }
      const described = send<{ result: RemoteObject }>('Runtime.callFunctionOn', {
        objectId: value.objectId,
        functionDeclaration: describePlain.toString(),
        returnByValue: true,
      });
      return [{ name, data: described.result.value as string | undefined }];
    });
  } finally {
    delete shared.inspected;
    session.disconnect();
  }
}
