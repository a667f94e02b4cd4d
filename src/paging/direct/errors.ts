/**
 * Results of direct paging: 0, or one of these, which are the error numbers of Xen's ABI (public/errno.h).
 * Only `preempted` stays inside the host: the bounded work of a call is used up and the same call is to be made again.
 */
export const enum PagingError {
  notPermitted = -1,
  noMemory = -12,
  busy = -16,
  invalid = -22,
  notImplemented = -38,
  preempted = -85,
}
