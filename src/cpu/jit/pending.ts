/** What somebody looks at from time to time until it is there. */
export interface Pending<T> {
  readonly isDone: boolean;
  /** Undefined as long as it is not done, and when nothing came of it. */
  readonly value: T | undefined;
}

/** What was done at once. */
export const done = <T>(value: T): Pending<T> => ({ isDone: true, value });

/** @param onFailure told why nothing came of it */
export function pending<T>(promise: Promise<T>, onFailure: (reason: unknown) => void = () => {}): Pending<T> {
  const result: { isDone: boolean; value: T | undefined } = { isDone: false, value: undefined };
  promise.then(
    (value) => Object.assign(result, { isDone: true, value }),
    (reason: unknown) => {
      result.isDone = true;
      onFailure(reason);
    },
  );
  return result;
}
