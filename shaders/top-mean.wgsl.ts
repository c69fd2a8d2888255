/**
 * Mean of the k largest of a row, by radix selection: the floats' bits become unsigned keys of the same order, and
 * four histograms of 8 bits narrow the k-th largest key down to one. One workgroup a row; the only atomics count
 * integers, so the result does not depend on their order. Workgroup memory is kept small: SwiftShader's compiler clears
 * it with a store an element, and takes seconds for thousands of them.
 */
import type { Target } from '../src/gpu/target.ts';
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { groupGrid } from './common.wgsl.ts';
import { keepLoop } from './head-rows.wgsl.ts';

export interface TopMeanKernel {
  readonly label: string;
  readonly rows: number;
  readonly columns: number;
  /** k, from 1 to columns. */
  readonly count: number;
  readonly target: Target;
}

const digitBits = 8;
const bins = 1 << digitBits;
const passes = 32 / digitBits;

export function topMeanKernel(p: TopMeanKernel): { source: KernelSource; workgroups: readonly [number, number, number]; passes: number } {
  const grid = groupGrid(p.rows, p.target);
  const keep = keepLoop(p.target);
  const lanes = p.target.family === 'gpu' ? 256 : p.target.family === 'lavapipe' ? 8 : 4;
  const source = kernel('top-mean.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
var<workgroup> histogram: array<atomic<u32>, ${bins}>;
var<workgroup> laneCounts: array<u32, ${lanes}>;
var<workgroup> partial: array<f32, ${lanes}>;
// The leading bits of the k-th largest key as far as they are known, and how many keys are above all that share them.
var<workgroup> prefix: u32;
var<workgroup> above: u32;

// NaN of either sign is above everything, so that it is never lost.
fn keyOf(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0xffffffffu; }
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}
fn valueOf(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}

// Walks the histogram from the top to the bin that holds the k-th largest key: first over the lanes' parts, then over bins.
fn findDigit(lane: u32) {
  let each = ${bins / lanes}u;
  var own = 0u;
  for (var bin = lane * each; bin < (lane + 1u) * each; bin++) { own += atomicLoad(&histogram[bin]); }
  laneCounts[lane] = own;
  workgroupBarrier();
  if (lane == 0u) {
    var higher = above;
    var part = ${lanes - 1}u;
    while (part > 0u && higher + laneCounts[part] < ${p.count}u) {
      higher += laneCounts[part];
      part--;
    }
    var bin = part * each + each - 1u;
    while (bin > 0u && higher + atomicLoad(&histogram[bin]) < ${p.count}u) {
      higher += atomicLoad(&histogram[bin]);
      bin--;
    }
    above = higher;
    prefix = (prefix << ${digitBits}u) | bin;
  }
  workgroupBarrier();
}

@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) lane: u32) {
  ${grid.index}
  let row = group * ${p.columns}u;
  var shift = 32u;
  for (var round = 0u; round < ${passes}u${keep}; round++) {
    shift -= ${digitBits}u;
    for (var bin = lane; bin < ${bins}u; bin += ${lanes}u) { atomicStore(&histogram[bin], 0u); }
    workgroupBarrier();
    for (var j = lane; j < ${p.columns}u${keep}; j += ${lanes}u) {
      let digits = keyOf(x[row + j]) >> shift;
      if ((digits >> ${digitBits}u) == prefix) { atomicAdd(&histogram[digits % ${bins}u], 1u); }
    }
    workgroupBarrier();
    findDigit(lane);
  }
  let threshold = prefix;
  var sum = 0.0f;
  for (var j = lane; j < ${p.columns}u${keep}; j += ${lanes}u) {
    let value = x[row + j];
    if (keyOf(value) > threshold) { sum += value; }
  }
  partial[lane] = sum;
  workgroupBarrier();
  for (var step = ${lanes / 2}u${keep}; step > 0u; step = step >> 1u) {
    if (lane < step) { partial[lane] = partial[lane] + partial[lane + step]; }
    workgroupBarrier();
  }
  if (lane == 0u) {
    y[group] = fma(f32(${p.count}u - above), valueOf(threshold), partial[0]) / f32(${p.count}u);
  }
}
`);
  return { source, workgroups: grid.workgroups, passes: passes + 1 };
}
