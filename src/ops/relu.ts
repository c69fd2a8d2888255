/** max(0, x), whose gradient asks the output: where that is 0, nothing flows. */
import { apply, type Tensor } from '../graph/tensor.ts';
import { definePointwise } from './pointwise.ts';

export const reluOperation = definePointwise<null>({
  name: 'relu',
  operands: ['element'],
  flops: 1,
  expression: ([x], _, vector) => `max(${x}, ${vector ? 'vec4f()' : '0.0f'})`,
  value: ([x]) => Math.max(0, x!),
  gradient: ({ outputs: [y], outputGradients: [g] }) => [apply(reluGradientOperation, [g!, y!], null)[0]!],
});

/** g where y > 0 */
export const reluGradientOperation = definePointwise<null>({
  name: 'reluGradient',
  operands: ['element', 'element'],
  flops: 1,
  expression: ([g, y], _, vector) => `select(${vector ? 'vec4f()' : '0.0f'}, ${g}, ${y} > ${vector ? 'vec4f()' : '0.0f'})`,
  value: ([g, y]) => (y! > 0 ? g! : 0),
});

export function relu(x: Tensor): Tensor {
  return apply(reluOperation, [x], null)[0]!;
}
