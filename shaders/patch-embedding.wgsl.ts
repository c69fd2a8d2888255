/**
 * A stride-p convolution as the product of A [B N, 3 p p] and weight^T [3 p p, C], A being gathered from the image as
 * it is needed: A[(b, py, px), (c, ky, kx)] = image[b, c, py p + ky, px p + kx]. On a GPU 64 x 64 tiles go through
 * workgroup memory; on CPU adapters, where barriers cost, each invocation keeps 8 x 8 results in registers.
 */
import type { Target } from '../src/gpu/target.ts';
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { groupGrid, linearGrid } from './common.wgsl.ts';

export interface PatchEmbeddingKernel {
  readonly label: string;
  readonly batch: number;
  readonly inputChannels: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly patch: number;
  /** The grid of patches. */
  readonly rows: number;
  readonly columns: number;
  readonly target: Target;
}

interface Kernel {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

export function patchEmbeddingKernel(p: PatchEmbeddingKernel): Kernel {
  return p.target.family === 'gpu' ? tiled(p) : inRegisters(p);
}

/** Bindings, and where a token's patch begins in the image. */
function common(p: PatchEmbeddingKernel, outputType: 'f32' | 'vec4f'): string {
  const grid = p.rows * p.columns;
  return `
@group(0) @binding(0) var<storage, read> image: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<${outputType}>;
@group(0) @binding(3) var<storage, read_write> y: array<${outputType}>;
fn patchStart(token: u32) -> u32 {
  let within = token % ${grid}u;
  return token / ${grid}u * ${p.inputChannels * p.height * p.width}u
    + within / ${p.columns}u * ${p.patch * p.width}u + within % ${p.columns}u * ${p.patch}u;
}`;
}

function inRegisters(p: PatchEmbeddingKernel): Kernel {
  const block = 8;
  const tokens = p.batch * p.rows * p.columns;
  const depth = p.inputChannels * p.patch ** 2;
  const rowBlocks = Math.ceil(tokens / block);
  const grid = linearGrid(rowBlocks * Math.ceil(p.channels / block), p.target);
  const each = (line: (n: number) => string, count = block) => Array.from({ length: count }, (_, n) => line(n)).join('\n');
  const vector = p.channels % 4 === 0;
  const width = vector ? 4 : 1;
  const values = Array.from({ length: block }, (_, r) => ['low', 'high'].map((half) => (vector ? `${half}${r}` : [0, 1, 2, 3].map((c) => `${half}${r}[${c}]`).join(', '))).join(', '));
  const source = kernel('patch-embedding.wgsl.ts', p.label, wgsl`
${common(p, vector ? 'vec4f' : 'f32')}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let row = i % ${rowBlocks}u * ${block}u;
  let column = i / ${rowBlocks}u * ${block}u;
${each((r) => `  let a${r} = patchStart(min(row + ${r}u, ${tokens - 1}u));`)}
${each((c) => `  var b${c} = min(column + ${c}u, ${p.channels - 1}u) * ${depth}u;`)}
${each((r) => `  var low${r} = vec4f();\n  var high${r} = vec4f();`)}
  for (var channel = 0u; channel < ${p.inputChannels}u; channel++) {
    for (var ky = 0u; ky < ${p.patch}u; ky++) {
      let line = channel * ${p.height * p.width}u + ky * ${p.width}u;
      for (var kx = 0u; kx < ${p.patch}u; kx++) {
        let w0 = vec4f(weight[b0 + kx], weight[b1 + kx], weight[b2 + kx], weight[b3 + kx]);
        let w1 = vec4f(weight[b4 + kx], weight[b5 + kx], weight[b6 + kx], weight[b7 + kx]);
${each((r) => `        let v${r} = vec4f(image[a${r} + line + kx]);
        low${r} = fma(v${r}, w0, low${r});
        high${r} = fma(v${r}, w1, high${r});`)}
      }
${each((c) => `      b${c} += ${p.patch}u;`)}
    }
  }
  var results = array<${vector ? 'vec4f' : 'f32'}, ${(block * block) / width}>(${values.join(', ')});
  // In a loop, which compiles faster than a guarded store for each.
  for (var n = 0u; n < select(0u, ${(block * block) / width}u, row < ${tokens}u); n++) {
    let r = row + n / ${block / width}u;
    let c = column / ${width}u + n % ${block / width}u;
    if (r < ${tokens}u && c < ${p.channels / width}u) { y[r * ${p.channels / width}u + c] = results[n] + bias[c]; }
  }
}
`);
  return { source, workgroups: grid.workgroups };
}

function tiled(p: PatchEmbeddingKernel): Kernel {
  const tile = 64;
  const step = 16;
  const tokens = p.batch * p.rows * p.columns;
  const depth = p.inputChannels * p.patch ** 2;
  const rowTiles = Math.ceil(tokens / tile);
  const grid = groupGrid(rowTiles * Math.ceil(p.channels / tile), p.target);
  const source = kernel('patch-embedding.wgsl.ts', p.label, wgsl`
${common(p, 'f32')}
// [${step}, ${tile}], four neighbours a vector
var<workgroup> left: array<vec4f, ${step * tile / 4}>;
var<workgroup> right: array<vec4f, ${step * tile / 4}>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  let firstRow = group % ${rowTiles}u * ${tile}u;
  let firstColumn = group / ${rowTiles}u * ${tile}u;
  // What this lane loads of each tile: depth lane % ${step}, four neighbouring rows (columns).
  let loadDepth = lane % ${step}u;
  let loadRow = lane / ${step}u * 4u;
  let starts = vec4u(
    patchStart(min(firstRow + loadRow, ${tokens - 1}u)), patchStart(min(firstRow + loadRow + 1u, ${tokens - 1}u)),
    patchStart(min(firstRow + loadRow + 2u, ${tokens - 1}u)), patchStart(min(firstRow + loadRow + 3u, ${tokens - 1}u)));
  let outputs = min(vec4u(firstColumn + loadRow) + vec4u(0u, 1u, 2u, 3u), vec4u(${p.channels - 1}u)) * ${depth}u;
  let row = lane / 16u;
  let column = lane % 16u;
  var sum0 = vec4f();
  var sum1 = vec4f();
  var sum2 = vec4f();
  var sum3 = vec4f();
  for (var d = 0u; d < ${depth}u; d += ${step}u) {
    let k = d + loadDepth;
    var a = vec4f();
    var b = vec4f();
    if (k < ${depth}u) {
      let pixel = k / ${p.patch ** 2}u * ${p.height * p.width}u + k / ${p.patch}u % ${p.patch}u * ${p.width}u + k % ${p.patch}u;
      a = vec4f(image[starts.x + pixel], image[starts.y + pixel], image[starts.z + pixel], image[starts.w + pixel]);
      b = vec4f(weight[outputs.x + k], weight[outputs.y + k], weight[outputs.z + k], weight[outputs.w + k]);
    }
    workgroupBarrier();
    left[loadDepth * ${tile / 4}u + lane / ${step}u] = a;
    right[loadDepth * ${tile / 4}u + lane / ${step}u] = b;
    workgroupBarrier();
    for (var j = 0u; j < ${step}u; j++) {
      let l = left[j * ${tile / 4}u + row];
      let r = right[j * ${tile / 4}u + column];
      sum0 = fma(vec4f(l.x), r, sum0);
      sum1 = fma(vec4f(l.y), r, sum1);
      sum2 = fma(vec4f(l.z), r, sum2);
      sum3 = fma(vec4f(l.w), r, sum3);
    }
  }
  let sums = array<vec4f, 4>(sum0, sum1, sum2, sum3);
  for (var r = 0u; r < 4u; r++) {
    let token = firstRow + row * 4u + r;
    for (var c = 0u; c < 4u; c++) {
      let output = firstColumn + column * 4u + c;
      if (token < ${tokens}u && output < ${p.channels}u) { y[token * ${p.channels}u + output] = sums[r][c] + bias[output]; }
    }
  }
}
`);
  return { source, workgroups: grid.workgroups };
}
