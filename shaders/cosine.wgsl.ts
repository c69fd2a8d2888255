/**
 * Dot products and norms of token pairs, and what follows from them. A token is read by a team of 8 neighbouring lanes
 * (with vec4 that is a 128-byte line at a time), 8 tokens a workgroup; one barrier, and then one lane adds the 8
 * partial sums of each result.
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { groupGrid, lanes, linearGrid } from './common.wgsl.ts';

/** Lanes that share a token. */
export const teamLanes = 8;
/** Tokens of a workgroup. */
export const teams = lanes / teamLanes;
/** Norms are not taken smaller than this (PyTorch's cosine_similarity). */
export const normFloor = 1e-8;

interface Compiled {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

/** How a row of `channels` is read: its element type, its length in elements, and the sum over an element's components. */
export function rowAccess(channels: number): { type: 'vec4f' | 'f32'; columns: number; total(value: string): string } {
  return channels % 4 === 0
    ? { type: 'vec4f', columns: channels / 4, total: (value) => `dot(${value}, vec4f(1.0f))` }
    : { type: 'f32', columns: channels, total: (value) => value };
}

const inverseNorms = `let scale = 1.0f / (max(sqrt(aa), ${f32(normFloor)}) * max(sqrt(bb), ${f32(normFloor)}));`;
const readDots = `
  let ab = s[3u * i];
  let aa = s[3u * i + 1u];
  let bb = s[3u * i + 2u];
  ${inverseNorms}`;

/** 1 - cos, which rounding can't make negative; max() might turn NaN into 0, the best of scores. */
const writeDistance = `
  let cosineDistance = 1.0f - ab * scale;
  distance[i] = select(cosineDistance, 0.0f, cosineDistance < 0.0f);`;

/** y[t] = (a.b, |a|^2, |b|^2) of token t, distance[t] = 1 - cos; bindings a, b, y, distance. */
export function tokenCosineKernel(p: { label: string; tokens: number; channels: number; target: Target }): Compiled {
  const { type, columns, total } = rowAccess(p.channels);
  const grid = groupGrid(Math.ceil(p.tokens / teams), p.target);
  const source = kernel('cosine.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> a: array<${type}>;
@group(0) @binding(1) var<storage, read> b: array<${type}>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> distance: array<f32>;
var<workgroup> sums: array<f32, ${3 * lanes}>;
var<workgroup> dots: array<f32, ${3 * teams}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  let token = group * ${teams}u + lane / ${teamLanes}u;
  var abPart = ${type}();
  var aaPart = ${type}();
  var bbPart = ${type}();
  if (token < ${p.tokens}u) {
    for (var c = lane % ${teamLanes}u; c < ${columns}u; c += ${teamLanes}u) {
      let p = a[token * ${columns}u + c];
      let q = b[token * ${columns}u + c];
      abPart += p * q;
      aaPart += p * p;
      bbPart += q * q;
    }
  }
  sums[3u * lane] = ${total('abPart')};
  sums[3u * lane + 1u] = ${total('aaPart')};
  sums[3u * lane + 2u] = ${total('bbPart')};
  workgroupBarrier();
  let result = group * ${3 * teams}u + lane;
  if (lane < ${3 * teams}u && result < ${3 * p.tokens}u) {
    var sum = 0.0f;
    for (var l = 0u; l < ${teamLanes}u; l++) { sum += sums[(lane / 3u * ${teamLanes}u + l) * 3u + lane % 3u]; }
    y[result] = sum;
    dots[lane] = sum;
  }
  workgroupBarrier();
  if (lane >= ${teams}u || group * ${teams}u + lane >= ${p.tokens}u) { return; }
  let i = group * ${teams}u + lane;
  let ab = dots[3u * lane];
  let aa = dots[3u * lane + 1u];
  let bb = dots[3u * lane + 2u];
  ${inverseNorms}
  ${writeDistance}
}
`);
  return { source, workgroups: grid.workgroups };
}

/** y = g[t, 0] * other + 2 g[t, self] * x: the gradient of (a.b, |a|^2, |b|^2) by one of a and b; bindings g, x, other, y. */
export function tokenCosineGradientKernel(p: { label: string; tokens: number; channels: number; self: 1 | 2; target: Target }): Compiled {
  const { type, columns } = rowAccess(p.channels);
  const grid = linearGrid(p.tokens * columns, p.target);
  const source = kernel('cosine.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<${type}>;
@group(0) @binding(2) var<storage, read> other: array<${type}>;
@group(0) @binding(3) var<storage, read_write> y: array<${type}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let token = i / ${columns}u;
  y[i] = g[3u * token] * other[i] + 2.0f * g[3u * token + ${p.self}u] * x[i];
}
`);
  return { source, workgroups: grid.workgroups };
}

/** distance[i] = 1 - cos from s[i] = (a.b, |a|^2, |b|^2). Bindings s, distance. */
export function cosineDistanceKernel(p: { label: string; count: number; target: Target }): Compiled {
  const grid = linearGrid(p.count, p.target);
  const source = kernel('cosine.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> s: array<f32>;
@group(0) @binding(1) var<storage, read_write> distance: array<f32>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  ${readDots}
  ${writeDistance}
}
`);
  return { source, workgroups: grid.workgroups };
}

/** Gradient of {@link cosineDistanceKernel} by s; a norm at its floor is a constant. Bindings g, s, y. */
export function cosineDistanceGradientKernel(p: { label: string; count: number; target: Target }): Compiled {
  const grid = linearGrid(p.count, p.target);
  const floor = f32(normFloor ** 2);
  const source = kernel('cosine.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read> s: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  ${readDots}
  let half = 0.5f * g[i] * ab * scale;
  y[3u * i] = -g[i] * scale;
  y[3u * i + 1u] = select(0.0f, half / max(aa, ${floor}), aa > ${floor});
  y[3u * i + 2u] = select(0.0f, half / max(bb, ${floor}), bb > ${floor});
}
`);
  return { source, workgroups: grid.workgroups };
}
