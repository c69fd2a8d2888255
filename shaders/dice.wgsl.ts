/**
 * The three sums of a Dice loss, in chunks: one workgroup a chunk of an image, and a second dispatch for what is left to
 * add, so that a large map does not lie on one workgroup and the order of the sums is fixed.
 */
import type { Target } from '../src/gpu/target.ts';
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { groupGrid, lanes, linearGrid, reduceSum } from './common.wgsl.ts';
import { chunkLength } from './reduction.wgsl.ts';

export interface DiceSize {
  readonly label: string;
  readonly images: number;
  readonly pixels: number;
  /** The denominator has p^2 and t^2 instead of p and t. */
  readonly squared: boolean;
  readonly target: Target;
}

interface Compiled {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

/** Keeps 0 / 0 out of images without any defect: added above and below. */
export const diceSmoothing = 1;

export const diceChunks = (pixels: number): number => Math.ceil(pixels / chunkLength);

/** partial[image, chunk] = (sum of p t, sum of p or p^2, sum of t or t^2); bindings p, t, partial. */
export function dicePartialKernel(d: DiceSize): Compiled {
  const chunks = diceChunks(d.pixels);
  const grid = groupGrid(d.images * chunks, d.target);
  const source = kernel('dice.wgsl.ts', d.label, wgsl`
@group(0) @binding(0) var<storage, read> p: array<f32>;
@group(0) @binding(1) var<storage, read> t: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;
${reduceSum}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  let image = group / ${chunks}u * ${d.pixels}u;
  let first = group % ${chunks}u * ${chunkLength}u;
  let end = min(${d.pixels}u, first + ${chunkLength}u);
  var both = 0.0f;
  var predicted = 0.0f;
  var truth = 0.0f;
  for (var i = first + lane; i < end; i += ${lanes}u) {
    let a = p[image + i];
    let b = t[image + i];
    both += a * b;
    predicted += ${d.squared ? 'a * a' : 'a'};
    truth += ${d.squared ? 'b * b' : 'b'};
  }
  let bothSum = reduceSum(lane, both);
  let predictedSum = reduceSum(lane, predicted);
  let truthSum = reduceSum(lane, truth);
  if (lane == 0u) {
    sums[group * 3u] = bothSum;
    sums[group * 3u + 1u] = predictedSum;
    sums[group * 3u + 2u] = truthSum;
  }
}
`);
  return { source, workgroups: grid.workgroups };
}

/** loss[image] = 1 - numerator / denominator, and both of them; bindings partial, loss, ratio [image, 2]. */
export function diceLossKernel(d: DiceSize): Compiled {
  const chunks = diceChunks(d.pixels);
  const grid = linearGrid(d.images, d.target);
  const source = kernel('dice.wgsl.ts', d.label, wgsl`
@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read_write> loss: array<f32>;
@group(0) @binding(2) var<storage, read_write> ratio: array<f32>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  var both = 0.0f;
  var predicted = 0.0f;
  var truth = 0.0f;
  for (var c = 0u; c < ${chunks}u; c++) {
    let at = (i * ${chunks}u + c) * 3u;
    both += sums[at];
    predicted += sums[at + 1u];
    truth += sums[at + 2u];
  }
  let numerator = 2.0f * both + ${diceSmoothing}.0f;
  let denominator = predicted + truth + ${diceSmoothing}.0f;
  loss[i] = 1.0f - numerator / denominator;
  ratio[i * 2u] = numerator;
  ratio[i * 2u + 1u] = denominator;
}
`);
  return { source, workgroups: grid.workgroups };
}

/** Gradient by p: g[image] (numerator d - 2 t denominator) / denominator^2, d = 1 or 2 p; bindings g, ratio, p, t, y. */
export function diceGradientKernel(d: DiceSize): Compiled {
  const grid = linearGrid(d.images * d.pixels, d.target);
  const source = kernel('dice.wgsl.ts', d.label, wgsl`
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read> ratio: array<f32>;
@group(0) @binding(2) var<storage, read> p: array<f32>;
@group(0) @binding(3) var<storage, read> t: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let image = i / ${d.pixels}u;
  let share = ratio[image * 2u] / ratio[image * 2u + 1u];
  y[i] = g[image] * (share * ${d.squared ? '2.0f * p[i]' : '1.0f'} - 2.0f * t[i]) / ratio[image * 2u + 1u];
}
`);
  return { source, workgroups: grid.workgroups };
}
