/**
 * The host itself met a page of a guest that it has to bring in, or to make writable, first. Whoever acts for the guest
 * lets this pass before it has changed anything, or after it has noted how far it came; the page is brought in and the
 * guest asks again.
 */
export class PageAbsent extends Error {
  /** Number of the page in the paging's own numbering. */
  readonly page: number;
  readonly write: boolean;

  constructor(page: number, write: boolean) {
    super(`page ${page} must be brought in`);
    this.page = page;
    this.write = write;
  }
}
