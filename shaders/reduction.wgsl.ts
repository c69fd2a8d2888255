/**
 * Sums in a fixed order. A long array is cut into chunks of 4096, one workgroup each: 64 lanes add every 64th element,
 * then a tree adds the lanes; a second dispatch of the same kernel adds the chunks' sums.
 */
import type { Target } from '../src/gpu/target.ts';
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { groupGrid, linearGrid, lanes, reduceSum } from './common.wgsl.ts';

/** Elements that one workgroup adds in the first stage of a long sum. */
export const chunkLength = 4096;

interface Compiled {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

/** y[group] = result(sum over the group's chunk of x); bindings x, y. A chunk of `count` elements makes it one group. */
export function sumKernel(p: { label: string; count: number; chunk: number; target: Target; result(sum: string): string }): Compiled {
  const grid = groupGrid(Math.ceil(p.count / p.chunk), p.target);
  const source = kernel('reduction.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
${reduceSum}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  let end = min(${p.count}u, (group + 1u) * ${p.chunk}u);
  var value = 0.0f;
  for (var i = group * ${p.chunk}u + lane; i < end; i += ${lanes}u) { value += x[i]; }
  let sum = reduceSum(lane, value);
  if (lane == 0u) { y[group] = ${p.result('sum')}; }
}
`);
  return { source, workgroups: grid.workgroups };
}

/** y[b, k] = sum over n of x[b, n, k]; one workgroup for each (b, k), meant for few columns; bindings x, y. */
export function tokenSumKernel(p: { label: string; batch: number; tokens: number; columns: number; target: Target }): Compiled {
  const { batch, tokens, columns } = p;
  const grid = groupGrid(batch * columns, p.target);
  const source = kernel('reduction.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
${reduceSum}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  let first = (group / ${columns}u) * ${tokens * columns}u + group % ${columns}u;
  var value = 0.0f;
  for (var n = lane; n < ${tokens}u; n += ${lanes}u) { value += x[first + n * ${columns}u]; }
  let sum = reduceSum(lane, value);
  if (lane == 0u) { y[group] = sum; }
}
`);
  return { source, workgroups: grid.workgroups };
}

/** y[i] = value(i) for `count` elements; `value` is an expression of type f32 over `i` and the bound arrays `x0`, `x1`, ... */
export function mapKernel(p: { label: string; count: number; inputs: readonly ('f32' | 'u32')[]; target: Target; value: string }): Compiled {
  const grid = linearGrid(p.count, p.target);
  const declarations = p.inputs.map((type, n) => `@group(0) @binding(${n}) var<storage, read> x${n}: array<${type}>;`).join('\n');
  const source = kernel('reduction.wgsl.ts', p.label, wgsl`
${declarations}
@group(0) @binding(${p.inputs.length}) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(${lanes})
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  y[i] = ${p.value};
}
`);
  return { source, workgroups: grid.workgroups };
}
