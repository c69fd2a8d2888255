/**
 * y[o, i, c] = sum_t weight[t, i] x[o, index[t, i], c]: one axis of a separable resampling as a gather by tables. The
 * tables are [taps, outputs], so that neighbouring lanes read neighbouring entries. Four channels an invocation where
 * the sizes allow it.
 */
import type { Target } from '../src/gpu/target.ts';
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { linearGrid } from './common.wgsl.ts';

export interface ResampleKernel {
  readonly label: string;
  readonly outer: number;
  readonly inputSize: number;
  readonly outputSize: number;
  readonly inner: number;
  readonly taps: number;
  readonly target: Target;
}

export function resampleKernel(p: ResampleKernel): { source: KernelSource; workgroups: readonly [number, number, number] } {
  const vector = p.inner % 4 === 0;
  const inner = vector ? p.inner / 4 : p.inner;
  const type = vector ? 'vec4f' : 'f32';
  const grid = linearGrid(p.outer * p.outputSize * inner, p.target);
  const source = kernel('resample.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<${type}>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<${type}>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let position = (i / ${inner}u) % ${p.outputSize}u;
  let start = i / ${p.outputSize * inner}u * ${p.inputSize * inner}u + i % ${inner}u;
  var sum = ${type}();
  for (var t = 0u; t < ${p.taps}u; t++) {
    let at = t * ${p.outputSize}u + position;
    sum = fma(${type}(weight[at]), x[start + index[at] * ${inner}u], sum);
  }
  y[i] = sum;
}
`);
  return { source, workgroups: grid.workgroups };
}
