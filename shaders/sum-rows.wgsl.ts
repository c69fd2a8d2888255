/**
 * y[c] = sum over rows of x[r, c]: bias gradients. Rows are cut into chunks; one invocation sums one column of one
 * chunk, and a second pass sums the chunks, both in order. Neighbouring lanes read neighbouring columns. Several
 * matrices of one shape are summed in one dispatch.
 */
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import type { Target } from '../src/gpu/target.ts';
import { linearGrid } from './common.wgsl.ts';

/** Bindings: the `matrices` sources, then as many results. */
export function sumRowsKernel(p: { label: string; rows: number; columns: number; chunk: number; matrices?: number; target: Target }): { source: KernelSource; workgroups: readonly [number, number, number] } {
  const { matrices = 1 } = p;
  const all = Array.from({ length: matrices }, (_, m) => m);
  const chunks = Math.ceil(p.rows / p.chunk);
  const grid = linearGrid(chunks * p.columns, p.target);
  const source = kernel('sum-rows.wgsl.ts', p.label, wgsl`
${all.map((m) => `@group(0) @binding(${m}) var<storage, read> x${m}: array<f32>;`).join('\n')}
${all.map((m) => `@group(0) @binding(${matrices + m}) var<storage, read_write> y${m}: array<f32>;`).join('\n')}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let column = i % ${p.columns}u;
  let begin = (i / ${p.columns}u) * ${p.chunk}u;
  let end = min(begin + ${p.chunk}u, ${p.rows}u);
  ${all.map((m) => `var sum${m} = 0.0f;`).join(' ')}
  for (var r = begin; r < end; r++) {
    ${all.map((m) => `sum${m} = sum${m} + x${m}[r * ${p.columns}u + column];`).join(' ')}
  }
  ${all.map((m) => `y${m}[i] = sum${m};`).join(' ')}
}
`);
  return { source, workgroups: grid.workgroups };
}
