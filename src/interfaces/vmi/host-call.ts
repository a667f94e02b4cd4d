import { CALL_NAMES, type Call } from './abi.ts';

/**
 * What the ROM's code asks the host for. It calls by VMCALL with the number in EBX; arguments are where the kernel left them,
 * those on the stack behind EBX and the return address. A call for which the ROM goes to the host has its own number.
 */
export type HostCall = Call | PrivateCall;

/** Calls that only the ROM makes. */
export const enum PrivateCall {
  /** A kernel has decided to use the ROM. */
  initialise = 0x80,
  /** The queue is full. */
  drainFull = 0x81,
  /** A lazy section is over and there are records. */
  drainLazy = 0x82,
  /** The kernel reads entries of page tables by GetPxELong alone. */
  useMachineFrames = 0x83,
}

/** In the high word of a level-1 entry, a bit that processors ignore: the host has made it read-only, and not the kernel. */
export const MADE_READ_ONLY = 0x0010_0000;

/** Words of the stack in front of a call's own arguments. */
export const STACK_ARGUMENTS = 2;

export const HOST_CALL_NAMES: readonly (string | undefined)[] = Array.from(
  { length: PrivateCall.useMachineFrames + 1 },
  (_, number) => {
    switch (number as PrivateCall) {
      case PrivateCall.initialise:
        return 'VMI_Init';
      case PrivateCall.drainFull:
        return 'queue full';
      case PrivateCall.drainLazy:
        return 'end of a lazy section';
      case PrivateCall.useMachineFrames:
        return 'UseMachineFrames';
      default:
        return CALL_NAMES[number as Call] as string | undefined;
    }
  },
);
