/**
 * Kernels over flat groups of tensors. A table cuts every segment (tensor) into blocks of at most 4096 elements, one
 * workgroup each, so that one dispatch serves all tensors, and the padding between them is never touched.
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { groupGrid, lanes, linearGrid, reduceSum } from './common.wgsl.ts';

/** Elements that one workgroup handles at most. */
export const blockLength = 4096;

interface Compiled {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

/** y[offset + i] = x[i]; bindings x, y. */
/** y[offset + i] = x[from + i], whatever the elements are. */
export function copyKernel(p: { label: string; count: number; offset?: number; from?: number; target: Target }): Compiled {
  const grid = linearGrid(p.count, p.target);
  const source = kernel('optimizer.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  y[${p.offset ?? 0}u + i] = x[${p.from ?? 0}u + i];
}
`);
  return { source, workgroups: grid.workgroups };
}

/** Writes 0 to what follows the first `length` elements of each of the `rows` rows. */
export function clearGapsKernel(p: { label: string; rows: number; length: number; stride: number; target: Target }): Compiled {
  const gap = p.stride - p.length;
  const grid = linearGrid(p.rows * gap, p.target);
  const source = kernel('optimizer.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  y[(i / ${gap}u) * ${p.stride}u + ${p.length}u + i % ${gap}u] = 0u;
}
`);
  return { source, workgroups: grid.workgroups };
}

/** What every kernel over blocks begins with. A row of the table is a block's start, its length and its segment. */
const readBlock = `
  let start = blocks[3u * group];
  let length = blocks[3u * group + 1u];`;

/** partial[base + block] = sum of x^2 over the block; bindings x, blocks, partial. */
export function squaresKernel(p: { label: string; blocks: number; base: number; target: Target }): Compiled {
  const grid = groupGrid(p.blocks, p.target);
  const source = kernel('optimizer.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> blocks: array<u32>;
@group(0) @binding(2) var<storage, read_write> partial_squares: array<f32>;
${reduceSum}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  ${readBlock}
  var squares = 0.0f;
  for (var j = lane; j < length; j += ${lanes}u) { squares += x[start + j] * x[start + j]; }
  let sum = reduceSum(lane, squares);
  if (lane == 0u) { partial_squares[${p.base}u + group] = sum; }
}
`);
  return { source, workgroups: grid.workgroups };
}

/** What the optimiser's kernels have built in. */
export interface AdamConstants {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  readonly clipNorm: number;
  readonly clipThreshold: number;
}

/** sqrt(max v) / sqrt(1 - beta2^t) + epsilon; schedule[2] is the second root. */
const denominator = (epsilon: number) => `sqrt(maxSecond[i]) / schedule[2] + ${f32(epsilon)}`;

/**
 * m, v and max v from the clipped gradient, and the block's sum of (g / denominator)^2; bindings gradients, norm,
 * schedule, blocks, m, v, max v, partial. A square that underflows is harmless: epsilon is all of the denominator then.
 */
export function momentsKernel(p: { label: string; blocks: number; constants: AdamConstants; target: Target }): Compiled {
  const { beta1, beta2, epsilon, clipNorm } = p.constants;
  const grid = groupGrid(p.blocks, p.target);
  const source = kernel('optimizer.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> gradients: array<f32>;
@group(0) @binding(1) var<storage, read> norm: array<f32>;
@group(0) @binding(2) var<storage, read> schedule: array<f32>;
@group(0) @binding(3) var<storage, read> blocks: array<u32>;
@group(0) @binding(4) var<storage, read_write> first: array<f32>;
@group(0) @binding(5) var<storage, read_write> second: array<f32>;
@group(0) @binding(6) var<storage, read_write> maxSecond: array<f32>;
@group(0) @binding(7) var<storage, read_write> partial_squares: array<f32>;
${reduceSum}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  ${readBlock}
  let clip = min(1.0f, ${f32(clipNorm)} / (norm[0] + 1e-6f));
  var squares = 0.0f;
  for (var j = lane; j < length; j += ${lanes}u) {
    let i = start + j;
    let g = gradients[i] * clip;
    let v = ${f32(beta2)} * second[i] + ${f32(1 - beta2)} * g * g;
    first[i] = ${f32(beta1)} * first[i] + ${f32(1 - beta1)} * g;
    second[i] = v;
    maxSecond[i] = max(maxSecond[i], v);
    let ratio = g / (${denominator(epsilon)});
    squares += ratio * ratio;
  }
  let sum = reduceSum(lane, squares);
  if (lane == 0u) { partial_squares[group] = sum; }
}
`);
  return { source, workgroups: grid.workgroups };
}

/** scale[segment] = max(1, rms(g / denominator) / clipThreshold), one workgroup each; bindings partial, segments, scale. */
export function segmentScaleKernel(p: { label: string; segments: number; constants: AdamConstants; target: Target }): Compiled {
  const grid = groupGrid(p.segments, p.target);
  const source = kernel('optimizer.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> partial_squares: array<f32>;
@group(0) @binding(1) var<storage, read> segments: array<u32>;
@group(0) @binding(2) var<storage, read_write> scale: array<f32>;
${reduceSum}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  let firstBlock = segments[3u * group];
  let blockCount = segments[3u * group + 1u];
  var squares = 0.0f;
  for (var j = lane; j < blockCount; j += ${lanes}u) { squares += partial_squares[firstBlock + j]; }
  let sum = reduceSum(lane, squares);
  if (lane == 0u) { scale[group] = max(1.0f, sqrt(sum / f32(segments[3u * group + 2u])) / ${f32(p.constants.clipThreshold)}); }
}
`);
  return { source, workgroups: grid.workgroups };
}

/**
 * Weight decay and step; bindings schedule, blocks, scale, p, m, max v. The moments are only read, but they are bound
 * for writing so that the caller may keep them in one buffer with p (WebGPU refuses mixed access to a buffer).
 */
export function updateKernel(p: { label: string; blocks: number; constants: AdamConstants; target: Target }): Compiled {
  const { epsilon, weightDecay } = p.constants;
  const grid = groupGrid(p.blocks, p.target);
  const source = kernel('optimizer.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> schedule: array<f32>;
@group(0) @binding(1) var<storage, read> blocks: array<u32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read_write> values: array<f32>;
@group(0) @binding(4) var<storage, read_write> first: array<f32>;
@group(0) @binding(5) var<storage, read_write> maxSecond: array<f32>;
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  ${readBlock}
  let decay = schedule[0] * ${f32(weightDecay)};
  let step = schedule[0] / schedule[1] / scale[blocks[3u * group + 2u]];
  for (var j = lane; j < length; j += ${lanes}u) {
    let i = start + j;
    values[i] = values[i] - (decay * values[i] + step * (first[i] / (${denominator(epsilon)})));
  }
}
`);
  return { source, workgroups: grid.workgroups };
}
