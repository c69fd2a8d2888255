/**
 * The layers that encoder and trained part are made of, each a few ONNX operators in the form that runtimes know best:
 * x W + b as MatMul and Add with W stored [in, out], the exact GELU by Erf, attention by heads as 4-D matrix products.
 */
import type { OnnxGraph, Value } from './onnx-graph.ts';

/** A float tensor of the model's. */
export interface ModelTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Row-major. */
  readonly data: Float32Array;
}

/** Parameters of a linear map (weight [out, in]) or of a layer norm. */
export interface Affine {
  readonly weight: ModelTensor;
  readonly bias: ModelTensor;
}

/** x W^T + b; the graph has W transposed, and says so in its name. */
export function linear(g: OnnxGraph, x: Value, { weight, bias }: Affine): Value {
  const [out, into] = weight.shape as [number, number];
  const matrix = g.tensor({ name: `${weight.name}.transposed`, shape: [into, out], data: transposed(weight.data, out, into) });
  return g.apply('Add', [g.apply('MatMul', [x, matrix]), g.tensor(bias)]);
}

export function layerNorm(g: OnnxGraph, x: Value, { weight, bias }: Affine, epsilon: number): Value {
  return g.apply('LayerNormalization', [x, g.tensor(weight), g.tensor(bias)], { axis: -1, epsilon: { float: epsilon } });
}

/** fc2(gelu(fc1 x)) */
export function mlp(g: OnnxGraph, x: Value, fc1: Affine, fc2: Affine): Value {
  return g.scope('mlp', () => linear(g, gelu(g, linear(g, x, fc1)), fc2));
}

/** x/2 (1 + erf(x / sqrt 2)), operators in the order that runtimes recognise and fuse. */
function gelu(g: OnnxGraph, x: Value): Value {
  const erf = g.apply('Erf', [g.apply('Div', [x, g.scalar(Math.SQRT2)])]);
  return g.apply('Mul', [g.apply('Mul', [x, g.apply('Add', [erf, g.scalar(1)])]), g.scalar(0.5)]);
}

/** x [B, tokens, parts C] in `parts` pieces by channels, each with its heads apart: [B, tokens, heads, C / heads]. */
export function splitHeads(g: OnnxGraph, x: Value, parts: number, width: number, numHeads: number): Value[] {
  const pieces = parts === 1 ? [x] : g.applyForMany('Split', [x, g.integers(Array<number>(parts).fill(width))], { axis: -1 }, parts);
  return pieces.map((piece) => g.apply('Reshape', [piece, g.integers([0, 0, numHeads, width / numHeads])]));
}

/** What an attention is computed from, each [B, tokens, heads, d]. */
export interface AttentionInputs {
  readonly query: Value;
  readonly key: Value;
  readonly value: Value;
}

/** softmax(q k^T d^-1/2) v, [B, Nq, C]. */
export function softmaxAttention(g: OnnxGraph, { query, key, value }: AttentionInputs, width: number, numHeads: number): Value {
  const scaled = g.apply('Mul', [query, g.scalar(1 / Math.sqrt(width / numHeads))]);
  return weightedSum(g, g.apply('Softmax', [products(g, scaled, key)], { axis: -1 }), value, width);
}

/** max(0, learnScale cos(q, k)) v, [B, Nq, C]: the INP-guided decoder's. */
export function prototypeAttention(g: OnnxGraph, { query, key, value }: AttentionInputs, learnScale: ModelTensor, width: number): Value {
  const cosines = products(g, normalize(g, query), normalize(g, key));
  return weightedSum(g, g.apply('Relu', [g.apply('Mul', [cosines, g.tensor(learnScale)])]), value, width);
}

/** q k^T, [B, heads, Nq, Nk]. */
function products(g: OnnxGraph, query: Value, key: Value): Value {
  return g.apply('MatMul', [g.apply('Transpose', [query], { perm: [0, 2, 1, 3] }), g.apply('Transpose', [key], { perm: [0, 2, 3, 1] })]);
}

/** a v with the heads joined again, [B, Nq, C]. */
function weightedSum(g: OnnxGraph, weights: Value, value: Value, width: number): Value {
  const sums = g.apply('MatMul', [weights, g.apply('Transpose', [value], { perm: [0, 2, 1, 3] })]);
  return g.apply('Reshape', [g.apply('Transpose', [sums], { perm: [0, 2, 1, 3] }), g.integers([0, 0, width])]);
}

/** x over its norm along the last axis, with the floor of PyTorch's F.normalize. */
function normalize(g: OnnxGraph, x: Value): Value {
  return g.apply('Div', [x, flooredNorm(g, x, 1e-12, 1)]);
}

/** Norms along the last axis, at least `floor`. */
export function flooredNorm(g: OnnxGraph, x: Value, floor: number, keepdims: 0 | 1): Value {
  return g.apply('Clip', [g.apply('ReduceL2', [x], { axes: [-1], keepdims }), g.scalar(floor)]);
}

export function mean(g: OnnxGraph, values: readonly Value[]): Value {
  return values.length === 1 ? values[0]! : g.apply('Div', [values.reduce((sum, value) => g.apply('Add', [sum, value])), g.scalar(values.length)]);
}

/** A row-major matrix the other way round. */
export function transposed(data: Float32Array, rows: number, columns: number): Float32Array {
  const result = new Float32Array(data.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) result[c * rows + r] = data[r * columns + c]!;
  return result;
}
