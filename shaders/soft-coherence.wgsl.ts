/**
 * softmax over the prototypes, one invocation a token: they are few, so a row is read twice rather than kept. Distances
 * lie between 0 and 2, so that exp(-distance) neither overflows nor vanishes and no maximum has to be taken off first.
 */
import type { Target } from '../src/gpu/target.ts';
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { lanes, linearGrid } from './common.wgsl.ts';

interface Size {
  readonly label: string;
  readonly rows: number;
  /** Prototypes. */
  readonly columns: number;
  readonly target: Target;
}

interface Compiled {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

/** w[row, m] = exp(-d[row, m]) / sum; bindings d, w. */
export function softAssignmentKernel(p: Size): Compiled {
  const grid = linearGrid(p.rows, p.target);
  const source = kernel('soft-coherence.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> distance: array<f32>;
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let first = i * ${p.columns}u;
  var sum = 0.0f;
  for (var m = 0u; m < ${p.columns}u; m++) { sum += exp(-distance[first + m]); }
  let scale = 1.0f / sum;
  for (var m = 0u; m < ${p.columns}u; m++) { weight[first + m] = exp(-distance[first + m]) * scale; }
}
`);
  return { source, workgroups: grid.workgroups };
}

/** y[row, m] = w_m (sum_k g_k w_k - g_m): the gradient by the distances; bindings g, w, y. */
export function softAssignmentGradientKernel(p: Size): Compiled {
  const grid = linearGrid(p.rows, p.target);
  const source = kernel('soft-coherence.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let first = i * ${p.columns}u;
  var average = 0.0f;
  for (var m = 0u; m < ${p.columns}u; m++) { average += g[first + m] * weight[first + m]; }
  for (var m = 0u; m < ${p.columns}u; m++) { y[first + m] = weight[first + m] * (average - g[first + m]); }
}
`);
  return { source, workgroups: grid.workgroups };
}
