/**
 * Views of images, as few-shot training makes them: an affine map about the centre, sampled bilinearly, with the image mirrored
 * at its edges; and grey. With (x, y) from the centre, the source is (a x + b y + tx, c x + d y + ty). Quarter turns and
 * flips hit pixels exactly.
 *
 * Source: aug_funcs.py of luow23/INP-Former (torch's affine_grid and grid_sample, padding_mode 'reflection').
 */
import { luma, warpImageKernel } from '../../shaders/warp-image.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor } from '../graph/tensor.ts';

/** Values of a view: a, b, c, d, tx, ty in pixels, and 1 where it is grey. */
export const viewLength = 7;

export const warpImageOperation: Operation<null> = {
  name: 'warpImage',
  outputs([image, views]) {
    const [batch, channels, height, width] = image!.shape;
    const [count, length] = views!.shape;
    if (image!.shape.length !== 4 || channels !== 3 || views!.shape.length !== 2 || length !== viewLength || (batch !== 1 && batch !== count)) {
      throw new UsageError(`warpImage: expected images [1 or V, 3, H, W] and views [V, ${viewLength}], got [${image!.shape.join(', ')}] and [${views!.shape.join(', ')}].`);
    }
    return [{ shape: [count!, 3, height!, width!], dtype: 'f32' }];
  },
  kernels({ inputs: [image], outputs: [y], target, read, write }) {
    const [count, , height, width] = y!.shape as [number, number, number, number];
    const { source, workgroups } = warpImageKernel({ label: `warpImage [${y!.shape.join(', ')}]`, views: count, images: image!.shape[0]!, height, width, target });
    const size = sizeOf(y!.shape);
    return [{ kernel: source, workgroups, bindings: [read(0), read(1), write(0)], flops: 10 * size, bytes: 4 * (sizeOf(image!.shape) + size) }];
  },
  reference([image, views], { inputs: [spec], outputs: [y] }) {
    const [count, , height, width] = y!.shape as [number, number, number, number];
    const pixels = height * width;
    const result = new Float64Array(sizeOf(y!.shape));
    const mirrored = (source: number, size: number): number => {
      const from = Math.abs(source + 0.5);
      const turn = Math.floor(from / size);
      const rest = from - turn * size;
      return Math.min(Math.max((turn % 2 === 0 ? rest : size - rest) - 0.5, 0), size - 1);
    };
    for (let v = 0; v < count; v++) {
      const [a, b, c, d, tx, ty, grey] = views!.subarray(v * viewLength) as unknown as [number, number, number, number, number, number, number];
      const at = spec!.shape[0] === 1 ? 0 : v * 3 * pixels;
      for (let i = 0; i < pixels; i++) {
        const [x, y0] = [(i % width) - (width - 1) / 2, Math.floor(i / width) - (height - 1) / 2];
        const column = mirrored(a * x + b * y0 + tx + (width - 1) / 2, width);
        const row = mirrored(c * x + d * y0 + ty + (height - 1) / 2, height);
        const [left, top] = [Math.floor(column), Math.floor(row)];
        const [right, bottom] = [Math.min(left + 1, width - 1), Math.min(top + 1, height - 1)];
        const [fx, fy] = [column - left, row - top];
        const sampled = [0, 1, 2].map((channel) => {
          const pixel = (r: number, q: number): number => image![at + channel * pixels + r * width + q]!;
          return (1 - fy) * ((1 - fx) * pixel(top, left) + fx * pixel(top, right)) + fy * ((1 - fx) * pixel(bottom, left) + fx * pixel(bottom, right));
        });
        const grey1 = sampled.reduce((sum, value, channel) => sum + luma[channel]! * value, 0);
        sampled.forEach((value, channel) => { result[(v * 3 + channel) * pixels + i] = grey !== 0 ? grey1 : value; });
      }
    }
    return [result];
  },
};

/**
 * @param image [V, 3, H, W], or [1, 3, H, W] for V views of one image
 * @param views [V, 7], see {@link viewLength}
 * @returns [V, 3, H, W]
 */
export function warpImage(image: Tensor, views: Tensor): Tensor {
  return apply(warpImageOperation, [image, views], null)[0]!;
}
