/**
 * Packed RGBA pixels to the encoder's input. A resize pass is value = (half + sum_t weight[t] pixel[first + t]) >> bits
 * in 32-bit integers, exact; the normalisation looks each byte up.
 */
import type { Target } from '../src/gpu/target.ts';
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { linearGrid } from './common.wgsl.ts';

interface Kernel {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

const file = 'image-input.wgsl.ts';

export interface ResizePassKernel {
  readonly label: string;
  readonly axis: 'horizontal' | 'vertical';
  /** Taps that the table has room for. */
  readonly taps: number;
  /** Of the output, in pixels; of the horizontal pass, `rows` is the source's capacity and the source's height ends it. */
  readonly width: number;
  readonly rows: number;
  readonly precisionBits: number;
  readonly target: Target;
}

export function resizePassKernel(p: ResizePassKernel): Kernel {
  const horizontal = p.axis === 'horizontal';
  const grid = linearGrid(p.rows * p.width, p.target);
  const outputs = horizontal ? p.width : p.rows;
  const source = kernel(file, p.label, wgsl`
@group(0) @binding(0) var<storage, read> pixels: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<i32>;
#if ${horizontal}
@group(0) @binding(2) var<storage, read> size: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;
#else
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
#endif
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let column = i % ${p.width}u;
  let row = i / ${p.width}u;
#if ${horizontal}
  if (row >= size[1]) { return; }
  let output = column;
  let start = row * size[0] + u32(table[output]);
  let stride = 1u;
#else
  let output = row;
  let start = u32(table[output]) * ${p.width}u + column;
  let stride = ${p.width}u;
#endif
  let count = min(u32(table[${outputs}u + output]), ${p.taps}u);
  var sum = vec3i(${2 ** (p.precisionBits - 1)});
  for (var t = 0u; t < count; t++) {
    let pixel = pixels[start + t * stride];
    sum += table[(2u + t) * ${outputs}u + output] * vec3i(vec3u(pixel, pixel >> 8u, pixel >> 16u) & vec3u(255u));
  }
  let value = vec3u(min(sum >> vec3u(${p.precisionBits}u), vec3i(255)));
  y[i] = value.x | (value.y << 8u) | (value.z << 16u) | 0xff000000u;
}
`);
  return { source, workgroups: grid.workgroups };
}

export interface NormalizeCropKernel {
  readonly label: string;
  readonly width: number;
  readonly left: number;
  readonly top: number;
  readonly cropWidth: number;
  readonly cropHeight: number;
  readonly target: Target;
}

export function normalizeCropKernel(p: NormalizeCropKernel): Kernel {
  const plane = p.cropWidth * p.cropHeight;
  const grid = linearGrid(plane, p.target);
  const source = kernel(file, p.label, wgsl`
@group(0) @binding(0) var<storage, read> pixels: array<u32>;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let row = ${p.top}u + i / ${p.cropWidth}u;
  let pixel = pixels[row * ${p.width}u + ${p.left}u + i % ${p.cropWidth}u];
  for (var c = 0u; c < 3u; c++) {
    y[c * ${plane}u + i] = table[c * 256u + ((pixel >> (8u * c)) & 255u)];
  }
}
`);
  return { source, workgroups: grid.workgroups };
}
