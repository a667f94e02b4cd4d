import type { HostMemory } from '../memory/host-memory.ts';

/**
 * Rings of bytes with free-running 32-bit indexes, as guests share them with the host: the producer's index runs ahead
 * of the consumer's by what is in the ring, and a byte stands at `index & (size − 1)`. Indexes come from the guest and
 * may be anything; `fill` is the one place that judges them.
 */

/** Bytes in a ring of `size` bytes, or −1 when the indexes are nonsense. */
export function fill(producer: number, consumer: number, size: number): number {
  const bytes = (producer - consumer) >>> 0;
  return bytes > size ? -1 : bytes;
}

/** Copies `count` (at most `size`) bytes out of a ring. */
export function copyOut(memory: HostMemory, ring: number, size: number, consumer: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  const start = consumer & (size - 1);
  const first = Math.min(count, size - start);
  bytes.set(memory.u8.subarray(ring + start, ring + start + first));
  bytes.set(memory.u8.subarray(ring, ring + count - first), first);
  return bytes;
}

/** Copies bytes (at most `size`) into a ring. */
export function copyIn(memory: HostMemory, ring: number, size: number, producer: number, bytes: Uint8Array): void {
  const start = producer & (size - 1);
  const first = Math.min(bytes.length, size - start);
  memory.u8.set(bytes.subarray(0, first), ring + start);
  memory.u8.set(bytes.subarray(first), ring);
}

/** Bytes that wait for room in a ring, in order. A plain record: chunks and how much of the first one has gone. */
export interface ByteQueue {
  readonly chunks: Uint8Array[];
  taken: number;
  length: number;
}

export function createByteQueue(): ByteQueue {
  return { chunks: [], taken: 0, length: 0 };
}

export function enqueue(queue: ByteQueue, bytes: Uint8Array): void {
  if (bytes.length === 0) return;
  queue.chunks.push(bytes);
  queue.length += bytes.length;
}

/** Takes at most `limit` bytes off the front. */
export function dequeue(queue: ByteQueue, limit: number): Uint8Array {
  const bytes = new Uint8Array(Math.min(limit, queue.length));
  let filled = 0;
  let whole = 0;
  while (filled < bytes.length) {
    const chunk = queue.chunks[whole]!; // `length` counts the chunks' bytes, so there is one
    const part = chunk.subarray(queue.taken, queue.taken + bytes.length - filled);
    bytes.set(part, filled);
    filled += part.length;
    queue.taken += part.length;
    if (queue.taken === chunk.length) {
      queue.taken = 0;
      whole++;
    }
  }
  queue.chunks.splice(0, whole);
  queue.length -= filled;
  return bytes;
}
