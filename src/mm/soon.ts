/** At once, or after what it settles with. */
export type Soon<Value> = Value | Promise<Value>;
