/**
 * What a benchmark measures, as plain data: every sample is kept, together with what was computed in it and whether the
 * result was right. Rates and percentages are derived from it when it is shown, so a results file holds facts only.
 */
export type Suite = 'peaks' | 'kernels' | 'model' | 'train' | 'peers';
export const suites: readonly Suite[] = ['peaks', 'kernels', 'model', 'train', 'peers'];

export interface Measurement {
  /** Stable between runs, which is what two results files are compared by: `model/tiny-224/batch-1/total`. */
  readonly id: string;
  readonly suite: Suite;
  /** What it is shown under, e.g. `tiny 224, inspection`. */
  readonly group: string;
  /** What was done, for people. */
  readonly title: string;
  /** `ours`, or the peer's name. */
  readonly contender: string;
  /** `gpu`: timestamps around each dispatch. `wall`: from before the first call until the GPU is done. `cpu`: the calls alone. */
  readonly clock: 'gpu' | 'wall' | 'cpu';
  /** Seconds of each run, warm-up aside. Empty where it failed. */
  readonly samples: readonly number[];
  /** Floating-point operations of a run, a multiply-add counting 2. */
  readonly flops?: number;
  /** Bytes that a run moves at least. */
  readonly bytes?: number;
  /** Images of a run. */
  readonly images?: number;
  /** Further numbers, e.g. `kernels`, `submits`, `dispatches`, `peakBytes`, `firstRunSeconds`, `maxError`. */
  readonly values?: Readonly<Record<string, number>>;
  /** What the results were held against. */
  readonly check?: string;
  /** Why there is no time, or none that counts: the error, or how wrong the result was. */
  readonly failure?: string;
  /** When it was measured, where it was taken over from an earlier results file. */
  readonly reusedFrom?: string;
}

/** Something that was not measured, and why. */
export interface LeftOut {
  readonly suite: Suite;
  readonly what: string;
  readonly why: string;
}

export function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length === 0 ? NaN : sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export const minimum = (samples: readonly number[]): number => (samples.length === 0 ? NaN : Math.min(...samples));

/** Median seconds of a measurement that counts; undefined where it failed. */
export function secondsOf(measurement: Measurement | undefined): number | undefined {
  return measurement && measurement.failure === undefined && measurement.samples.length > 0 ? median(measurement.samples) : undefined;
}

/** How often something is run. */
export interface Sampling {
  readonly minimumSamples: number;
  readonly maximumSamples: number;
  /** No further sample is begun after this many seconds, once there are enough. */
  readonly seconds: number;
}

/** Runs `body` until the sampling has enough, and gives back its samples. */
export async function collect(sampling: Sampling, body: (round: number) => Promise<number>): Promise<number[]> {
  const samples: number[] = [];
  let total = 0;
  while (samples.length < sampling.minimumSamples || (samples.length < sampling.maximumSamples && total < sampling.seconds)) {
    const seconds = await body(samples.length);
    samples.push(seconds);
    total += seconds;
  }
  return samples;
}

/** Wall-clock seconds of `body`. */
export async function timed(body: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await body();
  return (performance.now() - started) / 1000;
}

/** Rejects after `seconds`; the work itself can't be stopped. */
export async function withTimeout<T>(work: Promise<T>, seconds: number, what: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took more than ${seconds} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

export const errorText = (error: unknown): string => (error instanceof Error ? error.message : String(error)).split('\n').slice(0, 4).join(' ').slice(0, 500);
