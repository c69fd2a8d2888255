/**
 * The golden set: tensors and numbers computed by the reference implementation in float64, which ours must reproduce.
 * Its folder is what INP_GOLDEN names, else `../shared/golden` beside the project. A named folder that is missing is
 * an error; an absent default means that the golden tests of a file are not registered, which `describeGolden` says.
 */
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe } from 'vitest';
import { readSafetensors } from '../../src/weights/safetensors.ts';
import { goldenFolder } from './golden-folder.ts';

export interface GoldenTensor {
  /** As safetensors names it: 'F32', 'F64', 'I32', 'U8', 'F16' (whose data are the raw 16-bit patterns). */
  readonly dtype: string;
  readonly shape: number[];
  readonly data: Float32Array | Float64Array | Int32Array | Uint8Array | Uint16Array;
}

export { goldenFolder };

/** The file's path in the golden folder; throws where there is no such folder or file. */
export function goldenPath(relativePath: string): string {
  const folder = goldenFolder();
  if (folder === undefined) throw new Error(`No golden set: set INP_GOLDEN to its folder to read ${relativePath}.`);
  const path = resolve(folder, relativePath);
  if (!existsSync(path)) throw new Error(`The golden set at ${folder} has no ${relativePath}.`);
  return path;
}

export function readGolden(relativePath: string): Uint8Array {
  // A plain Uint8Array: a Buffer's slice() would not copy.
  return new Uint8Array(readFileSync(goldenPath(relativePath)));
}

/** The parsed JSON file. Untyped on purpose: each test states the shape that it reads. */
export function goldenJson<T = any>(relativePath: string): T {
  return JSON.parse(new TextDecoder().decode(readGolden(relativePath))) as T;
}

/** All tensors of a safetensors file, each as the typed array of its dtype. */
export function goldenTensors(relativePath: string): Map<string, GoldenTensor> {
  const { tensors } = readSafetensors(readGolden(relativePath), relativePath);
  const typed = new Map<string, GoldenTensor>();
  for (const [name, { dtype, shape, data }] of tensors) {
    // A copy, because a view of a typed array needs an aligned offset.
    const buffer = data.slice().buffer;
    typed.set(name, { dtype, shape: [...shape], data: typedArray(dtype, buffer, `${relativePath}: ${name}`) });
  }
  return typed;
}

function typedArray(dtype: string, buffer: ArrayBuffer, name: string): GoldenTensor['data'] {
  switch (dtype) {
    case 'F32': return new Float32Array(buffer);
    case 'F64': return new Float64Array(buffer);
    case 'I32': return new Int32Array(buffer);
    case 'U8': case 'BOOL': return new Uint8Array(buffer);
    case 'F16': case 'BF16': case 'U16': return new Uint16Array(buffer);
    default: throw new Error(`${name}: dtype ${dtype} is not used in the golden set.`);
  }
}

/** The data of a float tensor of the set; throws if it is missing or holds something else. */
export function float32(tensors: Map<string, GoldenTensor>, name: string): Float32Array {
  const tensor = tensors.get(name);
  if (!(tensor?.data instanceof Float32Array)) {
    throw new Error(`Expected an F32 tensor "${name}", found ${tensor?.dtype ?? 'none'}; there are: ${[...tensors.keys()].join(', ')}.`);
  }
  return tensor.data;
}

/** `describe`, where there is a golden set; else a note that these tests are not registered. */
export function describeGolden(name: string, body: () => void): void {
  if (goldenFolder() !== undefined) describe(`golden: ${name}`, body);
  else console.info(`golden: ${name}: not run, there is no golden set (set INP_GOLDEN to its folder).`);
}

/** Root mean square. */
export function rms(x: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * x[i]!;
  return Math.sqrt(sum / Math.max(1, x.length));
}

/** Largest |a - b|; NaN as soon as one of the differences is. */
export function maxAbsDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  checkLengths(a, b);
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = a[i] === b[i] ? 0 : Math.abs(a[i]! - b[i]!);
    if (Number.isNaN(difference)) return NaN;
    if (difference > largest) largest = difference;
  }
  return largest;
}

/** ||actual - expected|| / ||expected||; 0 where both are zero, infinite where only `expected` is. */
export function relativeL2(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  checkLengths(actual, expected);
  let error = 0;
  let size = 0;
  for (let i = 0; i < actual.length; i++) {
    error += (actual[i]! - expected[i]!) ** 2;
    size += expected[i]! ** 2;
  }
  return error === 0 ? 0 : Math.sqrt(error / size);
}

export interface Closeness {
  /** Largest relative L2 error allowed. */
  readonly relL2?: number;
  /** Largest absolute error allowed, as a share of the expected tensor's rms. */
  readonly maxOfRms?: number;
  /** Largest absolute error allowed. */
  readonly maxAbs?: number;
  readonly name: string;
}

/** Throws, with the measured figures, unless every given tolerance holds (NaN never does). */
export function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: Closeness): void {
  const { relL2, maxOfRms, maxAbs, name } = tolerance;
  if (relL2 === undefined && maxOfRms === undefined && maxAbs === undefined) throw new Error(`${name}: no tolerance given.`);
  if (actual.length !== expected.length) throw new Error(`${name}: ${actual.length} values, expected ${expected.length}.`);
  const measured = { relL2: relativeL2(actual, expected), maxAbs: maxAbsDifference(actual, expected), rms: rms(expected) };
  // As a share of the rms; written as a product below, so that an expected tensor of zeros is held to exact zeros.
  const close = (relL2 === undefined || measured.relL2 <= relL2)
    && (maxOfRms === undefined || measured.maxAbs <= maxOfRms * measured.rms)
    && (maxAbs === undefined || measured.maxAbs <= maxAbs);
  if (close) return;

  let worst = 0;
  for (let i = 0; i < actual.length; i++) {
    if (!(Math.abs(actual[i]! - expected[i]!) <= Math.abs(actual[worst]! - expected[worst]!))) worst = i;
  }
  const figure = (value: number): string => value.toExponential(3);
  const lines = [`${name}: not close (${actual.length} values, expected rms ${figure(measured.rms)}).`];
  if (relL2 !== undefined) lines.push(`  relative L2 ${figure(measured.relL2)}, allowed ${figure(relL2)}`);
  if (maxOfRms !== undefined) lines.push(`  largest difference / rms ${figure(measured.maxAbs / measured.rms)}, allowed ${figure(maxOfRms)}`);
  if (maxAbs !== undefined) lines.push(`  largest difference ${figure(measured.maxAbs)}, allowed ${figure(maxAbs)}`);
  lines.push(`  worst at ${worst}: ${actual[worst]}, expected ${expected[worst]}`);
  throw new Error(lines.join('\n'));
}

function checkLengths(a: ArrayLike<number>, b: ArrayLike<number>): void {
  if (a.length !== b.length) throw new Error(`Lengths differ: ${a.length} and ${b.length}.`);
}
