import {
  add,
  and,
  eq,
  eqz,
  geU,
  gtU,
  type I32,
  i32,
  load8U32,
  load16U32,
  load64,
  ltU,
  or,
  shrU,
  store8of32,
  store64,
  sub,
} from '../wasm/expression.ts';
import { CompilationHint, type FunctionBuilder, type Local, ModuleBuilder } from '../wasm/module.ts';

/**
 * The decoder of LZ4 blocks ("LZ4 Block format") as WebAssembly: kernels are unpacked before anything of the host is warm,
 * when engines would interpret a decoder in JavaScript for most of the time.
 *
 * A block is a row of sequences: a token, literals, and a match, which is a distance back to what is to be repeated.
 * Either half of the token is a length. A half of 15 is followed by bytes that add to it, up to the first that is not 255;
 * matches are 4 longer than that. The last sequence ends behind its literals.
 */
export const DECODE_BLOCK = 'decodeBlock';

const MINIMUM_MATCH = 4;
/** In a half of the token: more bytes of the length follow. */
const MORE = 15;

/** Bytes that are copied at a time; up to so many are written behind what was asked for. */
const STEP = 8;
/** From this length on a call of the engine is quicker. */
const LONG = 64;

/** Places in the decoder's memory: a packed block, and 8 MiB for it. Behind each of the two there is room for a step. */
export const enum DecoderPlace {
  packed = 0,
  /** Bytes that 8 MiB take at most: all of them literals. */
  packedLimit = 0x80_0000 + 0x8081 + 16,
  unpacked = 0x81_0000,
  unpackedLimit = unpacked + 0x80_0000,
  pages = (unpackedLimit >> 16) + 1,
}

/** What the decoder answers instead of the length of what it has unpacked. */
export const enum DecoderError {
  endsEarly = -1,
  tooLong = -2,
  reachesBack = -3,
}

/** A module that exports `DECODE_BLOCK`: (end of the packed block) → the length unpacked, or a `DecoderError`. */
export function buildBlockDecoder(): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder(DecoderPlace.pages);
  module.hint = CompilationHint.atOnceAndWell;
  const { builder: fn } = module.function({ parameters: ['i32'], result: 'i32' }, DECODE_BLOCK);
  const end = fn.parameter(0, 'i32');
  const from = fn.local('i32');
  const to = fn.local('i32');
  const length = fn.local('i32');
  const failIf = (condition: I32, error: DecoderError) => fn.ifSeldom(condition, () => fn.return(i32(error)));
  /** The byte that `from` stands at, and past it. */
  const next = (into: Local<'i32'>) => {
    failIf(geU(from, end), DecoderError.endsEarly);
    fn.set(into, load8U32(from));
    fn.set(from, add(from, i32(1)));
  };
  const more = fn.local('i32');
  const readLength = (half: I32) => {
    fn.set(length, half);
    fn.if(eq(length, i32(MORE)), () => {
      fn.loop((again) => {
        next(more);
        fn.set(length, add(length, more));
        fn.branchIf(eq(more, i32(0xff)), again);
      });
    });
  };

  fn.set(from, i32(DecoderPlace.packed));
  fn.set(to, i32(DecoderPlace.unpacked));
  fn.loop((sequence) => {
    const token = fn.local('i32');
    next(token);
    readLength(shrU(token, i32(4)));
    failIf(gtU(length, sub(end, from)), DecoderError.endsEarly);
    failIf(gtU(length, sub(i32(DecoderPlace.unpackedLimit), to)), DecoderError.tooLong);
    copy(fn, to, from, length);
    fn.set(from, add(from, length));
    fn.set(to, add(to, length));
    fn.if(eq(from, end), () => fn.return(sub(to, i32(DecoderPlace.unpacked))));

    failIf(ltU(sub(end, from), i32(2)), DecoderError.endsEarly);
    const distance = fn.let(load16U32(from));
    fn.set(from, add(from, i32(2)));
    readLength(and(token, i32(MORE)));
    fn.set(length, add(length, i32(MINIMUM_MATCH)));
    const none = or(eqz(distance), gtU(distance, sub(to, i32(DecoderPlace.unpacked))));
    failIf(none, DecoderError.reachesBack);
    failIf(gtU(length, sub(i32(DecoderPlace.unpackedLimit), to)), DecoderError.tooLong);
    const match = fn.let(sub(to, distance));
    fn.if(
      ltU(distance, i32(STEP)),
      () => repeat(fn, to, match, length),
      () => copy(fn, to, match, length, ltU(distance, length)),
    );
    fn.set(to, add(to, length));
    fn.branch(sequence);
  });
  fn.unreachable();
  return module.build();
}

/** @param overlaps whether less than `length`, though no less than a step, lies between the two */
function copy(fn: FunctionBuilder, to: I32, from: I32, length: I32, overlaps: I32 = i32(0)): void {
  const short = or(ltU(length, i32(LONG)), overlaps);
  const inSteps = () => eachStep(fn, length, STEP, (at) => fn.store(store64(add(to, at), load64(add(from, at)))));
  fn.if(short, inSteps, () => fn.copyMemory(to, from, length));
}

/** What is repeated is shorter than a step. */
function repeat(fn: FunctionBuilder, to: I32, from: I32, length: I32): void {
  eachStep(fn, length, 1, (at) => fn.store(store8of32(add(to, at), load8U32(add(from, at)))));
}

function eachStep(fn: FunctionBuilder, length: I32, step: number, body: (at: I32) => void): void {
  const at = fn.local('i32');
  fn.set(at, i32(0));
  fn.loop((again) => {
    body(at);
    fn.set(at, add(at, i32(step)));
    fn.branchIf(ltU(at, length), again);
  });
}
