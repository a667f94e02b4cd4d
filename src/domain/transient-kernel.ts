import { type KernelImage, loadKernel } from '../boot/kernel.ts';

/**
 * A kernel whose unpacked bytes, some four times the size of its file, are in memory only while they are in use: a guest
 * that runs has them in its own. Who looks at a segment later (reclaim took a page of it, a crash report wants names)
 * has the file unpacked again.
 */
export class TransientKernel {
  /** Everything but the bytes of segments is there at any time. */
  readonly image: KernelImage;
  readonly #file: Uint8Array;
  #holders = 0;
  #held: KernelImage | undefined;
  #latest: WeakRef<KernelImage>;

  /** @throws InputError when the file is no kernel */
  constructor(file: Uint8Array) {
    const image = loadKernel(file);
    this.#file = file;
    this.#latest = new WeakRef(image);
    const unpacked = (): KernelImage => this.#unpacked();
    this.image = {
      ...image,
      segments: image.segments.map(({ paddr, vaddr, memsz, flags }, index) => ({
        paddr,
        vaddr,
        memsz,
        flags,
        get data() {
          return unpacked().segments[index]?.data ?? new Uint8Array(0);
        },
      })),
      get symbols() {
        return unpacked().symbols;
      },
      get protectedModeCode() {
        return unpacked().protectedModeCode;
      },
    };
  }

  /** The bytes stay until as many `release`: somebody is about to read all of them. */
  hold(): void {
    this.#holders++;
    this.#held ??= this.#unpacked();
  }

  release(): void {
    if (--this.#holders === 0) this.#held = undefined;
  }

  #unpacked(): KernelImage {
    const known = this.#held ?? this.#latest.deref();
    if (known) return known;
    const image = loadKernel(this.#file);
    this.#latest = new WeakRef(image);
    return image;
  }
}
