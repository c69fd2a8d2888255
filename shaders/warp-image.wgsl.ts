/**
 * Affine views of images: an invocation makes one pixel, all channels, from the four source pixels around its place. Places
 * beyond the edges are mirrored there, between pixels (at -1/2 and size - 1/2).
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { linearGrid } from './common.wgsl.ts';

/** Of R, G and B in grey (ITU-R 601). */
export const luma = [0.299, 0.587, 0.114] as const;

/** Bindings image [images, 3, height, width], views [views, 7], y [views, 3, height, width]. */
export function warpImageKernel(p: { label: string; views: number; images: number; height: number; width: number; target: Target }): { source: KernelSource; workgroups: readonly [number, number, number] } {
  const { width, height } = p;
  const pixels = width * height;
  const grid = linearGrid(p.views * pixels, p.target);
  const source = kernel('warp-image.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> image: array<f32>;
@group(0) @binding(1) var<storage, read> views: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
fn mirrored(place: f32, size: f32) -> f32 {
  let along = abs(place + 0.5f);
  let turn = floor(along / size);
  let rest = along - turn * size;
  return clamp(select(size - rest, rest, u32(turn) % 2u == 0u) - 0.5f, 0.0f, size - 1.0f);
}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let view = i / ${pixels}u;
  let pixel = i % ${pixels}u;
  let v = view * 7u;
  let centre = vec2f(${f32((width - 1) / 2)}, ${f32((height - 1) / 2)});
  let at = vec2f(f32(pixel % ${width}u), f32(pixel / ${width}u)) - centre;
  let column = mirrored(views[v] * at.x + views[v + 1u] * at.y + views[v + 4u] + centre.x, ${f32(width)});
  let row = mirrored(views[v + 2u] * at.x + views[v + 3u] * at.y + views[v + 5u] + centre.y, ${f32(height)});
  let left = u32(column);
  let top = u32(row);
  let right = min(left + 1u, ${width - 1}u);
  let bottom = min(top + 1u, ${height - 1}u);
  let fx = column - f32(left);
  let fy = row - f32(top);
  var channels: vec3f;
  for (var c = 0u; c < 3u; c++) {
    let base = ${p.images === 1 ? '' : `view * ${3 * pixels}u + `}c * ${pixels}u;
    let above = (1.0f - fx) * image[base + top * ${width}u + left] + fx * image[base + top * ${width}u + right];
    let below = (1.0f - fx) * image[base + bottom * ${width}u + left] + fx * image[base + bottom * ${width}u + right];
    channels[c] = (1.0f - fy) * above + fy * below;
  }
  let grey = dot(channels, vec3f(${luma.map(f32).join(', ')}));
  let result = select(channels, vec3f(grey), views[v + 6u] != 0.0f);
  for (var c = 0u; c < 3u; c++) { y[(view * 3u + c) * ${pixels}u + pixel] = result[c]; }
}
`);
  return { source, workgroups: grid.workgroups };
}
