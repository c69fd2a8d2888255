/**
 * The seven numbers that anomaly-detection papers report, from each image's score, label, anomaly map and mask:
 * image and pixel AUROC, average precision and best F1, and AUPRO (the reference's reading, 200 thresholds, and exact).
 * Images come one at a time and their maps are not kept, so a category of any size can be measured.
 */
import { UsageError } from '../errors.ts';
import { auproExact, auproOfficial } from './aupro.ts';
import { PixelScores, type PixelScoresOptions } from './pixel-scores.ts';
import { groupScores, rankingCurves, rankingMetrics, type RankingCurves } from './ranking.ts';

export { auproExact, auproOfficial, pixelScores } from './aupro.ts';
export { PixelScores, type PixelScoresOptions, type ScoredMap } from './pixel-scores.ts';
export { groupScores, rankingCurves, rankingMetrics, type RankingCurves, type RankingMetrics, type ScoreGroups } from './ranking.ts';

export interface EvaluationSample {
  /** The image's anomaly score; higher is more anomalous. */
  readonly score: number;
  /** 0 normal, 1 defective. */
  readonly label: 0 | 1;
  /** Anomaly map, `width * height`, row-major; maps of different images may differ in size. */
  readonly map?: Float32Array;
  /** Ground truth at the map's size, non-zero = anomalous. A normal image needs none (all zero is meant). */
  readonly mask?: Uint8Array;
  /** Size of map and mask; needed with a map. */
  readonly width?: number;
  readonly height?: number;
  /** What errors call it, e.g. its file. */
  readonly name?: string;
}

/**
 * All in [0, 1]. A number is null where it is undefined: the image metrics without both normal and defective images,
 * the pixel metrics and AUPRO without both normal and anomalous pixels. (null, not NaN, because it survives JSON.)
 */
export interface EvaluationMetrics {
  readonly imageAuroc: number | null;
  readonly imageAp: number | null;
  readonly imageF1Max: number | null;
  readonly pixelAuroc: number | null;
  readonly pixelAp: number | null;
  readonly pixelF1Max: number | null;
  /** With 200 thresholds, as the reference computes it. */
  readonly aupro: number | null;
}

/** The metrics in the order in which papers print them, with their usual names. */
export const METRIC_NAMES: readonly (readonly [keyof EvaluationMetrics, string])[] = [
  ['imageAuroc', 'I-AUROC'], ['imageAp', 'I-AP'], ['imageF1Max', 'I-F1max'],
  ['pixelAuroc', 'P-AUROC'], ['pixelAp', 'P-AP'], ['pixelF1Max', 'P-F1max'], ['aupro', 'AUPRO'],
];

export interface Evaluation extends EvaluationMetrics {
  /** Over every distinct score instead of 200 thresholds. */
  readonly auproExact: number | null;
  readonly images: number;
  readonly defectiveImages: number;
  /** Images that the pixel metrics use: those with a map that are normal or have a mask. */
  readonly pixelImages: number;
  /** Defective images with a map but without a mask: left out of the pixel metrics. */
  readonly imagesWithoutMask: number;
}

/** Curves to be drawn; null where the metrics are. */
export interface EvaluationCurves {
  readonly image: RankingCurves | null;
  readonly pixel: RankingCurves | null;
}

/** Measures a data set image by image. Memory does not grow with their number, beyond that of {@link PixelScores}. */
export class Evaluator {
  private readonly scores: number[] = [];
  private readonly labels: (0 | 1)[] = [];
  private readonly pixels: PixelScores;
  private pixelImages = 0;
  private imagesWithoutMask = 0;

  constructor(options: PixelScoresOptions = {}) {
    this.pixels = new PixelScores(options);
  }

  /** @throws UsageError for a NaN score, a label other than 0 or 1, or sizes that do not agree; InputError for a map that is not finite. */
  add({ score, label, map, mask, width = 0, height = 0, name = `sample ${this.scores.length}` }: EvaluationSample): void {
    if (Number.isNaN(score)) throw new UsageError(`${name}: its score is NaN; a score must be a number.`);
    if (label !== 0 && label !== 1) throw new UsageError(`${name}: its label is ${String(label)}; expected 0 or 1.`);
    if (map && (label === 0 || mask)) {
      this.pixels.add({ map, width, height, name, ...(mask && { mask }) });
      this.pixelImages++;
    } else if (map) this.imagesWithoutMask++;
    this.scores.push(score);
    this.labels.push(label);
  }

  result(): Evaluation {
    const image = rankingMetrics(groupScores(this.scores, this.labels));
    const pixel = rankingMetrics(this.pixels);
    return {
      imageAuroc: image?.auroc ?? null,
      imageAp: image?.averagePrecision ?? null,
      imageF1Max: image?.f1Max ?? null,
      pixelAuroc: pixel?.auroc ?? null,
      pixelAp: pixel?.averagePrecision ?? null,
      pixelF1Max: pixel?.f1Max ?? null,
      aupro: auproOfficial(this.pixels)?.aupro ?? null,
      auproExact: auproExact(this.pixels),
      images: this.scores.length,
      defectiveImages: this.labels.filter((label) => label === 1).length,
      pixelImages: this.pixelImages,
      imagesWithoutMask: this.imagesWithoutMask,
    };
  }

  curves(): EvaluationCurves {
    return { image: rankingCurves(groupScores(this.scores, this.labels)), pixel: rankingCurves(this.pixels) };
  }
}

/** Evaluates a data set that is at hand as a whole; errors as in {@link Evaluator.add}. */
export function evaluate(samples: Iterable<EvaluationSample>): Evaluation {
  const evaluator = new Evaluator();
  for (const sample of samples) evaluator.add(sample);
  return evaluator.result();
}

/** Each metric's mean over the categories for which it is defined, as papers average; null where it is defined for none. */
export function averageMetrics(evaluations: readonly EvaluationMetrics[]): EvaluationMetrics {
  return Object.fromEntries(METRIC_NAMES.map(([key]) => {
    const values = evaluations.map((evaluation) => evaluation[key]).filter((value) => value !== null);
    return [key, values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length];
  })) as unknown as EvaluationMetrics;
}
