import type { Archive, Archived, SharedPieces } from '../archive/archive.ts';

const PIECE_SHIFT = 8;
/** Entries of a piece: few, because whoever changes one copies all. */
const PIECE_ENTRIES = 1 << PIECE_SHIFT;
const PIECE_MASK = PIECE_ENTRIES - 1;
const PIECE_BYTES = PIECE_ENTRIES * Uint32Array.BYTES_PER_ELEMENT;

/**
 * Numbers of 32 bits by index, which copies of a domain share: they stand in pieces, and a piece that others may have too
 * is copied when it is about to be changed. All entries are 0 at first.
 */
export class SharedColumn implements Archived, SharedPieces {
  readonly length: number;
  readonly #pieces: Uint32Array<ArrayBuffer>[];
  /** 1 for each piece that nobody else has. */
  readonly #isOwn: Uint8Array;

  constructor(length: number) {
    this.length = length;
    const count = Math.ceil(length / PIECE_ENTRIES);
    this.#pieces = new Array<Uint32Array<ArrayBuffer>>(count).fill(new Uint32Array(PIECE_ENTRIES));
    this.#isOwn = new Uint8Array(count);
  }

  archive(archive: Archive): void {
    archive.shared('pieces', this);
  }

  /** 0 at any index, however large, that the column does not have. */
  get(index: number): number {
    if (index < 0 || index >= this.length) return 0;
    const piece = this.#pieces[index >>> PIECE_SHIFT] as Uint32Array; // the index is below the length
    return piece[index & PIECE_MASK] as number;
  }

  /** @param index below the length */
  set(index: number, value: number): void {
    this.#ownPiece(index)[index & PIECE_MASK] = value;
  }

  /** @param index below the length. @returns the sum */
  add(index: number, difference: number): number {
    const piece = this.#ownPiece(index);
    const sum = (piece[index & PIECE_MASK] as number) + difference; // an index of the piece
    piece[index & PIECE_MASK] = sum;
    return sum;
  }

  #ownPiece(index: number): Uint32Array {
    const place = index >>> PIECE_SHIFT;
    return this.#isOwn[place] === 1 ? (this.#pieces[place] as Uint32Array) : this.#copyPiece(place);
  }

  #copyPiece(place: number): Uint32Array {
    const copy = (this.#pieces[place] as Uint32Array<ArrayBuffer>).slice(); // callers name an index below the length
    this.#pieces[place] = copy;
    this.#isOwn[place] = 1;
    return copy;
  }

  share(): Uint8Array[] {
    this.#isOwn.fill(0);
    return this.#pieces.map(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength));
  }

  adopt(pieces: readonly unknown[]): boolean {
    const fits = (piece: unknown): piece is Uint8Array<ArrayBuffer> =>
      piece instanceof Uint8Array && piece.length === PIECE_BYTES;
    if (pieces.length !== this.#pieces.length || !pieces.every(fits)) return false;
    for (const [place, piece] of pieces.entries()) this.#pieces[place] = wordsOf(piece);
    this.#isOwn.fill(0);
    return true;
  }
}

/** The same bytes as words; a copy where they do not stand at a multiple of a word's size. */
function wordsOf(bytes: Uint8Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const isAligned = bytes.byteOffset % Uint32Array.BYTES_PER_ELEMENT === 0;
  const { buffer, byteOffset } = isAligned ? bytes : bytes.slice();
  return new Uint32Array(buffer, byteOffset, PIECE_ENTRIES);
}
