/**
 * What INP-Former++ takes from two token maps besides their cosines: the mean squared difference of each token, its
 * gradient, and the residual that the segmentation head sees. A token is read by a team of 8 lanes, as for the cosines.
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { groupGrid, lanes, linearGrid } from './common.wgsl.ts';
import { rowAccess, teamLanes, teams } from './cosine.wgsl.ts';

interface Size {
  readonly label: string;
  readonly tokens: number;
  readonly channels: number;
  readonly target: Target;
}

interface Compiled {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

/** y[t] = mean over channels of (a - b)^2; bindings a, b, y. */
export function tokenSquaredErrorKernel(p: Size): Compiled {
  const { type, columns, total } = rowAccess(p.channels);
  const grid = groupGrid(Math.ceil(p.tokens / teams), p.target);
  const source = kernel('squared-error.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> a: array<${type}>;
@group(0) @binding(1) var<storage, read> b: array<${type}>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
var<workgroup> sums: array<f32, ${lanes}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  let token = group * ${teams}u + lane / ${teamLanes}u;
  var part = ${type}();
  if (token < ${p.tokens}u) {
    for (var c = lane % ${teamLanes}u; c < ${columns}u; c += ${teamLanes}u) {
      let difference = a[token * ${columns}u + c] - b[token * ${columns}u + c];
      part += difference * difference;
    }
  }
  sums[lane] = ${total('part')};
  workgroupBarrier();
  let result = group * ${teams}u + lane;
  if (lane >= ${teams}u || result >= ${p.tokens}u) { return; }
  var sum = 0.0f;
  for (var l = 0u; l < ${teamLanes}u; l++) { sum += sums[lane * ${teamLanes}u + l]; }
  y[result] = sum * ${f32(1 / p.channels)};
}
`);
  return { source, workgroups: grid.workgroups };
}

/** y = 2/C g[t] (x - other): the gradient of {@link tokenSquaredErrorKernel} by x; bindings g, x, other, y. */
export function tokenSquaredErrorGradientKernel(p: Size): Compiled {
  const { type, columns } = rowAccess(p.channels);
  const grid = linearGrid(p.tokens * columns, p.target);
  const source = kernel('squared-error.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<${type}>;
@group(0) @binding(2) var<storage, read> other: array<${type}>;
@group(0) @binding(3) var<storage, read_write> y: array<${type}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  y[i] = ${f32(2 / p.channels)} * g[i / ${columns}u] * (x[i] - other[i]);
}
`);
  return { source, workgroups: grid.workgroups };
}

/** y = distance[t] |a - b| for each channel; bindings a, b, distance, y. */
export function residualKernel(p: Size): Compiled {
  const { type, columns } = rowAccess(p.channels);
  const grid = linearGrid(p.tokens * columns, p.target);
  const source = kernel('squared-error.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> a: array<${type}>;
@group(0) @binding(1) var<storage, read> b: array<${type}>;
@group(0) @binding(2) var<storage, read> distance: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<${type}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  y[i] = distance[i / ${columns}u] * abs(a[i] - b[i]);
}
`);
  return { source, workgroups: grid.workgroups };
}
