/** Pieces of WGSL and of dispatch arithmetic that several kernel families share. */
import type { Target } from '../src/gpu/target.ts';

/** The largest 1-D workgroup worth having: 64 lanes fill a GPU's scheduler and cost a CPU nothing. */
export const lanes = 64;

export interface LinearGrid {
  readonly workgroups: readonly [number, number, number];
  /** WGSL statements that define `i`, the element's index, and return past the end. */
  readonly index: string;
}

/**
 * One invocation for each of `count` elements, folded into two dimensions where one is not enough.
 * The kernel declares `@builtin(global_invocation_id) gid: vec3u` and `@workgroup_size(64)`.
 */
export function linearGrid(count: number, target: Pick<Target, 'maxComputeWorkgroupsPerDimension'>): LinearGrid {
  const groups = Math.ceil(count / lanes);
  const rows = Math.ceil(groups / target.maxComputeWorkgroupsPerDimension);
  const columns = Math.ceil(groups / rows);
  const index = rows === 1
    ? `let i = gid.x;`
    : `let i = gid.y * ${columns * lanes}u + gid.x;`;
  return { workgroups: [columns, rows, 1], index: `${index}\n  if (i >= ${count}u) { return; }` };
}

export interface GroupGrid {
  readonly workgroups: readonly [number, number, number];
  /** WGSL statements that define `group`, the workgroup's index, and return past the end (uniform control flow). */
  readonly index: string;
}

/** One workgroup for each of `count` rows. The kernel declares `@builtin(workgroup_id) wid: vec3u`. */
export function groupGrid(count: number, target: Pick<Target, 'maxComputeWorkgroupsPerDimension'>): GroupGrid {
  const rows = Math.ceil(count / target.maxComputeWorkgroupsPerDimension);
  const columns = Math.ceil(count / rows);
  const index = rows === 1 ? `let group = wid.x;` : `let group = wid.y * ${columns}u + wid.x;\n  if (group >= ${count}u) { return; }`;
  return { workgroups: [columns, rows, 1], index };
}

/**
 * A sum over the 64 lanes of a workgroup in a fixed order (a binary tree), so that the same input gives the same bits.
 * Call `reduceSum(lane, value)` in uniform control flow; every lane gets the sum.
 */
export const reduceSum = `
var<workgroup> partial: array<f32, ${lanes}>;
fn reduceSum(lane: u32, value: f32) -> f32 {
  workgroupBarrier();
  partial[lane] = value;
  workgroupBarrier();
  for (var step = ${lanes / 2}u; step > 0u; step = step >> 1u) {
    if (lane < step) { partial[lane] = partial[lane] + partial[lane + step]; }
    workgroupBarrier();
  }
  return partial[0];
}`;

/**
 * erf to about 1 ulp of f32: the rational minimax approximation that Eigen and XLA use, |x| clamped to 4.
 * WGSL has no erf, and GELU must be the exact one (the tanh form is off by 6e-4).
 */
export const erf = `
fn erf(v: f32) -> f32 {
  let x = clamp(v, -4.0f, 4.0f);
  let z = x * x;
  var p = -2.72614225801306e-10f;
  p = fma(p, z, 2.77068142495902e-08f);
  p = fma(p, z, -2.10102402082508e-06f);
  p = fma(p, z, -5.69250639462346e-05f);
  p = fma(p, z, -7.34990630326855e-04f);
  p = fma(p, z, -2.95459980854025e-03f);
  p = fma(p, z, -1.60960333262415e-02f);
  var q = -1.45660718464996e-05f;
  q = fma(q, z, -2.13374055278905e-04f);
  q = fma(q, z, -1.68282697438203e-03f);
  q = fma(q, z, -7.37332916720468e-03f);
  q = fma(q, z, -1.42647390514189e-02f);
  return x * p / q;
}`;
