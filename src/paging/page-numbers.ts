import type { Mfn } from '../x86/brand.ts';

/** Which machine frame number each page of a guest's memory has, counted from the first page. */
export interface PageNumbers {
  readonly pages: number;
  /** @param page one of the memory's */
  numberOf(page: number): Mfn;
  /** The page at any number, or −1. */
  pageOf(mfn: number): number;
}

/** Pages in a row whose numbers are in a row too. */
export interface NumberRun {
  readonly firstNumber: number;
  readonly pages: number;
}

/** Numbers in a few runs, which take no memory however large the guest is. */
export class NumberRuns implements PageNumbers {
  readonly pages: number;
  readonly #runs: readonly NumberRun[];

  /** @param runs one behind another, from page 0 */
  constructor(runs: readonly NumberRun[]) {
    this.#runs = runs;
    this.pages = runs.reduce((sum, { pages }) => sum + pages, 0);
  }

  numberOf(page: number): Mfn {
    let rest = page;
    for (const { firstNumber, pages } of this.#runs) {
      if (rest < pages) return (firstNumber + rest) as Mfn;
      rest -= pages;
    }
    throw new RangeError(`a memory of ${this.pages} pages has no page ${page}`);
  }

  pageOf(mfn: number): number {
    let firstPage = 0;
    for (const { firstNumber, pages } of this.#runs) {
      if (mfn >= firstNumber && mfn < firstNumber + pages) return firstPage + mfn - firstNumber;
      firstPage += pages;
    }
    return -1;
  }
}

/** Some of the pages in another order. */
export class PermutedNumbers implements PageNumbers {
  readonly pages: number;
  readonly #numbers: PageNumbers;
  readonly #permuted: Int32Array;
  readonly #original: Int32Array;

  /** @param permutation of the first `count` pages: whose number each of them has */
  constructor(numbers: PageNumbers, count: number, permutation: (page: number) => number) {
    this.pages = numbers.pages;
    this.#numbers = numbers;
    this.#permuted = Int32Array.from({ length: count }, (_none, page) => permutation(page));
    this.#original = new Int32Array(count);
    for (const [page, other] of this.#permuted.entries()) this.#original[other] = page;
  }

  numberOf(page: number): Mfn {
    return this.#numbers.numberOf(this.#permuted[page] ?? page);
  }

  pageOf(mfn: number): number {
    const page = this.#numbers.pageOf(mfn);
    return this.#original[page] ?? page;
  }
}
