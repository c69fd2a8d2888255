/**
 * Kernels that move tokens about and add little to them: putting the encoder's sequence together, means of several
 * tensors, and a tensor repeated over the batch or summed over it. Each element of the result is one invocation's
 * (four elements where the sizes allow it), and every sum has a fixed order.
 */
import type { Target } from '../src/gpu/target.ts';
import { f32, kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { linearGrid } from './common.wgsl.ts';

interface Kernel {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

const file = 'tokens.wgsl.ts';

/** Elements an invocation, and their type: vectors where every given length is a whole number of them. */
function vectorised(...lengths: number[]): { lane: number; type: string } {
  return lengths.every((n) => n % 4 === 0) ? { lane: 4, type: 'vec4f' } : { lane: 1, type: 'f32' };
}

export function assembleTokensKernel(p: { label: string; batch: number; channels: number; patches: number; registers: number; target: Target }): Kernel {
  const { lane, type } = vectorised(p.channels);
  const channels = p.channels / lane;
  const tokens = 1 + p.registers + p.patches;
  const grid = linearGrid(p.batch * tokens * channels, p.target);
  const source = kernel(file, p.label, wgsl`
@group(0) @binding(0) var<storage, read> patches: array<${type}>;
@group(0) @binding(1) var<storage, read> cls: array<${type}>;
@group(0) @binding(2) var<storage, read> position: array<${type}>;
#if ${p.registers > 0}
@group(0) @binding(3) var<storage, read> registers: array<${type}>;
@group(0) @binding(4) var<storage, read_write> y: array<${type}>;
#else
@group(0) @binding(3) var<storage, read_write> y: array<${type}>;
#endif
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let within = i % ${tokens * channels}u;
  if (within < ${channels}u) {
    y[i] = cls[within] + position[within];
    return;
  }
#if ${p.registers > 0}
  if (within < ${(1 + p.registers) * channels}u) {
    y[i] = registers[within - ${channels}u];
    return;
  }
#endif
  let token = within - ${(1 + p.registers) * channels}u;
  y[i] = patches[i / ${tokens * channels}u * ${p.patches * channels}u + token] + position[token + ${channels}u];
}
`);
  return { source, workgroups: grid.workgroups };
}

/** Of each of `batch` rows of every tensor the first `skipped` elements are left out and `block` are averaged. */
export function meanOfKernel(p: {
  label: string; batch: number; block: number; skipped: number;
  /** Tensors bound; before the result, where `continues`, comes the sum so far. */
  tensors: number; continues: boolean; divisor: number; target: Target;
}): Kernel {
  const { lane, type } = vectorised(p.block, p.skipped);
  const block = p.block / lane;
  const grid = linearGrid(p.batch * block, p.target);
  const bound = p.tensors + (p.continues ? 1 : 0);
  const inputs = Array.from({ length: bound }, (_, n) => `@group(0) @binding(${n}) var<storage, read> x${n}: array<${type}>;`).join('\n');
  const terms = [...(p.continues ? [`x${p.tensors}[i]`] : []), ...Array.from({ length: p.tensors }, (_, n) => `x${n}[at]`)].join(' + ');
  const source = kernel(file, p.label, wgsl`
${inputs}
@group(0) @binding(${bound}) var<storage, read_write> y: array<${type}>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  let at = i + (i / ${block}u + 1u) * ${p.skipped / lane}u;
  y[i] = ${f32(1 / p.divisor)} * (${terms});
}
`);
  return { source, workgroups: grid.workgroups };
}

export function repeatBatchKernel(p: { label: string; batch: number; size: number; target: Target }): Kernel {
  const { lane, type } = vectorised(p.size);
  const grid = linearGrid(p.batch * p.size / lane, p.target);
  const source = kernel(file, p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<${type}>;
@group(0) @binding(1) var<storage, read_write> y: array<${type}>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  y[i] = x[i % ${p.size / lane}u];
}
`);
  return { source, workgroups: grid.workgroups };
}

export function sumBatchKernel(p: { label: string; batch: number; size: number; target: Target }): Kernel {
  const { lane, type } = vectorised(p.size);
  const grid = linearGrid(p.size / lane, p.target);
  const source = kernel(file, p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<${type}>;
@group(0) @binding(1) var<storage, read_write> y: array<${type}>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  var sum = ${type}();
  for (var b = 0u; b < ${p.batch}u; b++) { sum += x[b * ${p.size / lane}u + i]; }
  y[i] = sum;
}
`);
  return { source, workgroups: grid.workgroups };
}
