/**
 * Gaussian smoothing with zero padding, the last step of the anomaly map: y = sum_{u,v} w[u] w[v] x[row + u, column + v],
 * w[u] = exp(-u^2 / (2 sigma^2)) / sum. It is separable, so it is a resampling by two tables like any other.
 */
import { UsageError } from '../errors.ts';
import type { Tensor } from '../graph/tensor.ts';
import { windowTaps } from './resample-taps.ts';
import { resampleBy } from './resample2d.ts';

interface GaussianBlurOptions {
  /** Side of the window, odd. */
  readonly size: number;
  readonly sigma: number;
}

/** The window along one axis, [size], summing to 1. */
export function gaussianWeights({ size, sigma }: GaussianBlurOptions): Float64Array {
  if (!Number.isInteger(size) || size < 1 || size % 2 === 0 || !(sigma > 0 && Number.isFinite(sigma))) {
    throw new UsageError(`gaussianBlur: size must be an odd positive integer and sigma positive, got ${size} and ${sigma}.`);
  }
  const weights = Float64Array.from({ length: size }, (_, i) => Math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma * sigma)));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / sum);
}

/** x [.., H, W] smoothed within each image; the reference's window is 5 wide with sigma 4. */
export function gaussianBlur(x: Tensor, { size = 5, sigma = 4 }: Partial<GaussianBlurOptions> = {}): Tensor {
  if (x.shape.length < 2) throw new UsageError(`gaussianBlur: x has shape [${x.shape.join(', ')}], expected [.., H, W].`);
  const window = gaussianWeights({ size, sigma });
  const [height, width] = x.shape.slice(-2) as [number, number];
  return resampleBy(x, { vertical: windowTaps(window, height), horizontal: windowTaps(window, width) });
}
