/**
 * Pages whose every access by the guest is seen: they are cached in no TLB, and an access leaves with `Exit.observed`, so
 * that the instruction is executed alone and RIP tells which one it was. Pages have the numbers of the paging. Who observes
 * one from some moment on invalidates its frame first.
 */
export interface ObservedPages {
  isObserved(page: number): boolean;
  /**
   * The running instruction has loaded from an observed page; `offset` and `bytes` in it.
   * @param forUpdate whether it goes on to store what it makes of that
   */
  loaded(page: number, offset: number, bytes: number, forUpdate: boolean): void;
  /** The running instruction is about to store into an observed page, which its translation allows. */
  storing(page: number, offset: number, bytes: number): void;
}
