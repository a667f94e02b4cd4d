/** Bytes that wait for a reader, from which on their guest stands still. No kernel prints as much while it starts. */
const MOST_WAITING = 256 << 10;

/** Bytes that a guest printed and nobody has read yet. */
export class OutputQueue {
  readonly stream: ReadableStream<Uint8Array>;
  /** The guest is to execute nothing until there is room. What it printed last is taken all the same. */
  isFull = false;
  /** Called when there is room again. */
  onRoom: () => void = () => {};
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;

  constructor() {
    this.stream = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => this.#roomMade(),
        cancel: () => {
          this.#controller = undefined;
          this.#roomMade();
        },
      },
      { highWaterMark: MOST_WAITING, size: (bytes) => bytes.length },
    );
  }

  push(bytes: Uint8Array): void {
    const controller = this.#controller;
    if (!controller) return;
    controller.enqueue(bytes);
    this.isFull = (controller.desiredSize ?? 0) <= 0;
  }

  #roomMade(): void {
    if (!this.isFull) return;
    this.isFull = false;
    this.onRoom();
  }

  close(): void {
    this.#controller?.close();
    this.#controller = undefined;
    this.isFull = false;
  }
}
