/** y = factor * x, factor a number known when the graph is built. */
import { f32 } from '../gpu/wgsl.ts';
import { apply, type Tensor } from '../graph/tensor.ts';
import { definePointwise } from './pointwise.ts';

export const scaleOperation = definePointwise<{ factor: number }>({
  name: 'scale',
  operands: ['element'],
  flops: 1,
  expression: ([x], { factor }) => `${f32(factor)} * ${x}`,
  value: ([x], { factor }) => factor * x!,
  gradient: ({ outputGradients: [g], attributes: { factor } }) => [scale(g!, factor)],
});

export function scale(x: Tensor, factor: number): Tensor {
  return apply(scaleOperation, [x], { factor })[0]!;
}
