/**
 * The Dice loss of a predicted mask p against the truth t, for each image (INP-Former++ Eq. 8):
 *
 *   L = 1 - (2 sum(p t) + 1) / (sum p + sum t + 1)      squared: p^2 and t^2 below
 *
 * It weighs a small defect as much as a large one, where a mean over pixels would drown it in background.
 */
import { diceChunks, diceGradientKernel, diceLossKernel, dicePartialKernel, diceSmoothing } from '../../shaders/dice.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation, ReferenceArray } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';

interface DiceAttributes {
  readonly squared: boolean;
}

function extents({ shape }: TensorSpec): { images: number; pixels: number } {
  return { images: shape[0]!, pixels: sizeOf(shape) / shape[0]! };
}

/** Numerator and denominator of each image. */
function ratios(p: ReferenceArray, t: ReferenceArray, images: number, squared: boolean): { numerator: number; denominator: number }[] {
  const pixels = p.length / images;
  const power = squared ? 2 : 1;
  return Array.from({ length: images }, (_, b) => {
    let [both, predicted, truth] = [0, 0, 0];
    for (let i = b * pixels; i < (b + 1) * pixels; i++) {
      both += p[i]! * t[i]!;
      predicted += p[i]! ** power;
      truth += t[i]! ** power;
    }
    return { numerator: 2 * both + diceSmoothing, denominator: predicted + truth + diceSmoothing };
  });
}

/** (p, t [B, ..]) -> loss [B], and numerator and denominator [B, 2], kept for the gradient; t gets none */
export const diceOperation: Operation<DiceAttributes> = {
  name: 'dice',
  outputs([p, t]) {
    if (p!.shape.join() !== t!.shape.join()) throw new UsageError(`dice: prediction [${p!.shape.join(', ')}] and truth [${t!.shape.join(', ')}] must have one shape.`);
    return [{ shape: [p!.shape[0]!], dtype: 'f32' }, { shape: [p!.shape[0]!, 2], dtype: 'f32' }];
  },
  kernels({ inputs: [p], attributes: { squared }, target, read, write, scratch }) {
    const { images, pixels } = extents(p!);
    const size = (part: string) => ({ label: `dice ${part} [${p!.shape.join(', ')}]`, images, pixels, squared, target });
    const chunks = images * diceChunks(pixels);
    const partial = scratch(12 * chunks);
    const first = dicePartialKernel(size('sums'));
    const last = diceLossKernel(size('loss'));
    return [
      { kernel: first.source, workgroups: first.workgroups, bindings: [read(0), read(1), partial.write], flops: 4 * images * pixels, bytes: 8 * images * pixels + 12 * chunks },
      { kernel: last.source, workgroups: last.workgroups, bindings: [partial.read, write(0), write(1)], flops: 3 * chunks, bytes: 12 * (chunks + images) },
    ];
  },
  gradient: ({ inputs: [p, t], outputs: [, ratio], attributes, outputGradients: [g] }) => [g && apply(diceGradientOperation, [g, ratio!, p!, t!], attributes)[0]!, undefined],
  reference([p, t], { inputs: [spec], attributes: { squared } }) {
    const all = ratios(p!, t!, extents(spec!).images, squared);
    return [Float64Array.from(all, ({ numerator, denominator }) => 1 - numerator / denominator), Float64Array.from(all.flatMap(({ numerator, denominator }) => [numerator, denominator]))];
  },
};

/** (g [B], ratio [B, 2], p, t [B, ..]) -> gradient by p */
export const diceGradientOperation: Operation<DiceAttributes> = {
  name: 'diceGradient',
  outputs: ([, , p]) => [{ shape: p!.shape, dtype: 'f32' }],
  kernels({ inputs: [, , p], attributes: { squared }, target, read, write }) {
    const { images, pixels } = extents(p!);
    const { source, workgroups } = diceGradientKernel({ label: `diceGradient [${p!.shape.join(', ')}]`, images, pixels, squared, target });
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), read(2), read(3), write(0)], flops: 5 * images * pixels, bytes: 12 * images * pixels + 12 * images }];
  },
  reference([g, ratio, p, t], { inputs: [, , spec], attributes: { squared } }) {
    const { pixels } = extents(spec!);
    return [p!.map((value, i) => {
      const image = Math.floor(i / pixels);
      const [numerator, denominator] = [ratio![2 * image]!, ratio![2 * image + 1]!];
      return (g![image]! * ((numerator / denominator) * (squared ? 2 * value : 1) - 2 * t![i]!)) / denominator;
    })];
  },
};

/**
 * @param p, t [B, ..]: prediction and truth, from 0 to 1
 * @param options.squared whether the sums below are of squares, which pulls sure predictions less
 * @returns the loss of each image, [B]
 */
export function dice(p: Tensor, t: Tensor, { squared = false }: { squared?: boolean } = {}): Tensor {
  return apply(diceOperation, [p, t], { squared })[0]!;
}
