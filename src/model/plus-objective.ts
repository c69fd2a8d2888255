/**
 * The losses of INP-Former++, which train the same parts as INP-Former's:
 *
 *   L = mean over groups of Lcos + Lmse (soft mining in two branches, Eq. 5) + 0.2 Ls (soft coherence, Eq. 3)
 *
 * and the step that trains the segmentation head by the Dice loss (Eq. 8) on residuals of a detector that stays as it is.
 */
import { UsageError } from '../errors.ts';
import type { Target } from '../gpu/target.ts';
import { input, scope, type Tensor } from '../graph/tensor.ts';
import { add, resample2d, reshape, scale, sum } from '../ops/index.ts';
import { dice, residual, softCoherenceLoss, softMiningLosses } from '../ops/plus.ts';
import { tokenGrid, type DetectorConfig } from './config.ts';
import { reconstruct } from './detector.ts';
import { encode } from './encoder.ts';
import { optimizationGraph, type ObjectiveFunction, type OptimizationGraph } from './graphs.ts';
import { headItems, headLeaves, trainableLeaves } from './parameters.ts';
import { headBytesPerImage, segmentationHead } from './segmentation-head.ts';

export const plusObjective: ObjectiveFunction = (slices, p, config, { coherenceWeight = 0.2, miningPower = 3 }) => {
  const reconstructions = slices.map((slice) => reconstruct(slice.fused, p, config));
  return scope('loss', () => {
    const branches = config.encoderGroups.map((_, g) =>
      softMiningLosses(slices.map((slice, s) => ({ en: slice.groups[g]!, de: reconstructions[s]!.groups[g]! })), { power: miningPower }));
    const groupLosses = branches.map(({ cosine, squaredError }) => add(cosine, squaredError));
    const meanOfGroups = (losses: readonly Tensor[]): Tensor => scale(losses.reduce(add), 1 / losses.length);
    const coherence = softCoherenceLoss(slices.map(({ fused }, s) => ({ x: fused, prototypes: reconstructions[s]!.prototypes! })));
    return {
      loss: add(meanOfGroups(groupLosses), scale(coherence, coherenceWeight)),
      groupLosses, cosine: meanOfGroups(branches.map(({ cosine }) => cosine)), coherence, reconstructions,
    };
  });
};

/** From images [B, 3, H, W] to the residual [B, N, C] that the head sees: encoder and trained part as they are. */
export function residualGraph(image: Tensor, config: DetectorConfig): Tensor {
  const features = encode(image, config);
  const { groups } = reconstruct(features.fused, trainableLeaves(config), config);
  return residual(features.groups.map((en, g) => ({ en, de: groups[g]! })));
}

export interface HeadTrainingGraph extends OptimizationGraph {
  /** Inputs of slice s: `residual.s` [B_s, N, C] and `mask.s` [B_s, H, W], 1 where there is a defect; and `schedule` [4]. */
  readonly slices: readonly number[];
  /** Mean over the batch of the Dice loss, [1]. */
  readonly loss: Tensor;
}

/** Sizes of the slices that a batch is cut into, so that no tensor of the head's step exceeds one binding. */
export function sliceHeadBatch(config: DetectorConfig, batchSize: number, target: Target): number[] {
  const bytesPerImage = headBytesPerImage(config);
  const most = Math.floor(Math.min(target.maxStorageBufferBindingSize, target.maxBufferSize) / bytesPerImage);
  if (most < 1) {
    throw new UsageError(`The segmentation head needs a tensor of ${bytesPerImage} bytes for one image, the adapter binds ${target.maxStorageBufferBindingSize}: use a smaller crop.`);
  }
  const count = Math.ceil(batchSize / most);
  return Array.from({ length: count }, (_, i) => Math.floor(((i + 1) * batchSize) / count) - Math.floor((i * batchSize) / count));
}

/** The step of the head alone: forward, Dice at the crop's size, backward, norm, clip and StableAdamW. */
export function headTrainingGraph(config: DetectorConfig, batchSize: number, target: Target, slices = sliceHeadBatch(config, batchSize, target)): HeadTrainingGraph {
  const { rows, columns, count } = tokenGrid(config);
  const { crop, architecture } = config;
  const p = headLeaves(config);
  const losses = slices.map((size, s) => {
    const { probability, grid } = segmentationHead(input(`residual.${s}`, [size, count, architecture.width]), (name) => p.get(name), { rows, columns });
    const upsampled = resample2d(reshape(probability, [size, grid.rows, grid.columns]), { outHeight: crop.height, outWidth: crop.width, kind: 'bilinear' });
    return sum(dice(upsampled, input(`mask.${s}`, [size, crop.height, crop.width])), 1 / batchSize);
  });
  const loss = losses.reduce(add);
  return { slices, loss, ...optimizationGraph(loss, p, headItems(config), target) };
}
