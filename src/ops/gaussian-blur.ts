/**
 * Gaussian smoothing with zero padding, the last step of the anomaly map: y = sum_{u,v} w[u] w[v] x[row + u, column + v],
 * w[u] = exp(-u^2 / (2 sigma^2)) / sum. The window is symmetric, so the operation is its own gradient.
 */
import { gaussianBlurKernel } from '../../shaders/gaussian-blur.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor } from '../graph/tensor.ts';

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

export const gaussianBlurOperation: Operation<GaussianBlurOptions> = {
  name: 'gaussianBlur',
  outputs([x]) {
    if (x!.shape.length < 2) throw new UsageError(`gaussianBlur: x has shape [${x!.shape.join(', ')}], expected [.., H, W].`);
    return [{ shape: x!.shape, dtype: 'f32' }];
  },
  kernels({ inputs: [x], attributes, target, read, write }) {
    const [height, width] = x!.shape.slice(-2) as [number, number];
    const count = sizeOf(x!.shape);
    const { source, workgroups } = gaussianBlurKernel({
      label: `gaussianBlur [${x!.shape.join(', ')}]`, images: count / (height * width), height, width,
      weights: gaussianWeights(attributes), target,
    });
    return [{ kernel: source, workgroups, bindings: [read(0), write(0)], flops: 2 * count * attributes.size * (attributes.size + 1), bytes: 8 * count }];
  },
  gradient: ({ outputGradients: [g], attributes }) => [gaussianBlur(g!, attributes)],
  reference([x], { inputs: [spec], attributes }) {
    const [height, width] = spec!.shape.slice(-2) as [number, number];
    const weights = gaussianWeights(attributes);
    const reach = (attributes.size - 1) / 2;
    return [x!.map((_, i) => {
      const column = i % width;
      const row = Math.floor(i / width) % height;
      let sum = 0;
      for (let u = -reach; u <= reach; u++) {
        for (let v = -reach; v <= reach; v++) {
          const inside = row + u >= 0 && row + u < height && column + v >= 0 && column + v < width;
          if (inside) sum += weights[reach + u]! * weights[reach + v]! * x![i + u * width + v]!;
        }
      }
      return sum;
    })];
  },
};

/** x [.., H, W] smoothed within each image; the reference's window is 5 wide with sigma 4. */
export function gaussianBlur(x: Tensor, { size = 5, sigma = 4 }: Partial<GaussianBlurOptions> = {}): Tensor {
  gaussianWeights({ size, sigma });
  return apply(gaussianBlurOperation, [x], { size, sigma })[0]!;
}
