/**
 * How well scores rank anomalous above normal: AUROC, average precision and the best F1, all exact, ties included, and the
 * ROC and precision-recall curves. All of it is read off the distinct scores from the highest down, with the numbers of
 * anomalous and normal samples at each.
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

/** `weight` belongs to the anomalous samples; what it is, the source says. */
export type VisitGroup = (score: number, positives: number, negatives: number, weight: number) => void;

/** Scores of two classes, grouped by value. */
export interface ScoreGroups {
  /** Number of anomalous samples. */
  readonly positives: number;
  readonly negatives: number;
  /** Visits each distinct score once, from the highest down. */
  descend(visit: VisitGroup): void;
}

/** Keeps the reference's F1 defined where precision and recall are both 0; it costs a perfect ranking 5e-8. */
const F1_EPSILON = 1e-7;

/**
 * Scores with their labels (non-zero = anomalous), for as many as there are images.
 * @throws UsageError if the lengths differ or a score is NaN
 */
export function groupScores(scores: ArrayLike<number>, labels: ArrayLike<number>): ScoreGroups {
  if (scores.length !== labels.length) throw new UsageError(`groupScores: ${scores.length} scores but ${labels.length} labels.`);
  const order = Array.from({ length: scores.length }, (_, i) => i).sort((a, b) => scores[b]! - scores[a]!);
  if (order.some((i) => Number.isNaN(scores[i]))) throw new UsageError('groupScores: a score is NaN; scores must be numbers.');
  const positives = order.filter((i) => labels[i] !== 0).length;
  return {
    positives, negatives: order.length - positives,
    descend: (visit) => {
      for (let i = 0; i < order.length;) {
        const score = scores[order[i]!]!;
        let anomalous = 0;
        let normal = 0;
        for (; i < order.length && scores[order[i]!] === score; i++) {
          if (labels[order[i]!] === 0) normal++;
          else anomalous++;
        }
        visit(score, anomalous, normal, anomalous);
      }
    },
  };
}

/** The metrics, or null unless both classes occur. */
export function rankingMetrics(groups: ScoreGroups): RankingMetrics | null {
  const { positives: numPositives, negatives: numNegatives } = groups;
  if (numPositives === 0 || numNegatives === 0) return null;
  let truePositives = 0;
  let falsePositives = 0;
  let rankSum = 0; // pairs that are ordered rightly, ties as halves: an integer or half, exact below 2^52
  let averagePrecision = 0;
  let f1Max = -1;
  let f1Threshold = NaN;
  groups.descend((score, positives, negatives) => {
    rankSum += negatives * (truePositives + positives / 2);
    truePositives += positives;
    falsePositives += negatives;
    // Without a new positive the recall stands still and the precision falls: neither sum nor maximum changes.
    if (positives === 0) return;
    const precision = truePositives / (truePositives + falsePositives);
    const recall = truePositives / numPositives;
    averagePrecision += positives / numPositives * precision;
    const f1 = 2 * precision * recall / (precision + recall + F1_EPSILON);
    if (f1 > f1Max) {
      f1Max = f1;
      f1Threshold = score;
    }
  });
  return { auroc: rankSum / (numPositives * numNegatives), averagePrecision, f1Max, f1Threshold };
}

export interface RankingCurves {
  /** [false-positive rate, true-positive rate], from (0, 0) to (1, 1). */
  readonly roc: readonly (readonly [number, number])[];
  /** [recall, precision], from the highest score down. */
  readonly precisionRecall: readonly (readonly [number, number])[];
}

/** The curves to be drawn: of their points those that move by at least 1 / `resolution` on either axis. Null unless both classes occur. */
export function rankingCurves(groups: ScoreGroups, resolution = 200): RankingCurves | null {
  const { positives: numPositives, negatives: numNegatives } = groups;
  if (numPositives === 0 || numNegatives === 0) return null;
  const roc = new Polyline(resolution, [0, 0]);
  const precisionRecall = new Polyline(resolution);
  let truePositives = 0;
  let falsePositives = 0;
  groups.descend((_, positives, negatives) => {
    truePositives += positives;
    falsePositives += negatives;
    roc.to(falsePositives / numNegatives, truePositives / numPositives);
    if (truePositives > 0) precisionRecall.to(truePositives / numPositives, truePositives / (truePositives + falsePositives));
  });
  return { roc: roc.points(), precisionRecall: precisionRecall.points() };
}

/** A line of many points, drawn with few: a point is kept when it is far enough from the last kept one, and so is the one before it. */
class Polyline {
  private readonly kept: [number, number][] = [];
  private last: [number, number] | undefined;
  private readonly step: number;

  constructor(resolution: number, start?: [number, number]) {
    this.step = 1 / resolution;
    if (start) this.to(...start);
  }

  to(x: number, y: number): void {
    const from = this.kept.at(-1);
    if (!from || Math.abs(x - from[0]) >= this.step || Math.abs(y - from[1]) >= this.step) {
      if (this.last && this.last !== from && Math.max(Math.abs(x - this.last[0]), Math.abs(y - this.last[1])) >= this.step) this.kept.push(this.last);
      this.kept.push([x, y]);
      this.last = this.kept.at(-1)!;
    } else {
      this.last = [x, y];
    }
  }

  points(): readonly (readonly [number, number])[] {
    const end = this.kept.at(-1);
    return this.last && end !== this.last ? [...this.kept, this.last] : this.kept;
  }
}
