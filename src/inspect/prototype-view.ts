/**
 * What the model compared an image with, made visible. The extractor makes M on-site prototypes P_m from the image itself;
 * every token x_n belongs to the one that it is most similar to, argmax_m cos(x_n, P_m), so that they partition the image like
 * the clusters that they are. What the decoder could not rebuild of each group of features, 1 - cos(en_g, de_g), is the
 * anomaly map's other half of the story.
 *
 * Source: INP-Former (CVPR 2025), section 3.2 and the figures that show its prototypes.
 */
import { UsageError } from '../errors.ts';
import type { Tensor, TensorData } from '../graph/tensor.ts';
import { hasPrototypes, tokenGrid, type DetectorConfig } from '../model/config.ts';
import { coherence, cosineMap } from '../ops/index.ts';
import type { InspectedGraph } from './group-maps.ts';
import type { MapPlacement } from './regions.ts';

/** On the grid of the encoder's tokens: `rows * columns`, row-major. */
export interface PrototypeView {
  readonly rows: number;
  readonly columns: number;
  /** M. */
  readonly count: number;
  /** The most similar prototype of each token, [rows, columns]. */
  readonly index: Uint8Array;
  /** Cosine similarity of each token to each prototype, [M, rows, columns]. */
  readonly similarity: Float32Array;
  /** Reconstruction error 1 - cos(en_g, de_g) of each group, [rows, columns] each; the anomaly map comes from their mean. */
  readonly groups: readonly Float32Array[];
  /** Where the grid lies in the source image: a token at (column, row) covers one unit. */
  readonly placement: MapPlacement;
}

/** @throws UsageError for a detector without prototypes */
export function checkHasPrototypes(config: DetectorConfig): void {
  if (!hasPrototypes(config)) throw new UsageError('This model makes no prototypes (it is a memory, or its decoder does without): there are none to show. Train one with them.');
}

/** What a plan computes for the view, beside map and score, where there are prototypes. The groups' errors are their cosines', whatever else the map is made of. */
export function tokenOutputs({ features, reconstruction }: InspectedGraph): Record<string, Tensor> {
  if (!features || !reconstruction?.prototypes) return {};
  const { all, index } = coherence(features.fused, reconstruction.prototypes);
  return { prototypeDistance: all, prototypeIndex: index, ...Object.fromEntries(features.groups.map((en, g) => [`group.${g}`, cosineMap(en, reconstruction.groups[g]!)])) };
}

/** A batch's outputs of the plan: distance [B, N, M], index [B, N], and `group.0`, `group.1`, .. [B, N]. */
export type TokenOutputs = Readonly<Record<string, TensorData>>;

/** The view of image `i` of a batch. */
export function prototypeView(outputs: TokenOutputs, i: number, config: DetectorConfig, placement: MapPlacement): PrototypeView {
  const { rows, columns, count: tokens } = tokenGrid(config);
  const m = config.numPrototypes;
  const distance = outputs['prototypeDistance']!.subarray(i * tokens * m, (i + 1) * tokens * m);
  const part = (name: string) => outputs[name]!.slice(i * tokens, (i + 1) * tokens);
  return {
    rows, columns, count: m, placement,
    index: Uint8Array.from(part('prototypeIndex')),
    similarity: Float32Array.from({ length: m * tokens }, (_, at) => 1 - distance[(at % tokens) * m + Math.floor(at / tokens)]!),
    groups: config.encoderGroups.map((_, g) => part(`group.${g}`) as Float32Array),
  };
}
