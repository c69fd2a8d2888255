/** GELU, the exact one: x/2 (1 + erf(x / sqrt 2)) (DINOv2's and INP-Former's `nn.GELU()`), and its derivative. */
import { erf } from '../../shaders/common.wgsl.ts';
import { apply, type Tensor } from '../graph/tensor.ts';
import { componentwise, definePointwise } from './pointwise.ts';
import { geluDerivative, geluValue } from './reference.ts';

const gelu1 = `${erf}
fn gelu1(x: f32) -> f32 { return 0.5f * x * (1.0f + erf(x * 0.70710678118654752f)); }`;

const geluGradient1 = `${erf}
fn geluGradient1(x: f32) -> f32 {
  return 0.5f * (1.0f + erf(x * 0.70710678118654752f)) + x * exp(-0.5f * x * x) * 0.39894228040143268f;
}`;

export const geluOperation = definePointwise<null>({
  name: 'gelu',
  operands: ['element'],
  functions: gelu1,
  flops: 24,
  expression: ([x], _, vector) => componentwise('gelu1', x!, vector),
  value: ([x]) => geluValue(x!),
  gradient: ({ inputs: [x], outputGradients: [g] }) => [apply(geluGradientOperation, [g!, x!], null)[0]!],
});

/** g * gelu'(x) */
export const geluGradientOperation = definePointwise<null>({
  name: 'geluGradient',
  operands: ['element', 'element'],
  functions: geluGradient1,
  flops: 30,
  expression: ([g, x], _, vector) => `${g} * ${componentwise('geluGradient1', x!, vector)}`,
  value: ([g, x]) => g! * geluDerivative(x!),
});

export function gelu(x: Tensor): Tensor {
  return apply(geluOperation, [x], null)[0]!;
}
