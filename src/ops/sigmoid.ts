/** 1 / (1 + exp(-x)); its gradient is g y (1 - y). */
import { apply, type Tensor } from '../graph/tensor.ts';
import { componentwise, definePointwise } from './pointwise.ts';

// Beyond 80 the result is 0 or 1 in f32 anyway, and exp() would leave its range.
const sigmoid1 = `
fn sigmoid1(x: f32) -> f32 { return 1.0f / (1.0f + exp(-clamp(x, -80.0f, 80.0f))); }`;

export const sigmoidOperation = definePointwise<null>({
  name: 'sigmoid',
  operands: ['element'],
  functions: sigmoid1,
  flops: 12,
  expression: ([x], _, vector) => componentwise('sigmoid1', x!, vector),
  value: ([x]) => 1 / (1 + Math.exp(-x!)),
  gradient: ({ outputs: [y], outputGradients: [g] }) => [apply(sigmoidGradientOperation, [g!, y!], null)[0]!],
});

/** g y (1 - y) */
export const sigmoidGradientOperation = definePointwise<null>({
  name: 'sigmoidGradient',
  operands: ['element', 'element'],
  flops: 3,
  expression: ([g, y]) => `${g} * ${y} * (1.0f - ${y})`,
  value: ([g, y]) => g! * y! * (1 - y!),
});

export function sigmoid(x: Tensor): Tensor {
  return apply(sigmoidOperation, [x], null)[0]!;
}
