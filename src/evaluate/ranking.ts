/**
 * How well scores rank anomalous above normal: AUROC, average precision and the best F1, all exact, ties included.
 * Positives and negatives are sorted apart and merged from the highest score down, so a data set of tens of millions
 * of pixels needs one native sort of 32-bit numbers and no index array.
 *
 *   AUROC = P(positive > negative) + P(equal)/2    AP = sum (R_n - R_(n-1)) P_n    F1max = max 2PR/(P + R + 1e-7)
 *
 * with n over the distinct scores, as scikit-learn defines the first two and the reference code of INP-Former the last.
 */
import { UsageError } from '../errors.ts';

export interface RankingMetrics {
  readonly auroc: number;
  readonly averagePrecision: number;
  readonly f1Max: number;
  /** The score at which the best F1 is reached: "anomalous" means score >= f1Threshold. */
  readonly f1Threshold: number;
}

/** Keeps the reference's F1 defined where precision and recall are both 0; it costs a perfect ranking 5e-8. */
const F1_EPSILON = 1e-7;

/**
 * The metrics of scores against labels (non-zero = anomalous), or null unless both classes occur.
 * @throws UsageError if the lengths differ or a score is NaN.
 */
export function rankingMetrics(scores: ArrayLike<number>, labels: ArrayLike<number>): RankingMetrics | null {
  if (scores.length !== labels.length) {
    throw new UsageError(`rankingMetrics: ${scores.length} scores but ${labels.length} labels.`);
  }
  const positives: number[] = [];
  const negatives: number[] = [];
  for (let i = 0; i < scores.length; i++) (labels[i] === 0 ? negatives : positives).push(scores[i]!);
  return rankingMetricsOfClasses(new Float64Array(positives), new Float64Array(negatives));
}

/**
 * The same for scores that are apart already. SORTS BOTH ARRAYS IN PLACE, because a copy of a data set's pixels
 * would double the memory.
 */
export function rankingMetricsOfClasses(
  positives: Float32Array | Float64Array,
  negatives: Float32Array | Float64Array,
): RankingMetrics | null {
  const numPositives = positives.length;
  const numNegatives = negatives.length;
  if (numPositives === 0 || numNegatives === 0) return null;
  positives.sort();
  negatives.sort();
  // Typed arrays sort NaN to the end.
  if (Number.isNaN(positives[numPositives - 1]) || Number.isNaN(negatives[numNegatives - 1])) {
    throw new UsageError('rankingMetrics: a score is NaN; scores must be numbers.');
  }

  let truePositives = 0;
  let falsePositives = 0;
  let rankSum = 0; // pairs that are ordered rightly, ties as halves: an integer or half, exact below 2^52
  let averagePrecision = 0;
  let f1Max = -1;
  let f1Threshold = NaN;
  for (let p = numPositives - 1, n = numNegatives - 1; p >= 0 || n >= 0;) {
    const score = p < 0 ? negatives[n]! : n < 0 ? positives[p]! : Math.max(positives[p]!, negatives[n]!);
    const before = truePositives;
    const falseBefore = falsePositives;
    while (p >= 0 && positives[p] === score) { p--; truePositives++; }
    while (n >= 0 && negatives[n] === score) { n--; falsePositives++; }
    rankSum += (falsePositives - falseBefore) * (before + truePositives) / 2;
    // Without a new positive the recall stands still and the precision falls: neither sum nor maximum changes.
    if (truePositives === before) continue;
    const precision = truePositives / (truePositives + falsePositives);
    const recall = truePositives / numPositives;
    averagePrecision += (truePositives - before) / numPositives * precision;
    const f1 = 2 * precision * recall / (precision + recall + F1_EPSILON);
    if (f1 > f1Max) {
      f1Max = f1;
      f1Threshold = score;
    }
  }
  return { auroc: rankSum / (numPositives * numNegatives), averagePrecision, f1Max, f1Threshold };
}
