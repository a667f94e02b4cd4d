import type { Frame, GuestVirtual } from '../x86/brand.ts';

/**
 * Frames whose every access by the guest is seen: they are cached in no TLB, and an access leaves with `Exit.device`, so
 * that the instruction is executed alone and RIP tells which one it was. Who observes a frame from some moment on
 * invalidates it first.
 */
export interface ObservedFrames {
  isObserved(frame: Frame): boolean;
  /** The running instruction has loaded from an observed frame. */
  loaded(address: GuestVirtual): void;
}
