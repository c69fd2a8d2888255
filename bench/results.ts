/**
 * A results file: one run of the benchmark on one adapter, with all that is needed to read it later. It holds what was
 * measured; rates, percentages and verdicts are worked out from it.
 */
import { InputError } from '../src/errors.ts';
import type { AdapterReport } from '../src/gpu/context.ts';
import { secondsOf, type LeftOut, type Measurement } from './measurement.ts';
import type { Peaks } from './suites/peaks.ts';

/** A number that needs no GPU: bytes of a plan, bytes that are shipped. */
export interface Figure {
  readonly id: string;
  readonly title: string;
  readonly value: number;
  readonly unit: 'bytes' | 'kernels';
}

export interface Results {
  readonly format: 1;
  /** ISO 8601, UTC. */
  readonly date: string;
  readonly suite: string;
  readonly quick: boolean;
  readonly runtime: 'chrome' | 'node';
  /** Browser or Node, with its version. */
  readonly runtimeVersion: string;
  readonly adapter: AdapterReport;
  readonly machine: { readonly platform: string; readonly processor: string; readonly cores: number };
  /** Versions of this package, of Dawn for Node, and of the peers. */
  readonly packages: Readonly<Record<string, string>>;
  readonly peaks: Peaks | undefined;
  readonly figures: readonly Figure[];
  readonly measurements: readonly Measurement[];
  readonly leftOut: readonly LeftOut[];
}

/** @throws InputError for anything but a results file */
export function parseResults(text: string, file: string): Results {
  let parsed: Partial<Results>;
  try {
    parsed = JSON.parse(text) as Partial<Results>;
  } catch (cause) {
    throw new InputError(`${file} is not JSON (${String(cause)}): give a file that \`npm run bench -- --json FILE\` wrote.`, { file, cause });
  }
  if (parsed?.format !== 1 || !Array.isArray(parsed.measurements) || !Array.isArray(parsed.figures) || !Array.isArray(parsed.leftOut) || typeof parsed.adapter?.name !== 'string') {
    throw new InputError(`${file} is not a results file of this benchmark (format ${String(parsed?.format)}, expected 1): give a file that \`npm run bench -- --json FILE\` wrote.`, { file });
  }
  return parsed as Results;
}

export const find = ({ measurements }: Pick<Results, 'measurements'>, id: string): Measurement | undefined => measurements.find((m) => m.id === id);

/** FLOP or bytes a second by the median, and how that stands to the peak which bounds it. */
export interface Rate {
  readonly value: number;
  readonly unit: 'FLOP/s' | 'B/s';
  /** Of the multiply-add peak or the copy bandwidth; undefined where there are no peaks. */
  readonly ofPeak: number | undefined;
}

/** By what bounds it: arithmetic, or, below the roofline's ridge, memory. */
export function rateOf(measurement: Measurement, peaks: Peaks | undefined): Rate | undefined {
  const seconds = secondsOf(measurement);
  const { flops = 0, bytes = 0 } = measurement;
  if (!seconds || (flops === 0 && bytes === 0)) return undefined;
  const byMemory = flops === 0 || (bytes > 0 && peaks !== undefined && flops / bytes < peaks.flops / peaks.bandwidth);
  return byMemory
    ? { value: bytes / seconds, unit: 'B/s', ofPeak: peaks && bytes / seconds / peaks.bandwidth }
    : { value: flops / seconds, unit: 'FLOP/s', ofPeak: peaks && flops / seconds / peaks.flops };
}

/** A run that takes this long does not hang on what else the machine was doing, seconds. */
const slowRun = 3;

/** A peer's slow runs of an earlier time that count here too: same peer and version, same adapter, same runtime. */
export function reusable(earlier: Results, now: Pick<Results, 'adapter' | 'packages' | 'runtime' | 'runtimeVersion'>): Measurement[] {
  if (earlier.adapter.name !== now.adapter.name || earlier.runtime !== now.runtime || earlier.runtimeVersion !== now.runtimeVersion) return [];
  return earlier.measurements
    .filter((m) => {
      const name = packageOf[m.contender];
      return m.suite === 'peers' && (secondsOf(m) ?? 0) >= slowRun && name !== undefined && earlier.packages[name] === now.packages[name];
    })
    .map((m) => ({ ...m, reusedFrom: m.reusedFrom ?? earlier.date }));
}

/** The npm packages of the peers. */
export const packageOf: Readonly<Record<string, string>> = {
  'onnxruntime-web WebGPU': 'onnxruntime-web', 'onnxruntime-web wasm': 'onnxruntime-web', 'jax-js': '@jax-js/jax', 'tensorflow.js': '@tensorflow/tfjs-backend-webgpu',
};

/** Measurements of one id from several sessions, as one with all samples. */
export function mergeSamples(measurements: readonly Measurement[]): Measurement[] {
  const merged = new Map<string, Measurement>();
  for (const m of measurements) {
    const known = merged.get(m.id);
    const failure = known?.failure ?? m.failure;
    merged.set(m.id, known ? { ...known, samples: [...known.samples, ...m.samples], ...(failure !== undefined && { failure }) } : m);
  }
  return [...merged.values()];
}
