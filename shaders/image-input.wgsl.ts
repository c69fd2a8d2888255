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
  /** The first pass leaves the other axis as the source has it. Which axis that is, the image's `size` says. */
  readonly first: boolean;
  /** Taps that the tables have room for. */
  readonly horizontalTaps: number;
  readonly verticalTaps: number;
  /** Of the resized image, in pixels. */
  readonly width: number;
  readonly height: number;
  /** Most pixels that the pass writes. */
  readonly capacity: number;
  readonly precisionBits: number;
  readonly target: Target;
}

/** Bindings: pixels, horizontal and vertical table, size (source width, source height, 1 where columns come first), output. */
export function resizePassKernel(p: ResizePassKernel): Kernel {
  const grid = linearGrid(p.capacity, p.target);
  const source = kernel(file, p.label, wgsl`
@group(0) @binding(0) var<storage, read> pixels: array<u32>;
@group(0) @binding(1) var<storage, read> horizontal: array<i32>;
@group(0) @binding(2) var<storage, read> vertical: array<i32>;
@group(0) @binding(3) var<storage, read> size: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
#if ${p.first}
  let down = size[2] == 1u;
  let inputWidth = size[0];
  let width = select(${p.width}u, size[0], down);
  let rows = select(size[1], ${p.height}u, down);
#else
  let down = size[2] != 1u;
  let inputWidth = select(size[0], ${p.width}u, down);
  let width = ${p.width}u;
  let rows = ${p.height}u;
#endif
  let column = i % width;
  let row = i / width;
  if (row >= rows) { return; }
  var sum = vec3i(${2 ** (p.precisionBits - 1)});
  if (down) {
    let start = u32(vertical[row]) * inputWidth + column;
    let count = min(u32(vertical[${p.height}u + row]), ${p.verticalTaps}u);
    for (var t = 0u; t < count; t++) {
      sum += vertical[(2u + t) * ${p.height}u + row] * channels(pixels[start + t * inputWidth]);
    }
  } else {
    let start = row * inputWidth + u32(horizontal[column]);
    let count = min(u32(horizontal[${p.width}u + column]), ${p.horizontalTaps}u);
    for (var t = 0u; t < count; t++) {
      sum += horizontal[(2u + t) * ${p.width}u + column] * channels(pixels[start + t]);
    }
  }
  let value = vec3u(min(sum >> vec3u(${p.precisionBits}u), vec3i(255)));
  y[i] = value.x | (value.y << 8u) | (value.z << 16u) | 0xff000000u;
}
fn channels(pixel: u32) -> vec3i {
  return vec3i(vec3u(pixel, pixel >> 8u, pixel >> 16u) & vec3u(255u));
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
