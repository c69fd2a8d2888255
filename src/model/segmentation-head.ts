/**
 * INP-Former++'s segmentation head: from the residual (1 - cos) |en - de| of every token and channel to the probability
 * that a pixel is defective, on a grid four times as fine as the tokens'.
 *
 *   transposed conv k4 s2 p1, C -> C/3, ReLU;  the same, C/3 -> C/12, ReLU;  conv 3x3, C/12 -> 1, sigmoid
 *
 * Source: arXiv 2506.03660, section III-D. Its sizes are not published; these are this project's choice.
 */
import { scope, sizeOf, type Tensor } from '../graph/tensor.ts';
import { reshape } from '../ops/index.ts';
import { relu, sigmoid, transposedConvolution, transposedGrid, type Grid } from '../ops/plus.ts';
import { tokenGrid, type DetectorConfig } from './config.ts';
import { headLayers, headShapes } from './parameters.ts';

export interface SegmentationHead {
  /** [B, 16 N], row by row over `grid`. */
  readonly probability: Tensor;
  readonly grid: Grid;
  /** After the first and the second ReLU, [B, 4 N, C/3] and [B, 16 N, C/12]. */
  readonly hidden: readonly Tensor[];
}

/**
 * @param residual [B, N, C], row by row over `grid`
 * @param get the tensors by name, `head.0.weight` and so on
 */
export function segmentationHead(residual: Tensor, get: (name: string) => Tensor, grid: Grid): SegmentationHead {
  return scope('head', () => {
    const hidden: Tensor[] = [];
    let x = residual;
    let at = grid;
    for (const [i, geometry] of headLayers.entries()) {
      const isLast = i === headLayers.length - 1;
      const y = scope(String(i), () => transposedConvolution(x, get(`head.${i}.weight`), get(`head.${i}.bias`), { ...geometry, grid: at }));
      at = transposedGrid(at, geometry);
      x = isLast ? sigmoid(y) : relu(y);
      if (!isLast) hidden.push(x);
    }
    return { probability: reshape(x, [x.shape[0]!, x.shape[1]!]), grid: at, hidden };
  });
}

/** Bytes of the head's largest tensor for one image: the patches of a layer before they are added up. */
export function headBytesPerImage(config: DetectorConfig): number {
  const shapes = headShapes(config);
  let { count } = tokenGrid(config);
  return Math.max(...headLayers.map(({ stride }, i) => {
    const [inputs, ...patch] = shapes.get(`head.${i}.weight`)!;
    const bytes = 4 * count * Math.max(inputs!, sizeOf(patch));
    count *= stride ** 2;
    return bytes;
  }));
}
