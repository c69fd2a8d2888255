/**
 * INP-Former++'s soft mining (Eq. 5): a cosine and a squared-error branch, each with a gradient weight of its own per token,
 *
 *   L = Lcos + Lmse    grad de = w_cos dLcos + w_mse dLmse    w = (M / mean M)^3
 *
 * M being the branch's own map, its mean over batch and tokens, all detached. On de itself the two weights would mix, so each
 * is applied inside its branch: to the dot products, and to the tokens' errors.
 */
import type { Tensor } from '../graph/tensor.ts';
import { add } from './add.ts';
import { miningCosineLoss, powerOfRatio, scaleTokenGradient } from './hard-mining.ts';
import { reshape } from './reshape.ts';
import { tokenSquaredError } from './squared-error.ts';
import { meanOverAll, sum } from './sum.ts';

type Slices = readonly { readonly en: Tensor; readonly de: Tensor }[];

/**
 * Mean of (en - de)^2 over all elements, [1], with the weight of soft mining on de's gradient. The batch may come in slices:
 * loss and weights are those of the whole.
 * @param slices en (detached) and de [B_i, N, C] of each slice of the batch, for one feature group
 */
export function miningSquaredError(slices: Slices, { power }: { power: number } = { power: 3 }): Tensor {
  const maps = slices.map(({ en, de }) => tokenSquaredError(en, de));
  const average = meanOverAll(maps);
  const tokens = maps.reduce((total, { shape: [b, n] }) => total + b! * n!, 0);
  return maps
    .map((map) => sum(scaleTokenGradient(reshape(map, [...map.shape, 1]), powerOfRatio(map, average, power)), 1 / tokens))
    .reduce(add);
}

/** Both branches of one feature group, [1] each; their sum is its part of the loss. */
export function softMiningLosses(slices: Slices, options?: { power: number }): { cosine: Tensor; squaredError: Tensor } {
  return { cosine: miningCosineLoss(slices, options), squaredError: miningSquaredError(slices, options) };
}
