/** Where a guest's time went, as plain JSON data. Times are seconds of the host's clock. What profiling took is not in it. */
export interface Profile {
  /** Time in the guest's code. */
  readonly guestSeconds: number;
  /** Time in which the host carried out what the guest left its code for. */
  readonly hostSeconds: number;
  readonly instructions: number;
  /** Those of `instructions` that regions of generated code executed. */
  readonly regionInstructions: number;
  readonly samples: number;
  /** Most time first; their times add up to `guestSeconds`. */
  readonly places: readonly ProfiledPlace[];
  /** Most time first; their times add up to `hostSeconds`. */
  readonly hostWork: readonly HostWork[];
}

/** A function of the kernel, or a page of code without a name. */
export interface ProfiledPlace {
  readonly mode: 'kernel' | 'user';
  /** A symbol, or the page's address. */
  readonly name: string;
  readonly samples: number;
  readonly seconds: number;
  readonly instructions: number;
  readonly regionInstructions: number;
}

export interface HostWork {
  /** Why the guest left its code: the kind of exit, with the vector, the instruction or the hypercall; or `compiling`. */
  readonly name: string;
  readonly count: number;
  readonly seconds: number;
}
