/**
 * INP-Former++'s anomaly map (Eq. 9): reconstruction = (cosine + L2) / 2, final = (reconstruction + head) / 2.
 *
 * The paper does not say how the L2 map, the mean over channels of (en - de)^2, is brought to the cosine's scale, without which
 * the encoder's units would decide which of them counts. Here it is divided by twice the mean of en^2 over the image: where de
 * has en's length and that is the average one, |en - de|^2 / 2 |en|^2 is 1 - cos. So both lie between 0 and about 2.
 *
 * Both maps of the reconstruction are means over the feature groups on the tokens' grid, and go the reference's way: bilinear
 * (align_corners) to the crop, bilinear to the map's size, blur. The head's probabilities, on a grid four times as fine, are
 * cell values, so they are resized to the crop without align_corners, as in training, then to the map's size and blurred
 * alike. All of that is linear: each part goes its way in one pair of matrices, and the parts are added at the end.
 */
import { toSize } from '../data/preprocess.ts';
import { scope, type Tensor } from '../graph/tensor.ts';
import { add, composeTaps, gaussianWeights, meanOf, resampleBy, resampleTaps, reshape, scale, stack, tokenCosine, topMean, unstack, windowTaps, type TapTable } from '../ops/index.ts';
import { relativeSquaredError, residual } from '../ops/plus.ts';
import { tokenGrid, type DetectorConfig } from './config.ts';
import { longestBinding, type ParameterLeaves } from './parameters.ts';
import { scoredFraction, scoreTokenMaps, type ScoreFunction } from './scoring.ts';
import { headBytesPerImage, segmentationHead } from './segmentation-head.ts';

/** One axis of the way from the head's grid to the map. */
export function headToMap(cells: number, crop: number, mapSize: number): TapTable {
  return composeTaps(resampleTaps('bilinear', cells, crop), resampleTaps('bilinear', crop, mapSize), windowTaps(gaussianWeights({ size: 5, sigma: 4 }), mapSize));
}

export const scoreFused: ScoreFunction = ({ encoder, decoder, parameters, config, mapSize }) => scope('score', () => {
  const { height, width } = toSize(mapSize);
  const groups = encoder.map((en, g) => ({ en, de: decoder[g]!, ...tokenCosine(en, decoder[g]!) }));
  const distance = meanOf(groups.map((group) => group.distance));
  const tokenMap = config.distance === 'cosine' ? distance : scale(add(distance, meanOf(groups.map(({ en, de, dots }) => relativeSquaredError(en, de, dots)))), 1 / 2);
  const reconstruction = scoreTokenMaps([tokenMap], config, mapSize);
  if (!config.segmentationHead) return reconstruction;

  const { probability, rows, columns } = probabilities(residual(groups), parameters, config);
  const batch = probability.shape[0]!;
  const segmented = resampleBy(reshape(probability, [batch, rows, columns]), {
    vertical: headToMap(rows, config.crop.height, height), horizontal: headToMap(columns, config.crop.width, width),
  });
  const map = scale(add(reconstruction.map, segmented), 1 / 2);
  return { ...reconstruction, map, score: topMean(reshape(map, [batch, height * width]), { fraction: scoredFraction }) };
});

/** The head's output for a batch, image by image where a tensor of all would be too long to be bound. */
function probabilities(residuals: Tensor, parameters: ParameterLeaves, config: DetectorConfig): { probability: Tensor; rows: number; columns: number } {
  const [batch, ...each] = residuals.shape as [number, number, number];
  const headOf = (x: Tensor) => segmentationHead(x, (name) => parameters.get(name), tokenGrid(config));
  if (batch * headBytesPerImage(config) <= longestBinding) {
    const { probability, grid } = headOf(residuals);
    return { probability, ...grid };
  }
  const images = unstack(residuals).map((x) => headOf(reshape(x, [1, ...each])));
  const { grid } = images[0]!;
  return { probability: stack(images.map(({ probability }) => reshape(probability, [grid.rows * grid.columns]))), ...grid };
}
