import type { OperandKind } from '../decode/instruction.ts';
import type { Condition, MemoryForm, Shape } from './context.ts';

/** Code that has its own shapes: of 64 bits, of 32 with flat segments, and all else. */
export type CodeKind = 'long' | 'flat' | 'legacy';

export function codeKindOf({ long, flat }: Pick<Shape, 'long' | 'flat'>): CodeKind {
  return long ? 'long' : flat ? 'flat' : 'legacy';
}

/** A shape as text, one to one: `add 4 8 long base none 1:4 3:4`, and `… jne` with a conditional jump. */
export function shapeKey(shape: Shape): string {
  let key = `${shape.operation} ${shape.operandSize} ${shape.addressSize} ${codeKindOf(shape)} ${shape.memory} ${shape.repeat}`;
  for (const { kind, size } of shape.operands) key += ` ${kind}:${size}`;
  return shape.fused ? `${key} j${shape.fused}` : key;
}

/** The inverse of `shapeKey`. */
export function parseShapeKey(key: string): Shape {
  const [operation = '', operandSize, addressSize, code, memory, repeat, ...rest] = key.split(' ');
  const fused = rest.at(-1)?.startsWith('j') ? rest.at(-1) : undefined;
  const operands = fused === undefined ? rest : rest.slice(0, -1);
  return {
    operation,
    operandSize: Number(operandSize),
    addressSize: Number(addressSize),
    long: code === 'long',
    flat: code === 'flat',
    memory: memory as MemoryForm,
    repeat: repeat as Shape['repeat'],
    ...(fused === undefined ? {} : { fused: fused.slice(1) as Condition }),
    operands: operands.map((text) => {
      const [kind, size] = text.split(':');
      return { kind: Number(kind) as OperandKind, size: Number(size) };
    }),
  };
}
