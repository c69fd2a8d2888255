/**
 * y[c] = sum over rows of x[r, c]: bias gradients. Rows are cut into chunks; one invocation sums one column of one
 * chunk, and a second pass sums the chunks, both in order. Neighbouring lanes read neighbouring columns.
 */
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import type { Target } from '../src/gpu/target.ts';
import { linearGrid } from './common.wgsl.ts';

export function sumRowsKernel(p: { label: string; rows: number; columns: number; chunk: number; target: Target }): { source: KernelSource; workgroups: readonly [number, number, number] } {
  const chunks = Math.ceil(p.rows / p.chunk);
  const grid = linearGrid(chunks * p.columns, p.target);
  const source = kernel('sum-rows.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let column = i % ${p.columns}u;
  let begin = (i / ${p.columns}u) * ${p.chunk}u;
  let end = min(begin + ${p.chunk}u, ${p.rows}u);
  var sum = 0.0f;
  for (var r = begin; r < end; r++) { sum = sum + x[r * ${p.columns}u + column]; }
  y[i] = sum;
}
`);
  return { source, workgroups: grid.workgroups };
}
