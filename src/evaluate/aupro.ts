/**
 * AUPRO: the area under the per-region-overlap curve. At a threshold t, PRO(t) is the mean over all ground-truth
 * regions of the share of the region's pixels with score > t, and FPR(t) the share of all normal pixels with
 * score > t; the area under PRO over FPR is taken up to FPR 0.3 and divided by 0.3, so that small defects count as
 * much as large ones. Regions are 8-connected. Two readings exist, and they differ where scores tie:
 * `auproOfficial` is the reference code's, `auproExact` integrates over every distinct score.
 */
import { PixelScores, type ScoredMap } from './pixel-scores.ts';

export interface AuproOfficial {
  readonly aupro: number;
  /** The curve: the thresholds and, at each, PRO and FPR. */
  readonly thresholds: Float64Array;
  readonly pro: Float64Array;
  readonly fpr: Float64Array;
}

export const AUPRO_FPR_LIMIT = 0.3;
const NUM_THRESHOLDS = 200;

/** The scores of a list of maps, which is what the metrics of pixels are computed from. */
export function pixelScores(maps: Iterable<ScoredMap>): PixelScores {
  const scores = new PixelScores();
  for (const scored of maps) scores.add(scored);
  return scores;
}

/**
 * The reference's AUPRO: 200 thresholds min + i (max - min)/200; the points with FPR < 0.3 are kept, their FPR divided
 * by the largest one, and the trapezoids summed. No (0, 0) is added and the curve is not extended to 0.3.
 * Two cases in which the reference fails are settled here: if no normal pixel is above any kept threshold (0/0 there),
 * the result is the highest PRO reached at FPR 0; if no threshold keeps FPR below 0.3, it is 0.
 * Null unless there are both regions and normal pixels.
 */
export function auproOfficial(scores: PixelScores): AuproOfficial | null {
  if (scores.regions === 0 || scores.negatives === 0) return null;
  const [lowest, highest] = scores.range;
  // The step as numpy's arange rounds it: where scores are quantised, its last bit decides on which side of a score a
  // threshold falls.
  const step = lowest + (highest - lowest) / NUM_THRESHOLDS - lowest;
  const thresholds = Float64Array.from({ length: NUM_THRESHOLDS }, (_, i) => lowest + i * step);
  const pro = new Float64Array(NUM_THRESHOLDS);
  const fpr = new Float64Array(NUM_THRESHOLDS);
  let above = 0;
  let covered = 0;
  let unsettled = NUM_THRESHOLDS;
  /** Nothing more is above the thresholds from `floor` up. */
  const settleDownTo = (floor: number): void => {
    for (let i = unsettled - 1; i >= 0 && thresholds[i]! >= floor; i--) {
      fpr[i] = above / scores.negatives;
      pro[i] = share(covered, scores.regions);
      unsettled = i;
    }
  };
  scores.descend((score, _, negatives, weight) => {
    settleDownTo(score);
    above += negatives;
    covered += weight;
  });
  settleDownTo(-Infinity);

  // FPR falls as the threshold rises, so the kept points are the last ones.
  const firstKept = fpr.findIndex((rate) => rate < AUPRO_FPR_LIMIT);
  let aupro = 0;
  if (firstKept >= 0) {
    const largest = fpr[firstKept]!;
    if (largest === 0) aupro = pro[firstKept]!;
    else {
      for (let i = firstKept; i + 1 < NUM_THRESHOLDS; i++) aupro += (fpr[i]! - fpr[i + 1]!) / largest * (pro[i]! + pro[i + 1]!) / 2;
    }
  }
  return { aupro, thresholds, pro, fpr };
}

/**
 * AUPRO over every distinct score: the curve starts at (0, 0), is linear between its points, is cut (interpolated) at
 * FPR 0.3 and divided by 0.3. Null unless there are both regions and normal pixels.
 */
export function auproExact(scores: PixelScores): number | null {
  if (scores.regions === 0 || scores.negatives === 0) return null;
  let area = 0;
  let fpr = 0;
  let pro = 0;
  let above = 0;
  let covered = 0;
  scores.descend((_score, _positives, negatives, weight) => {
    if (fpr >= AUPRO_FPR_LIMIT) return;
    above += negatives;
    covered += weight;
    const fprHere = above / scores.negatives;
    const proHere = share(covered, scores.regions);
    const end = Math.min(fprHere, AUPRO_FPR_LIMIT);
    if (fprHere > fpr) {
      const proAtEnd = pro + (end - fpr) / (fprHere - fpr) * (proHere - pro);
      area += (end - fpr) * (pro + proAtEnd) / 2;
    }
    fpr = fprHere;
    pro = proHere;
  });
  return area / AUPRO_FPR_LIMIT;
}

/** The sum of many small weights may end a rounding above the number of regions. */
function share(covered: number, regions: number): number {
  return Math.min(1, covered / regions);
}
