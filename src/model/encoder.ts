/**
 * The frozen DINOv2 encoder: patch embedding, class and register tokens, pre-norm transformer blocks up to the last
 * tap. Taps are raw block outputs; class and register tokens are dropped after them, and each group of taps is
 * averaged: en_g = mean of its taps, x = mean of all taps.
 *
 * Source: INP-Former's dinov2 vision transformer (models/uad.py takes the block outputs), inp-former.md.
 */
import { UsageError } from '../errors.ts';
import { interpret } from '../graph/interpreter.ts';
import { constant, scope, type Shape, type Tensor } from '../graph/tensor.ts';
import {
  add, assembleTokens, channels, gelu, layerNorm, layerScale, linear, meanOfTokens, patchEmbedding, resample2d, reshape, softmaxAttention,
} from '../ops/index.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import { encoderEpsilon, groupsPartitionTaps, tokenGrid, type DetectorConfig } from './config.ts';
import { ParameterLeaves, type Precision } from './parameters.ts';

export const encoderPrefix = 'encoder.';

export interface EncoderFeatures {
  /** en_g [B, N, C] of each group. */
  readonly groups: readonly Tensor[];
  /** x [B, N, C], the mean over all taps. */
  readonly fused: Tensor;
  /** Tokens before the first block [B, 1 + R + N, C], and each block's output of that shape. */
  readonly tokens: Tensor;
  readonly blocks: readonly Tensor[];
}

/** Shapes of the encoder's parameters as the graph uses them: q, k and v in one matrix, the position embedding at the crop's grid. */
export function encoderShapes(config: DetectorConfig): Map<string, Shape> {
  const { width: c, patchSize, numRegisters, mlpRatio, layerScale: hasLayerScale } = config.architecture;
  const shapes = new Map<string, Shape>([
    ['patch.weight', [c, 3, patchSize, patchSize]], ['patch.bias', [c]], ['cls', [1, 1, c]],
    ['position', [1, 1 + tokenGrid(config).count, c]],
  ]);
  if (numRegisters > 0) shapes.set('registers', [1, numRegisters, c]);
  for (let i = 0; i <= config.taps.at(-1)!; i++) {
    const set = (name: string, shape: Shape) => shapes.set(`${i}.${name}`, shape);
    for (const norm of ['norm1', 'norm2']) { set(`${norm}.weight`, [c]); set(`${norm}.bias`, [c]); }
    set('qkv.weight', [3 * c, c]); set('qkv.bias', [3 * c]);
    set('proj.weight', [c, c]); set('proj.bias', [c]);
    set('fc1.weight', [mlpRatio * c, c]); set('fc1.bias', [mlpRatio * c]);
    set('fc2.weight', [c, mlpRatio * c]); set('fc2.bias', [c]);
    if (hasLayerScale) { set('scale1', [c]); set('scale2', [c]); }
  }
  return shapes;
}

/** The graph from normalised images [B, 3, H, W] to features. */
export function encode(image: Tensor, config: DetectorConfig, precision?: Precision): EncoderFeatures {
  const p = new ParameterLeaves(encoderShapes(config), encoderPrefix, precision && { precision });
  const { architecture } = config;
  const patches = patchEmbedding(image, p.get('patch.weight'), p.get('patch.bias'));
  const tokens = assembleTokens(patches, p.get('cls'), architecture.numRegisters > 0 ? p.get('registers') : undefined, p.get('position'));
  const blocks: Tensor[] = [];
  for (let i = 0; i <= config.taps.at(-1)!; i++) {
    blocks.push(scope(`encoder.${i}`, () => encoderBlock(blocks.at(-1) ?? tokens, (name) => p.get(`${i}.${name}`), architecture)));
  }
  const taps = config.taps.map((t) => blocks[t]!);
  const prefix = 1 + architecture.numRegisters;
  const groups = scope('encoder', () => config.encoderGroups.map((group) => meanOfTokens(group.map((t) => taps[t]!), prefix)));
  const fused = groupsPartitionTaps(config) ? fuseGroups(groups, config) : meanOfTokens(taps, prefix);
  return { groups, fused, tokens, blocks };
}

function encoderBlock(x: Tensor, p: (name: string) => Tensor, { width: c, numHeads, layerScale: hasLayerScale }: DetectorConfig['architecture']): Tensor {
  const scaled = (y: Tensor, name: string) => (hasLayerScale ? layerScale(y, p(name)) : y);
  const qkv = linear(layerNorm(x, p('norm1.weight'), p('norm1.bias'), encoderEpsilon), p('qkv.weight'), p('qkv.bias'));
  const attended = softmaxAttention({ query: channels(qkv, 0, c), key: channels(qkv, c, c), value: channels(qkv, 2 * c, c), numHeads });
  const h = add(x, scaled(linear(attended, p('proj.weight'), p('proj.bias')), 'scale1'));
  const hidden = gelu(linear(layerNorm(h, p('norm2.weight'), p('norm2.bias'), encoderEpsilon), p('fc1.weight'), p('fc1.bias')));
  return add(h, scaled(linear(hidden, p('fc2.weight'), p('fc2.bias')), 'scale2'));
}

/** x from the groups alone, where they partition the taps: their mean, weighted by the number of taps in each. */
export function fuseGroups(groups: readonly Tensor[], config: DetectorConfig): Tensor {
  const counts = config.encoderGroups.map((g) => g.length);
  const divisor = counts.reduce(greatestCommonDivisor);
  return scope('encoder', () => meanOfTokens(groups.flatMap((g, i) => Array<Tensor>(counts[i]! / divisor).fill(g)), 0));
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** The parameters' values: q, k, v stacked, the position embedding interpolated (in f64) to the crop's grid. */
export function encoderParameters(weights: EncoderWeights, config: DetectorConfig): Map<string, Float32Array> {
  const tensor = (name: string): Float32Array => {
    const found = weights.tensors.get(name);
    if (!found) throw new UsageError(`The encoder ${weights.name} has no tensor ${name}.`);
    return found.data;
  };
  const values = new Map<string, Float32Array>([
    ['patch.weight', tensor('embeddings.patch_embeddings.projection.weight')],
    ['patch.bias', tensor('embeddings.patch_embeddings.projection.bias')],
    ['cls', tensor('embeddings.cls_token')],
    ['position', interpolatePosition(tensor('embeddings.position_embeddings'), config)],
  ]);
  if (config.architecture.numRegisters > 0) values.set('registers', tensor('embeddings.register_tokens'));
  for (let i = 0; i <= config.taps.at(-1)!; i++) {
    const layer = `encoder.layer.${i}`;
    const parts = (kind: string) => ['query', 'key', 'value'].map((part) => tensor(`${layer}.attention.attention.${part}.${kind}`));
    for (const kind of ['weight', 'bias']) {
      values.set(`${i}.norm1.${kind}`, tensor(`${layer}.norm1.${kind}`));
      values.set(`${i}.norm2.${kind}`, tensor(`${layer}.norm2.${kind}`));
      values.set(`${i}.qkv.${kind}`, concatenate(parts(kind)));
      values.set(`${i}.proj.${kind}`, tensor(`${layer}.attention.output.dense.${kind}`));
      values.set(`${i}.fc1.${kind}`, tensor(`${layer}.mlp.fc1.${kind}`));
      values.set(`${i}.fc2.${kind}`, tensor(`${layer}.mlp.fc2.${kind}`));
    }
    if (config.architecture.layerScale) {
      values.set(`${i}.scale1`, tensor(`${layer}.layer_scale1.lambda1`));
      values.set(`${i}.scale2`, tensor(`${layer}.layer_scale2.lambda1`));
    }
  }
  return values;
}

/** [1, 1 + g*g', C] to [1, 1 + N, C]: bicubic with INP-Former's offset 0.1; the class token's entry is untouched. */
export function interpolatePosition(position: Float32Array, config: DetectorConfig): Float32Array {
  const { width: c, positionGrid: [gridRows, gridColumns] } = config.architecture;
  const { rows, columns } = tokenGrid(config);
  const grid = constant('position grid', [1, gridRows, gridColumns, c], position.slice(c));
  const resized = reshape(resample2d(grid, { outHeight: rows, outWidth: columns, kind: 'bicubic', channelsLast: true }), [rows * columns, c]);
  const [values] = interpret([resized], new Map());
  return concatenate([position.subarray(0, c), Float32Array.from(values!)]);
}

function concatenate(parts: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
