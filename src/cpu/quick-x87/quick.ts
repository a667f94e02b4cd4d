import { add, i32 } from '../../wasm/expression.ts';
import { callOf, type Label, ModuleBuilder, type Signature } from '../../wasm/module.ts';
import { X87Operation } from '../float/x87-operations.ts';
import { State } from '../state.ts';
import { arithmeticWays } from './arithmetic.ts';
import { choose } from './choose.ts';
import { comparisonWays } from './comparisons.ts';
import { integerWays } from './integers.ts';
import { moveWays } from './moves.ts';
import { QuickMachine } from './quick-machine.ts';

/**
 * The x87 unit as generated code, for what programs do all the time: moves, conversions, comparisons and arithmetic of
 * numbers that are zero or normal, rounded to nearest and to all 64 bits, with nothing pending and nothing that would
 * become pending. The 80-bit numbers are computed in integers, as the exact unit (../float/x87.ts) does, and all that is
 * different here goes on to that one: a way looks at everything that could be different before it changes anything.
 *
 * Reading order
 *   quick-machine.ts  the state, the stack, and how a way ends
 *   numbers.ts        80-bit numbers and those in memory
 *   moves.ts, integers.ts, comparisons.ts, arithmetic.ts  the ways, by subject
 */

/** (state, operation, stack register, address of memory operand): bits of X87Result, as of the exact unit. */
export type ExecuteX87 = (state: number, operation: number, register: number, operand: number) => number;

const SIGNATURE: Signature = { parameters: ['i32', 'i32', 'i32', 'i32'], result: 'i32' };

/** The function over one memory; other generated code imports it. @param exact executes what this does not */
export function createQuickX87(memory: WebAssembly.Memory, exact: ExecuteX87): ExecuteX87 {
  const module = new ModuleBuilder(memory.buffer.byteLength / 0x1_0000);
  const exactly = module.importFunction('exact', SIGNATURE);
  const { builder: fn } = module.function(SIGNATURE, 'execute');
  const [state, operation, register, operand] = [0, 1, 2, 3].map((index) => fn.parameter(index, 'i32'));
  if (!state || !operation || !register || !operand) throw new Error('the function has four parameters');
  fn.block((otherwise: Label) => {
    const unit = fn.let(add(state, i32(State.x87)));
    const machine = new QuickMachine(fn, { unit, operation, register, operand }, otherwise);
    const ways = {
      ...moveWays(machine),
      ...integerWays(machine),
      ...comparisonWays(machine),
      ...arithmeticWays(machine),
    };
    const byOperation = Array.from({ length: X87Operation.count }, (_, index) => ways[index]);
    choose(fn, operation, byOperation, otherwise);
    fn.unreachable();
  });
  fn.return(callOf('i32', exactly, state, operation, register, operand));
  fn.unreachable();
  const imports = { host: { memory, exact } } as WebAssembly.Imports;
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module.build()), imports);
  return exports.execute as ExecuteX87;
}
