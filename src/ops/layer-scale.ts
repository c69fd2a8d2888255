/** y[.., c] = x[.., c] * gamma[c]: DINOv2's LayerScale. The encoder is frozen, so only x has a gradient. */
import { apply, type Tensor } from '../graph/tensor.ts';
import { definePointwise } from './pointwise.ts';

export const layerScaleOperation = definePointwise<null>({
  name: 'layerScale',
  operands: ['element', 'column'],
  flops: 1,
  expression: ([x, gamma]) => `${x} * ${gamma}`,
  value: ([x, gamma]) => x! * gamma!,
  gradient: ({ inputs: [, gamma], outputGradients: [g] }) => [layerScale(g!, gamma!), undefined],
});

/** @param gamma [C], one factor a channel of x [.., C] */
export function layerScale(x: Tensor, gamma: Tensor): Tensor {
  return apply(layerScaleOperation, [x, gamma], null)[0]!;
}
