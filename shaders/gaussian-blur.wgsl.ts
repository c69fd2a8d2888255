/**
 * y[r, c] = sum_u w[u] sum_v w[v] x[r + u, c + v], zero outside: the whole window in one pass, because the map is small
 * and a second pass would cost more than the few extra multiplications.
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { linearGrid } from './common.wgsl.ts';

export interface GaussianBlurKernel {
  readonly label: string;
  readonly images: number;
  readonly height: number;
  readonly width: number;
  readonly weights: Float64Array;
  readonly target: Target;
}

export function gaussianBlurKernel(p: GaussianBlurKernel): { source: KernelSource; workgroups: readonly [number, number, number] } {
  const reach = (p.weights.length - 1) / 2;
  const grid = linearGrid(p.images * p.height * p.width, p.target);
  const sum = (term: (offset: number) => string) => Array.from(p.weights, (w, i) => `  sum = fma(${f32(w)}, ${term(i - reach)}, sum);`).join('\n');
  const source = kernel('gaussian-blur.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
fn at(start: u32, column: i32) -> f32 {
  if (column < 0 || column >= ${p.width}) { return 0.0f; }
  return x[start + u32(column)];
}
fn alongRow(image: u32, row: i32, column: i32) -> f32 {
  if (row < 0 || row >= ${p.height}) { return 0.0f; }
  let start = image + u32(row) * ${p.width}u;
  var sum = 0.0f;
${sum((offset) => `at(start, column + ${offset})`)}
  return sum;
}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let column = i32(i % ${p.width}u);
  let row = i32(i / ${p.width}u % ${p.height}u);
  let image = i / ${p.height * p.width}u * ${p.height * p.width}u;
  var sum = 0.0f;
${sum((offset) => `alongRow(image, row + ${offset}, column)`)}
  y[i] = sum;
}
`);
  return { source, workgroups: grid.workgroups };
}
