import type { OperandKind } from '../decode/instruction.ts';
import type { MemoryForm, Shape } from './context.ts';

/** A shape as text, one to one: `add 4 8 long base none 1:4 3:4`. */
export function shapeKey(shape: Shape): string {
  let key = `${shape.operation} ${shape.operandSize} ${shape.addressSize} ${shape.long ? 'long' : 'legacy'} ${shape.memory} ${shape.repeat}`;
  for (const { kind, size } of shape.operands) key += ` ${kind}:${size}`;
  return key;
}

/** The inverse of `shapeKey`. */
export function parseShapeKey(key: string): Shape {
  const [operation = '', operandSize, addressSize, code, memory, repeat, ...operands] = key.split(' ');
  return {
    operation,
    operandSize: Number(operandSize),
    addressSize: Number(addressSize),
    long: code === 'long',
    memory: memory as MemoryForm,
    repeat: repeat as Shape['repeat'],
    operands: operands.map((text) => {
      const [kind, size] = text.split(':');
      return { kind: Number(kind) as OperandKind, size: Number(size) };
    }),
  };
}
