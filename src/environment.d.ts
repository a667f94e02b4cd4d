/**
 * What the core expects of its surroundings besides the language itself: the few globals that Node and every browser
 * share. Only tsconfig.core.json includes this file; elsewhere Node's or the DOM's own types declare them. Keep it
 * short: each line here is something that a new host has to provide.
 */

declare class TextEncoder {
  encode(text?: string): Uint8Array<ArrayBuffer>;
}

declare class TextDecoder {
  constructor(label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean });
  decode(bytes?: ArrayBufferView | ArrayBuffer, options?: { stream?: boolean }): string;
}

declare const performance: { now(): number };

declare const crypto: {
  getRandomValues<View extends ArrayBufferView>(view: View): View;
  readonly subtle: { digest(algorithm: 'SHA-256', data: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer> };
};

declare function queueMicrotask(callback: () => void): void;
/** The handle is a number in browsers and an object in Node. */
type TimerHandle = { readonly __timer: unique symbol };
declare function setTimeout(callback: () => void, milliseconds?: number): TimerHandle;
declare function clearTimeout(handle: TimerHandle | undefined): void;

interface MessagePort {
  onmessage: ((event: { readonly data: unknown }) => void) | null;
  postMessage(message: unknown): void;
  close(): void;
}

declare class MessageChannel {
  readonly port1: MessagePort;
  readonly port2: MessagePort;
}

interface ReadableStreamDefaultController<Chunk> {
  readonly desiredSize: number | null;
  enqueue(chunk: Chunk): void;
  close(): void;
  error(reason?: unknown): void;
}

interface ReadableStreamDefaultReader<Chunk> {
  read(): Promise<{ done: false; value: Chunk } | { done: true; value?: undefined }>;
  cancel(reason?: unknown): Promise<void>;
  releaseLock(): void;
}

declare class ReadableStream<Chunk = unknown> {
  constructor(
    source?: {
      start?(controller: ReadableStreamDefaultController<Chunk>): void;
      pull?(controller: ReadableStreamDefaultController<Chunk>): void | Promise<void>;
      cancel?(reason?: unknown): void | Promise<void>;
    },
    strategy?: { readonly highWaterMark?: number; readonly size?: (chunk: Chunk) => number },
  );
  getReader(): ReadableStreamDefaultReader<Chunk>;
}
