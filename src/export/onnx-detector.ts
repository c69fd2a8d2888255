/**
 * The detector from image to score as ONNX operators, written plainly: what model/encoder.ts, model/detector.ts and
 * model/scoring.ts say with this engine's operations, with those of operator set 17. No shape depends on the batch, so
 * it stays open. What does not depend on the image is computed here: class token, registers and interpolated position
 * embedding are one constant, and the map's upsampling, resizing and blur, all linear and separable, are one matrix for
 * each axis.
 */
import { toSize, type Size } from '../data/preprocess.ts';
import { UsageError } from '../errors.ts';
import { encoderEpsilon, headEpsilon, tokenGrid, type DetectorConfig } from '../model/config.ts';
import { interpolatePosition } from '../model/encoder.ts';
import { headToMap } from '../model/fused-scoring.ts';
import { headLayers, trainableShapes } from '../model/parameters.ts';
import { scoredFraction, tokensToMap } from '../model/scoring.ts';
import type { TapTable } from '../ops/resample-taps.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import { OnnxGraph, type Value } from './onnx-graph.ts';
import { flooredNorm, layerNorm, linear, mean, mlp, prototypeAttention, softmaxAttention, splitHeads, transposed, type Affine, type ModelTensor } from './onnx-layers.ts';

export interface DetectorGraphOptions {
  readonly config: DetectorConfig;
  readonly encoder: EncoderWeights;
  /** The trained tensors under the model file's names. */
  readonly trained: ReadonlyMap<string, Float32Array>;
  readonly mapSize: Size;
}

type Tensors = (name: string) => ModelTensor;

/** From the input `image` [B, 3, H, W] to the outputs `map` [B, 1, H', W'] and `score` [B]. */
export function detectorGraph({ config, encoder, trained, mapSize }: DetectorGraphOptions): OnnxGraph {
  const g = new OnnxGraph();
  const frozen: Tensors = (name) => {
    const tensor = encoder.tensors.get(name);
    if (!tensor) throw new UsageError(`The encoder ${encoder.name} has no tensor ${name}.`);
    return { name, ...tensor };
  };
  const shapes = trainableShapes(config);
  const learned: Tensors = (name) => ({ name, shape: shapes.get(name)!, data: trained.get(name)! });
  const { groups, fused } = encode(g, frozen, config);
  const prototypes = extractPrototypes(g, fused, learned, config);
  const reconstructions = decode(g, fused, prototypes, learned, config);
  score(g, groups.map((en, i) => ({ en, de: reconstructions[i]! })), learned, config, mapSize);
  return g;
}

/** en_g [B, N, C] of each group, and x [B, N, C], the mean over all taps. */
function encode(g: OnnxGraph, tensor: Tensors, config: DetectorConfig): { groups: Value[]; fused: Value } {
  const blocks: Value[] = [];
  for (let i = 0; i <= config.taps.at(-1)!; i++) {
    const x = blocks.at(-1) ?? g.scope('embeddings', () => embed(g, tensor, config));
    blocks.push(g.scope(`encoder.layer.${i}`, () => encoderBlock(g, x, (name) => tensor(`encoder.layer.${i}.${name}`), config)));
  }
  const taps = config.taps.map((t) => blocks[t]!);
  // Class and register tokens are dropped after the mean.
  const prefix = 1 + config.architecture.numRegisters;
  const patches = (tokens: Value) => g.apply('Slice', [tokens, g.integers([prefix]), g.integers([prefix + tokenGrid(config).count]), g.integers([1])]);
  return {
    groups: config.encoderGroups.map((group, i) => g.scope(`encoder.group.${i}`, () => patches(mean(g, group.map((t) => taps[t]!))))),
    fused: g.scope('encoder.fused', () => patches(mean(g, taps))),
  };
}

/** Tokens before the first block, [B, 1 + R + N, C]. */
function embed(g: OnnxGraph, tensor: Tensors, config: DetectorConfig): Value {
  const { width: c, patchSize, numRegisters } = config.architecture;
  const { count } = tokenGrid(config);
  const projection = (kind: string) => g.tensor(tensor(`embeddings.patch_embeddings.projection.${kind}`));
  const grid = g.apply('Conv', ['image', projection('weight'), projection('bias')], { kernel_shape: [patchSize, patchSize], strides: [patchSize, patchSize] });
  const patches = g.apply('Transpose', [g.apply('Reshape', [grid, g.integers([0, c, count])])], { perm: [0, 2, 1] });

  // Class token + position, registers without one, positions: added to the patches behind as many zeros.
  const prefix = 1 + numRegisters;
  const position = interpolatePosition(tensor('embeddings.position_embeddings').data, config);
  const data = new Float32Array((prefix + count) * c);
  data.set(tensor('embeddings.cls_token').data.map((value, i) => value + position[i]!));
  if (numRegisters > 0) data.set(tensor('embeddings.register_tokens').data, c);
  data.set(position.subarray(c), prefix * c);
  const padded = g.apply('Pad', [patches, g.integers([0, prefix, 0, 0, 0, 0])]);
  return g.apply('Add', [padded, g.tensor({ name: 'embeddings.prefix_and_positions', shape: [1, prefix + count, c], data })]);
}

function encoderBlock(g: OnnxGraph, x: Value, tensor: Tensors, { architecture: { width, numHeads, layerScale } }: DetectorConfig): Value {
  const scaled = (y: Value, name: string) => (layerScale ? g.apply('Mul', [y, g.tensor(tensor(name))]) : y);
  const attended = g.scope('attention', () => {
    const qkv = linear(g, layerNorm(g, x, affine(tensor, 'norm1'), encoderEpsilon), stackedQkv(tensor));
    const [query, key, value] = splitHeads(g, qkv, 3, width, numHeads) as [Value, Value, Value];
    return linear(g, softmaxAttention(g, { query, key, value }, width, numHeads), affine(tensor, 'attention.output.dense'));
  });
  const h = g.apply('Add', [x, scaled(attended, 'layer_scale1.lambda1')]);
  const hidden = mlp(g, layerNorm(g, h, affine(tensor, 'norm2'), encoderEpsilon), affine(tensor, 'mlp.fc1'), affine(tensor, 'mlp.fc2'));
  return g.apply('Add', [h, scaled(hidden, 'layer_scale2.lambda1')]);
}

/** Query, key and value of an encoder's block as one linear map, [3 C, C], named `attention.attention.qkv`. */
function stackedQkv(tensor: Tensors): Affine {
  const stack = (kind: 'weight' | 'bias'): ModelTensor => {
    const parts = ['query', 'key', 'value'].map((part) => tensor(`attention.attention.${part}.${kind}`));
    const [{ name, shape: [rows, ...rest], data: { length } }] = parts as [ModelTensor, ...ModelTensor[]];
    const data = new Float32Array(3 * length);
    parts.forEach((part, i) => data.set(part.data, i * length));
    return { name: name.replace('query', 'qkv'), shape: [3 * rows!, ...rest], data };
  };
  return { weight: stack('weight'), bias: stack('bias') };
}

/** The INP extractor: from x [B, N, C] to the image's prototypes [B, M, C]. */
function extractPrototypes(g: OnnxGraph, x: Value, tensor: Tensors, config: DetectorConfig): Value {
  const { width, numHeads } = config.architecture;
  // [1, M, C] until the first attention to an image's tokens.
  const tokens = tensor('prototype_token');
  let t = g.tensor({ ...tokens, shape: [1, ...tokens.shape] });
  for (let i = 0; i < config.extractorDepth; i++) {
    const p = (name: string) => affine(tensor, `aggregation.${i}.${name}`);
    t = g.scope(`aggregation.${i}`, () => {
      const attended = g.scope('attn', () => {
        // One norm1 for tokens and features alike.
        const [query] = splitHeads(g, linear(g, layerNorm(g, t, p('norm1'), headEpsilon), p('attn.q')), 1, width, numHeads) as [Value];
        const [key, value] = splitHeads(g, linear(g, layerNorm(g, x, p('norm1'), headEpsilon), p('attn.kv')), 2, width, numHeads) as [Value, Value];
        return linear(g, softmaxAttention(g, { query, key, value }, width, numHeads), p('attn.proj'));
      });
      const h = g.apply('Add', [t, attended]);
      return g.apply('Add', [h, mlp(g, layerNorm(g, h, p('norm2'), headEpsilon), p('mlp.fc1'), p('mlp.fc2'))]);
    });
  }
  return t;
}

/** Bottleneck and INP-guided decoder: de_g [B, N, C] of each group, from x [B, N, C] and the prototypes. */
function decode(g: OnnxGraph, x: Value, prototypes: Value, tensor: Tensors, config: DetectorConfig): Value[] {
  const { width, numHeads } = config.architecture;
  let y = g.scope('bottleneck.0', () => mlp(g, x, affine(tensor, 'bottleneck.0.fc1'), affine(tensor, 'bottleneck.0.fc2')));
  const outputs: Value[] = [];
  for (let i = 0; i < config.decoderDepth; i++) {
    const p = (name: string) => affine(tensor, `decoder.${i}.${name}`);
    y = g.scope(`decoder.${i}`, () => {
      const attended = g.scope('attn', () => {
        const [query] = splitHeads(g, linear(g, layerNorm(g, y, p('norm1'), headEpsilon), p('attn.q')), 1, width, numHeads) as [Value];
        const [key, value] = splitHeads(g, linear(g, layerNorm(g, prototypes, p('norm1'), headEpsilon), p('attn.kv')), 2, width, numHeads) as [Value, Value];
        return linear(g, prototypeAttention(g, { query, key, value }, tensor(`decoder.${i}.attn.learn_scale`), width), p('attn.proj'));
      });
      // A residual around the attention would let anomalous features through: only an ablation has it.
      const kept = config.residual ? g.apply('Add', [y, attended]) : attended;
      return g.apply('Add', [kept, mlp(g, layerNorm(g, kept, p('norm2'), headEpsilon), p('mlp.fc1'), p('mlp.fc2'))]);
    });
    outputs.push(y);
  }
  const reversed = outputs.reverse();
  return config.decoderGroups.map((group, i) => g.scope(`decoder.group.${i}`, () => mean(g, group.map((position) => reversed[position]!))));
}

interface FeatureGroup {
  readonly en: Value;
  readonly de: Value;
}

/** The outputs `map` and `score`, from en_g and de_g [B, N, C] of each group. */
function score(g: OnnxGraph, groups: readonly FeatureGroup[], tensor: Tensors, config: DetectorConfig, mapSize: Size): void {
  const { rows, columns } = tokenGrid(config);
  const { crop } = config;
  const map = toSize(mapSize);
  g.scope('score', () => {
    const distances = groups.map(({ en, de }) => {
      const products = g.apply('ReduceSum', [g.apply('Mul', [en, de]), g.integers([-1])], { keepdims: 0 });
      // The floor of PyTorch's CosineSimilarity.
      const norms = [en, de].map((x) => flooredNorm(g, x, 1e-8, 0));
      return g.apply('Sub', [g.scalar(1), g.apply('Div', [products, g.apply('Mul', norms)])]);
    });
    const tokens = g.apply('Reshape', [tokenMap(g, groups, distances, config), g.integers([-1, 1, rows, columns])]);
    const toMap = (name: string, grid: Value, vertical: TapTable, horizontal: TapTable, output?: string): Value => {
      const down = g.tensor({ name: `score.${name}vertical`, shape: [map.height, vertical.inputSize], data: matrixOf(vertical) });
      const across = g.tensor({ name: `score.${name}horizontal`, shape: [horizontal.inputSize, map.width], data: transposed(matrixOf(horizontal), map.width, horizontal.inputSize) });
      return g.apply('MatMul', [g.apply('MatMul', [down, grid]), across], {}, output);
    };
    const ways: [TapTable, TapTable] = [tokensToMap(rows, crop.height, map.height), tokensToMap(columns, crop.width, map.width)];
    if (!config.segmentationHead) toMap('', tokens, ...ways, 'map');
    else {
      const probability = segment(g, groups, distances, tensor, config);
      const segmented = toMap('head.', probability, headToMap(4 * rows, crop.height, map.height), headToMap(4 * columns, crop.width, map.width));
      g.apply('Mul', [g.apply('Add', [toMap('', tokens, ...ways), segmented]), g.scalar(0.5)], {}, 'map');
    }
    const count = Math.max(1, Math.floor(scoredFraction * map.height * map.width));
    const [highest] = g.applyForMany('TopK', [g.apply('Reshape', ['map', g.integers([0, -1])]), g.integers([count])], { axis: -1, largest: 1, sorted: 0 }, 2) as [Value, Value];
    g.apply('ReduceMean', [highest], { axes: [-1], keepdims: 0 }, 'score');
  });
}

/** The reconstruction's map on the tokens' grid, [B, N]. */
function tokenMap(g: OnnxGraph, groups: readonly FeatureGroup[], distances: readonly Value[], config: DetectorConfig): Value {
  const cosine = mean(g, distances);
  if (config.distance === 'cosine') return cosine;
  const errors = groups.map(({ en, de }) => {
    const meanSquare = (x: Value, axes: number[], keepdims: 0 | 1) => g.apply('ReduceMean', [g.apply('Mul', [x, x])], { axes, keepdims });
    const error = meanSquare(g.apply('Sub', [en, de]), [-1], 0);
    // Over twice the mean square of the image's features.
    const energy = g.apply('Squeeze', [meanSquare(en, [1, 2], 1), g.integers([-1])]);
    return g.apply('Div', [g.apply('Mul', [error, g.scalar(0.5)]), energy]);
  });
  return g.apply('Mul', [g.apply('Add', [cosine, mean(g, errors)]), g.scalar(0.5)]);
}

/** The segmentation head on the residuals (1 - cos) |en - de|: probabilities [B, 1, 4 rows, 4 columns]. */
function segment(g: OnnxGraph, groups: readonly FeatureGroup[], distances: readonly Value[], tensor: Tensors, config: DetectorConfig): Value {
  const { rows, columns } = tokenGrid(config);
  return g.scope('head', () => {
    const residuals = groups.map(({ en, de }, i) =>
      g.apply('Mul', [g.apply('Abs', [g.apply('Sub', [en, de])]), g.apply('Unsqueeze', [distances[i]!, g.integers([-1])])]));
    const channelsFirst = g.apply('Transpose', [mean(g, residuals)], { perm: [0, 2, 1] });
    let x = g.apply('Reshape', [channelsFirst, g.integers([0, config.architecture.width, rows, columns])]);
    for (const [i, { kernel, stride, padding }] of headLayers.entries()) {
      const { name, shape: [inputs, , , outputs], data } = tensor(`head.${i}.weight`) as ModelTensor & { shape: [number, number, number, number] };
      // [in, k, k, out] to ONNX's [in, out, k, k].
      const size = kernel ** 2 * outputs;
      const outputsFirst = new Float32Array(data.length);
      for (let c = 0; c < inputs; c++) outputsFirst.set(transposed(data.subarray(c * size, (c + 1) * size), kernel ** 2, outputs), c * size);
      const weight = g.tensor({ name: `${name}.transposed`, shape: [inputs, outputs, kernel, kernel], data: outputsFirst });
      const y = g.apply('ConvTranspose', [x, weight, g.tensor(tensor(`head.${i}.bias`))], { kernel_shape: [kernel, kernel], strides: [stride, stride], pads: [padding, padding, padding, padding] });
      x = g.apply(i < headLayers.length - 1 ? 'Relu' : 'Sigmoid', [y]);
    }
    return x;
  });
}

/** A table as a matrix [outputs, inputs]. */
function matrixOf({ inputSize, outputSize, width, index, weight }: TapTable): Float32Array {
  const matrix = new Float64Array(outputSize * inputSize);
  for (let at = 0; at < width * outputSize; at++) matrix[(at % outputSize) * inputSize + index[at]!]! += weight[at]!;
  return Float32Array.from(matrix);
}

function affine(tensor: Tensors, name: string): Affine {
  return { weight: tensor(`${name}.weight`), bias: tensor(`${name}.bias`) };
}
