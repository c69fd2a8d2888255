/**
 * The graphs that run: encoding for the feature cache, inspection, and the training step with loss, backward and
 * optimiser. Each becomes one plan and one submit.
 */
import type { Size } from '../data/preprocess.ts';
import { UsageError } from '../errors.ts';
import { layoutFor, type MemoryItem } from '../gpu/memory.ts';
import type { Target } from '../gpu/target.ts';
import { differentiate } from '../graph/autograd.ts';
import { constant, input, parameter, scope, type Tensor } from '../graph/tensor.ts';
import { add, coherence, gradientNorm, miningCosineLoss, pack, scale, stableAdamW, sum, type Segment } from '../ops/index.ts';
import { groupsPartitionTaps, hasPrototypes, tokenGrid, type DetectorConfig } from './config.ts';
import { encode, fuseGroups, type EncoderFeatures } from './encoder.ts';
import { reconstruct, type Reconstruction } from './detector.ts';
import { imagesLeaf } from './image-stage.ts';
import { trainableItems, trainableLeaves, trainablePrefix, type ParameterLeaves, type Precision } from './parameters.ts';
import { defaultMapSize, scoreCosines, scoreTokenMaps, type ScoreFunction, type Scoring } from './scoring.ts';

/** What the encoder gives per image and training needs again: en_g of each group, and x where the groups don't determine it. */
export function cachedFeatures({ groups, fused }: EncoderFeatures, config: DetectorConfig): Tensor[] {
  return groupsPartitionTaps(config) ? [...groups] : [...groups, fused];
}

/** f32 values that one image takes in the feature cache. */
export function featureCount(config: DetectorConfig): number {
  const tensors = config.encoderGroups.length + (groupsPartitionTaps(config) ? 0 : 1);
  return tensors * tokenGrid(config).count * config.architecture.width;
}

/** From `images` to the cached features `features.0`, `features.1`, .. [B, N, C]. */
export function encodingGraph(config: DetectorConfig, batchSize: number): Record<string, Tensor> {
  const features = encode(imagesLeaf(batchSize, config.crop), config);
  return Object.fromEntries(cachedFeatures(features, config).map((t, i) => [`features.${i}`, t]));
}

export interface InspectionGraph {
  readonly features: EncoderFeatures;
  readonly reconstruction: Reconstruction;
  readonly scoring: Scoring;
}

/** From `images` [B, 3, H, W] to anomaly maps and scores. @param score of this detector, see {@link scoringOf} */
export function inspectionGraph(image: Tensor, config: DetectorConfig, mapSize: Size = defaultMapSize, precision?: Precision, score: ScoreFunction = scoreCosines): InspectionGraph {
  const features = encode(image, config, precision);
  const p = trainableLeaves(config, precision);
  const reconstruction = reconstruct(features.fused, p, config);
  return { features, reconstruction, scoring: score({ encoder: features.groups, decoder: reconstruction.groups, parameters: p, config, mapSize }) };
}

/** The zero-shot map: distances to the nearest prototype of the image itself, through the same chain. */
export function zeroShotScoring({ features, reconstruction }: Pick<InspectionGraph, 'features' | 'reconstruction'>, config: DetectorConfig, mapSize: Size = defaultMapSize): Scoring {
  const { prototypes } = reconstruction;
  if (!prototypes) throw new UsageError('This model has no prototypes for a zero-shot map.');
  return scope('zero-shot', () => scoreTokenMaps([coherence(features.fused, prototypes).distance], config, mapSize));
}

export interface Objective {
  /** L + lambda Lc, [1] */
  readonly loss: Tensor;
  /** L of each group, [1], and their mean. */
  readonly groupLosses: readonly Tensor[];
  readonly cosine: Tensor;
  /** Lc, [1]; none where it has no weight or the decoder no prototypes. */
  readonly coherence: Tensor | undefined;
  readonly reconstructions: readonly Reconstruction[];
}

export interface ObjectiveOptions {
  /** lambda of Lc, default 0.2; 0 leaves it out. */
  readonly coherenceWeight?: number;
  /** Lc, default {@link nearestCoherenceLoss}. */
  readonly coherenceLoss?: (slices: readonly PrototypedTokens[]) => Tensor;
  /** Exponent of the soft-mining gradient weight, default 3; 0 leaves the gradient as it is. */
  readonly miningPower?: number;
}

/** Builds a loss from the features of each slice of a batch: {@link trainingObjective} or another. */
export type ObjectiveFunction = (
  slices: readonly Pick<EncoderFeatures, 'groups' | 'fused'>[], p: ParameterLeaves, config: DetectorConfig, options: ObjectiveOptions,
) => Objective;

/** A slice of a batch: features x [B, N, C], and the prototypes of its images [B, M, C]. */
export interface PrototypedTokens {
  readonly x: Tensor;
  readonly prototypes: Tensor;
}

/** INP-Former's Lc, [1]: mean over all tokens of the distance to the nearest prototype. */
export function nearestCoherenceLoss(slices: readonly PrototypedTokens[]): Tensor {
  const tokens = slices.reduce((total, { x }) => total + x.shape[0]! * x.shape[1]!, 0);
  return slices.map(({ x, prototypes }) => sum(coherence(x, prototypes).distance, 1 / tokens)).reduce(add);
}

/**
 * L = mean over groups of mean over the batch of 1 - cos(vec en_g, vec de_g), plus 0.2 Lc; de_g's gradient is weighted
 * by (M / mean M)^3, the mean over the whole batch. The batch may come in slices, with the same result.
 * @param slices the features of each slice of the batch
 */
export function trainingObjective(
  slices: readonly Pick<EncoderFeatures, 'groups' | 'fused'>[], p: ParameterLeaves, config: DetectorConfig,
  { coherenceWeight = 0.2, coherenceLoss = nearestCoherenceLoss, miningPower = 3 }: ObjectiveOptions = {},
): Objective {
  const reconstructions = slices.map((slice) => reconstruct(slice.fused, p, config));
  return scope('loss', () => {
    const groupLosses = config.encoderGroups.map((_, g) =>
      miningCosineLoss(slices.map((slice, s) => ({ en: slice.groups[g]!, de: reconstructions[s]!.groups[g]! })), { power: miningPower }));
    const cosine = scale(groupLosses.reduce(add), 1 / groupLosses.length);
    const prototyped = slices.flatMap(({ fused }, s) => {
      const { prototypes } = reconstructions[s]!;
      return prototypes ? [{ x: fused, prototypes }] : [];
    });
    const term = coherenceWeight > 0 && prototyped.length > 0 ? coherenceLoss(prototyped) : undefined;
    return { loss: term ? add(cosine, scale(term, coherenceWeight)) : cosine, groupLosses, cosine, coherence: term, reconstructions };
  });
}

/** The gradient of the loss by each trained tensor's leaf: a stack's, [rows, stride], or a single tensor's, by the leaf's name. */
export function leafGradients(loss: Tensor, p: ParameterLeaves): Map<string, Tensor> {
  const one = constant('one', [1], Float32Array.of(1));
  const leaves = p.all();
  const found = scope('backward', () => differentiate([{ tensor: loss, gradient: one }], leaves, add));
  return new Map(leaves.map((leaf, i) => [leaf.name, found[i]!]));
}

/** How the trained tensors lie in flat groups, each bound as a whole by the optimiser: like {@link DeviceMemory} lays them out. */
export interface FlatGroup {
  readonly names: readonly string[];
  readonly segments: readonly Segment[];
  /** Stacks, and tensors that are in none, by their leaves' names, with their offsets: what the gradients come in. */
  readonly leaves: readonly { name: string; offset: number }[];
  /** Elements, padding included. */
  readonly total: number;
}

/** @param items of the trained tensors */
export function flatGroups(items: readonly MemoryItem[], target: Target): FlatGroup[] {
  const { places, buffers } = layoutFor(target, items);
  return buffers.map((bytes, b) => {
    const inGroup = places.filter((p) => p.buffer === b);
    const tensors = inGroup.filter((p) => p.kind !== 'stack');
    return {
      names: tensors.map((m) => m.name.slice(trainablePrefix.length)),
      segments: tensors.map((m) => ({ offset: m.offset / 4, length: m.bytes / 4 })),
      leaves: inGroup.filter((p) => p.kind !== 'row').map(({ name, offset }) => ({ name, offset: offset / 4 })),
      total: bytes / 4,
    };
  });
}

/** Names of the optimiser's flat state: `optimizer.values.0` is the memory in which `trainable.*` of group 0 lie. */
export const optimizerState = ['values', 'firstMoment', 'secondMoment', 'maxSecondMoment'] as const;
export type OptimizerState = (typeof optimizerState)[number];
export const stateLeaf = (state: OptimizerState, group: number): string => `optimizer.${state}.${group}`;

/** Sizes of the slices that a batch is cut into, so that no tensor of the step exceeds one binding. */
export function sliceBatch(config: DetectorConfig, batchSize: number, target: Target): number[] {
  const { width, numHeads } = config.architecture;
  const tokens = tokenGrid(config).count;
  const widest = Math.max(config.mlpRatio * width, 2 * width, hasPrototypes(config) ? numHeads * config.numPrototypes : 0);
  const bytesPerImage = 4 * tokens * widest;
  const most = Math.floor(Math.min(target.maxStorageBufferBindingSize, target.maxBufferSize) / bytesPerImage);
  if (most < 1) {
    throw new UsageError(`One image of ${tokens} tokens needs a tensor of ${bytesPerImage} bytes, the adapter binds ${target.maxStorageBufferBindingSize}: use a smaller crop.`);
  }
  const count = Math.ceil(batchSize / most);
  return Array.from({ length: count }, (_, i) => Math.floor(((i + 1) * batchSize) / count) - Math.floor((i * batchSize) / count));
}

export interface TrainingGraph {
  /** Inputs of slice s: `features.0.s`, `features.1.s`, .. [B_s, N, C]; and `schedule` [4]. */
  readonly slices: readonly number[];
  readonly groups: readonly FlatGroup[];
  readonly objective: Objective;
  /** Gradient of each trained tensor, unclipped. */
  readonly gradients: ReadonlyMap<string, Tensor>;
  /** Joint norm of the gradients before clipping, [1]. */
  readonly norm: Tensor;
  /** To be named among a plan's effects: they change parameters and moments in place. */
  readonly updates: readonly Tensor[];
}

export interface TrainingGraphOptions extends ObjectiveOptions {
  /** Default {@link trainingObjective}. */
  readonly objective?: ObjectiveFunction;
  /** Sizes of the slices that the batch is computed in; by default as few as the target's bindings allow. */
  readonly slices?: readonly number[];
}

/** Forward, losses, backward, norm, clip and StableAdamW: the whole step. */
export function trainingGraph(
  config: DetectorConfig, batchSize: number, target: Target, { slices = sliceBatch(config, batchSize, target), objective: build = trainingObjective, ...options }: TrainingGraphOptions = {},
): TrainingGraph {
  const tokens = tokenGrid(config).count;
  const partition = groupsPartitionTaps(config);
  const features = slices.map((size, s) => {
    const leaf = (i: number) => input(`features.${i}.${s}`, [size, tokens, config.architecture.width]);
    const groups = config.encoderGroups.map((_, g) => leaf(g));
    return { groups, fused: partition ? fuseGroups(groups, config) : leaf(groups.length) };
  });
  const p = trainableLeaves(config);
  const objective = build(features, p, config, options);
  return { slices, objective, ...optimizationGraph(objective.loss, p, trainableItems(config), target) };
}

export type OptimizationGraph = Pick<TrainingGraph, 'groups' | 'gradients' | 'norm' | 'updates'>;

/** From a loss to the changed parameters: backward, joint norm, clip, StableAdamW. @param items of the leaves of p, as they lie in memory */
export function optimizationGraph(loss: Tensor, p: ParameterLeaves, items: readonly MemoryItem[], target: Target): OptimizationGraph {
  const ofLeaves = leafGradients(loss, p);
  const groups = flatGroups(items, target);
  const flat = groups.map((group) => pack(group.leaves.map(({ name }) => ofLeaves.get(name)!), group.leaves.map(({ offset }) => offset), group.total));
  const norm = gradientNorm(groups.map((group, i) => ({ gradients: flat[i]!, segments: group.segments })));
  const schedule = input('schedule', [4]);
  const updates = groups.map((group, i) => {
    const state = (name: OptimizerState) => parameter(stateLeaf(name, i), [group.total]);
    return scope('optimizer', () => stableAdamW({
      values: state('values'), firstMoment: state('firstMoment'), secondMoment: state('secondMoment'), maxSecondMoment: state('maxSecondMoment'),
      gradients: flat[i]!, norm, schedule,
    }, { segments: group.segments }));
  });
  return { groups, gradients: p.byName((leaf) => ofLeaves.get(leaf.name)!), norm, updates };
}
