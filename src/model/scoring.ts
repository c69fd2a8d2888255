/**
 * From feature maps to the anomaly map and the image score: 1 - cos per group at each token, bilinear (align_corners)
 * to the crop, mean over groups, bilinear (not align_corners) to the map size, 5x5 Gaussian of sigma 4 with zero
 * padding; the score is the mean of the highest 1 % of the map.
 *
 * Source: cal_anomaly_maps and the evaluation loop of the reference's utils.py.
 */
import { UsageError } from '../errors.ts';
import { scope, type Tensor } from '../graph/tensor.ts';
import { composeTaps, cosineMap, gaussianWeights, meanOf, resample2d, resampleBy, resampleTaps, reshape, topMean, windowTaps, type TapTable } from '../ops/index.ts';
import { toSize, type Size } from '../data/preprocess.ts';
import { isPlus, tokenGrid, type DetectorConfig, type ImageSize } from './config.ts';
import type { ParameterLeaves } from './parameters.ts';

export interface Scoring {
  /** 1 - cos per token, [B, N], of each group. */
  readonly tokenMaps: readonly Tensor[];
  /** The maps' mean at the crop's size [B, H, W], and at the map size: only steps on the way, which the map takes at once. */
  readonly upsampled: Tensor;
  readonly resized: Tensor;
  /** [B, S, S] (or of the map's height and width), blurred */
  readonly map: Tensor;
  /** [B] */
  readonly score: Tensor;
}

export const defaultMapSize = 256;

/** The map of a crop: 256 x 256 for a square one, else as many pixels in the crop's shape. */
export function mapSizeFor({ height, width }: ImageSize): ImageSize {
  const side = (n: number, other: number) => Math.round(defaultMapSize * Math.sqrt(n / other));
  return { height: side(height, width), width: side(width, height) };
}

/** Share of the map, its highest values, whose mean is the score. */
export const scoredFraction = 0.01;

/** What an anomaly map can be made of. */
export interface ScoreInputs {
  /** en_g and de_g [B, N, C] of each group. */
  readonly encoder: readonly Tensor[];
  readonly decoder: readonly Tensor[];
  readonly parameters: ParameterLeaves;
  readonly config: DetectorConfig;
  readonly mapSize: Size;
}

export type ScoreFunction = (inputs: ScoreInputs) => Scoring;

/** INP-Former's own map. */
export const scoreCosines: ScoreFunction = ({ encoder, decoder, config, mapSize }) => {
  if (isPlus(config)) throw new UsageError('The detector is one of INP-Former++: give its graph the score function of scoringOf(config).');
  return scoreReconstruction(encoder, decoder, config, mapSize);
};

/** @param encoder, decoder en_g and de_g [B, N, C] */
export function scoreReconstruction(encoder: readonly Tensor[], decoder: readonly Tensor[], config: DetectorConfig, mapSize: Size = defaultMapSize): Scoring {
  return scope('score', () => scoreTokenMaps(encoder.map((en, g) => cosineMap(en, decoder[g]!)), config, mapSize));
}

/**
 * One axis of the way from tokens to the map: up to the crop, to the map's size, and the Gaussian. All of it is linear and
 * separable, so one table, computed in f64, does it at once.
 */
export function tokensToMap(tokens: number, crop: number, mapSize: number): TapTable {
  return composeTaps(
    resampleTaps('bilinear-align-corners', tokens, crop), resampleTaps('bilinear', crop, mapSize), windowTaps(gaussianWeights({ size: 5, sigma: 4 }), mapSize),
  );
}

/** @param tokenMaps distances per token, [B, N] each; several are averaged after upsampling */
export function scoreTokenMaps(tokenMaps: readonly Tensor[], config: DetectorConfig, mapSize: Size = defaultMapSize): Scoring {
  const { width, height } = toSize(mapSize);
  const { rows, columns } = tokenGrid(config);
  const batch = tokenMaps[0]!.shape[0]!;
  // Upsampling is linear: the mean of the maps is upsampled once instead of each of them.
  const average = tokenMaps.length === 1 ? tokenMaps[0]! : meanOf(tokenMaps);
  const upsampled = resample2d(reshape(average, [batch, rows, columns]), { outHeight: config.crop.height, outWidth: config.crop.width, kind: 'bilinear-align-corners' });
  const resized = resample2d(upsampled, { outHeight: height, outWidth: width, kind: 'bilinear' });
  const map = resampleBy(reshape(average, [batch, rows, columns]), {
    vertical: tokensToMap(rows, config.crop.height, height), horizontal: tokensToMap(columns, config.crop.width, width),
  });
  const score = topMean(reshape(map, [batch, height * width]), { fraction: scoredFraction });
  return { tokenMaps, upsampled, resized, map, score };
}
