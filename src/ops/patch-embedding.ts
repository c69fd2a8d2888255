/**
 * The encoder's first layer: y[b, (py, px), o] = bias[o] + sum_{c, ky, kx} weight[o, c, ky, kx] image[b, c, py p + ky, px p + kx],
 * a p x p convolution of stride p, done as a matrix product whose left side is gathered from the image. Frozen: no gradient.
 */
import { patchEmbeddingKernel } from '../../shaders/patch-embedding.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';

function geometry([image, weight]: readonly TensorSpec[]) {
  const [batch, inputChannels, height, width] = image!.shape as [number, number, number, number];
  const [channels, , patch] = weight!.shape as [number, number, number];
  return { batch, inputChannels, height, width, channels, patch, rows: height / patch, columns: width / patch };
}

export const patchEmbeddingOperation: Operation<null> = {
  name: 'patchEmbedding',
  outputs(inputs) {
    const [image, weight, bias] = inputs as [TensorSpec, TensorSpec, TensorSpec];
    const g = geometry(inputs);
    if (image.shape.length !== 4 || weight.shape.join() !== [g.channels, g.inputChannels, g.patch, g.patch].join() || bias.shape.join() !== `${g.channels}`) {
      throw new UsageError(
        `patchEmbedding: image [${image.shape.join(', ')}], weight [${weight.shape.join(', ')}] and bias [${bias.shape.join(', ')}] do not fit; `
        + 'expected [B, 3, H, W], [C, 3, p, p] and [C].',
      );
    }
    if (!Number.isInteger(g.rows) || !Number.isInteger(g.columns)) {
      throw new UsageError(`patchEmbedding: an image of ${g.width} x ${g.height} is not divisible into patches of ${g.patch}; choose a crop that is.`);
    }
    return [{ shape: [g.batch, g.rows * g.columns, g.channels], dtype: 'f32' }];
  },
  kernels({ inputs, outputs: [y], target, read, write }) {
    const g = geometry(inputs);
    const { source, workgroups } = patchEmbeddingKernel({ label: `patchEmbedding [${inputs[0]!.shape.join(', ')}] to [${y!.shape.join(', ')}]`, target, ...g });
    return [{
      kernel: source, workgroups,
      bindings: [read(0), read(1), read(2), write(0)],
      flops: 2 * sizeOf(y!.shape) * g.inputChannels * g.patch ** 2,
      bytes: 4 * [...inputs, y!].reduce((sum, t) => sum + sizeOf(t.shape), 0),
    }];
  },
  reference([image, weight, bias], { inputs }) {
    const { batch, inputChannels, height, width, channels, patch, rows, columns } = geometry(inputs);
    const y = new Float64Array(batch * rows * columns * channels);
    let at = 0;
    for (let b = 0; b < batch; b++) {
      for (let py = 0; py < rows; py++) {
        for (let px = 0; px < columns; px++) {
          for (let o = 0; o < channels; o++) {
            let sum = bias![o]!;
            for (let c = 0; c < inputChannels; c++) {
              for (let ky = 0; ky < patch; ky++) {
                for (let kx = 0; kx < patch; kx++) {
                  sum += weight![((o * inputChannels + c) * patch + ky) * patch + kx]!
                    * image![((b * inputChannels + c) * height + py * patch + ky) * width + px * patch + kx]!;
                }
              }
            }
            y[at++] = sum;
          }
        }
      }
    }
    return [y];
  },
};

/**
 * @param image [B, 3, H, W], H and W multiples of p
 * @param weight [C, 3, p, p]
 * @param bias [C]
 * @returns tokens [B, H/p * W/p, C], row by row over the grid
 */
export function patchEmbedding(image: Tensor, weight: Tensor, bias: Tensor): Tensor {
  return apply(patchEmbeddingOperation, [image, weight, bias], null)[0]!;
}
