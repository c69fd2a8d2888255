/** y = a + b, same shapes: residual connections, and the sum where gradients meet. */
import { apply, type Tensor } from '../graph/tensor.ts';
import { definePointwise } from './pointwise.ts';

export const addOperation = definePointwise<null>({
  name: 'add',
  operands: ['element', 'element'],
  flops: 1,
  expression: ([a, b]) => `${a} + ${b}`,
  value: ([a, b]) => a! + b!,
  gradient: ({ outputGradients: [g] }) => [g, g],
});

export function add(a: Tensor, b: Tensor): Tensor {
  return apply(addOperation, [a, b], null)[0]!;
}
