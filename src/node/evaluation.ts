/**
 * A model measured on a category's test images: metrics, how the threshold does, the worst mistakes, the speed. Images are
 * read, inspected and measured one batch at a time, and nothing of them is kept but scores and a few pictures.
 */
import { join } from 'node:path';
import type { LabelledImage } from '../data/dataset.ts';
import type { RasterImage } from '../data/image.ts';
import { InputError } from '../errors.ts';
import { Evaluator, METRIC_NAMES, type Evaluation, type EvaluationCurves, type EvaluationMetrics, type EvaluationSample } from '../evaluate/evaluate.ts';
import { groundTruth } from '../inspect/ground-truth.ts';
import { TRUTH_OUTLINE } from '../inspect/heatmap.ts';
import type { InspectOptions, Inspector } from '../inspect/inspector.ts';
import { decodedBatches, overlayOf, type FailedImage } from './commands/inspect.ts';
import { readMask, type OpenCategory } from './dataset.ts';
import { thumbnail } from './images.ts';

export interface Outcome {
  readonly file: string;
  readonly score: number;
  readonly defect: string;
  readonly label: 0 | 1;
  /** Whether the verdict was defective; undefined where there is no threshold, hence no verdict. */
  readonly flagged?: boolean;
}

export interface OutcomeRates {
  /** Share of the normal images that were flagged; null without any, or without a threshold. */
  readonly falsePositiveRate: number | null;
  /** Share of the defective images that were not; null without any. */
  readonly missRate: number | null;
  readonly perFolder: KindOutcome[];
}

/** The images of one kind: good ones, or those with one kind of defect. */
export interface KindOutcome {
  readonly defect: string;
  readonly images: number;
  readonly flagged: number | null;
  /** Of a kind of defect against all good images. */
  readonly metrics?: EvaluationMetrics;
}

/** An image that was judged wrongly, with pictures to look at. */
export interface Mistake extends Outcome {
  readonly category: string;
  readonly threshold: number;
  /** How far on the wrong side, as a share of the threshold. */
  readonly margin: number;
  readonly source: RasterImage;
  /** The heat map on the calibration's scale; the true defect outlined, where there is a mask. */
  readonly overlay: RasterImage;
}

export interface CategoryResult extends OutcomeRates {
  readonly category: string;
  readonly evaluation: Evaluation;
  readonly curves: EvaluationCurves;
  readonly threshold: number;
  readonly thresholdRule: string;
  readonly outcomes: readonly Outcome[];
  /** The worst first. */
  readonly mistakes: readonly Mistake[];
  readonly skipped: readonly FailedImage[];
  readonly imagesPerSecond: number;
  readonly seconds: { readonly inspecting: number; readonly metrics: number };
}

export interface EvaluateCategoryOptions {
  readonly batchSize: number;
  /** How images are framed, where not by the model alone. */
  readonly framing?: InspectOptions;
  readonly skipUnreadable?: boolean;
  /** At most so many images, in name order, of each kind ('good', each defect). */
  readonly limitPerClass?: number;
  /** Pictures of so many mistakes are kept. */
  readonly mistakes?: number;
  readonly signal: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
  readonly onSkipped?: (reason: string) => void;
}

/** Longer side of the pictures of mistakes, pixels. */
const PICTURE_SIZE = 320;

/**
 * @param inspector with the threshold and, where the model has several, the category that shall judge
 * @throws InputError for an unreadable image (unless `skipUnreadable`), or a mask that does not fit
 */
export async function evaluateCategory(inspector: Inspector, category: OpenCategory, options: EvaluateCategoryOptions): Promise<CategoryResult> {
  const { batchSize, framing, skipUnreadable = false, limitPerClass, mistakes: mostMistakes = 0, signal, onProgress, onSkipped } = options;
  const { folder, name } = category;
  const tests = new Map(limitPerFolder(category.tests, limitPerClass).map((test) => [join(folder, test.path), test]));
  const { metadata, threshold, calibration } = inspector;
  const evaluator = new Evaluator();
  const kinds = new KindEvaluators([...tests.values()]);
  const outcomes: Outcome[] = [];
  const skipped: FailedImage[] = [];
  let mistakes: Mistake[] = [];
  const started = performance.now();
  for await (const { images, failures } of decodedBatches([...tests.keys()], framing?.tile ? 1 : batchSize, signal)) {
    for (const failure of failures) {
      if (!skipUnreadable) throw new InputError(`${failure.reason} (--skip-unreadable leaves such images out.)`, { file: failure.file });
      onSkipped?.(failure.reason);
      skipped.push(failure);
    }
    const inspections = images.length === 0 ? [] : await inspector.inspectBatch(images.map(({ image }) => image), framing);
    for (const [i, inspection] of inspections.entries()) {
      const { file, image } = images[i]!;
      const test = tests.get(file)!;
      const { score, map, mapWidth: width, mapHeight: height, verdict } = inspection;
      const truth = await readMask(test, folder, { ...image, name: file });
      const mask = truth && groundTruth(truth, inspection, metadata);
      const sample: EvaluationSample = { name: file, score, label: test.label, map, width, height, ...(mask && { mask }) };
      evaluator.add(sample);
      kinds.add(sample, test.defect);
      const outcome: Outcome = { file, score, defect: test.defect, label: test.label, ...(Number.isFinite(threshold) && { flagged: verdict === 'defective' }) };
      outcomes.push(outcome);
      const margin = Math.abs(score / threshold - 1);
      if (outcome.flagged === undefined || outcome.flagged === (test.label === 1) || mostMistakes === 0 || (mistakes.length === mostMistakes && margin <= mistakes.at(-1)!.margin)) continue;
      mistakes.push({
        ...outcome, category: name, threshold, margin,
        source: await thumbnail(image, PICTURE_SIZE),
        // Found regions are outlined where the verdict is defective; of a miss, only the truth is.
        overlay: await thumbnail(overlayOf(image, inspection, mask ? [{ mask, colour: TRUTH_OUTLINE }] : []), PICTURE_SIZE),
      });
      mistakes = mistakes.sort((a, b) => b.margin - a.margin).slice(0, mostMistakes);
    }
    onProgress?.(outcomes.length + skipped.length, tests.size);
  }
  if (outcomes.length === 0) throw new InputError(`${folder}: none of the ${tests.size} test images of ${name} could be read.`, { file: folder });
  const inspecting = (performance.now() - started) / 1000;
  const evaluation = evaluator.result();
  const curves = evaluator.curves();
  const rates = outcomeRates(outcomes);
  const perFolder = rates.perFolder.map((kind): KindOutcome => {
    const metrics = kinds.metricsOf(kind.defect, evaluation);
    return { ...kind, ...(metrics && { metrics }) };
  });
  return {
    category: name, evaluation, curves, threshold, thresholdRule: calibration.rule, ...rates, perFolder, outcomes, mistakes, skipped,
    imagesPerSecond: outcomes.length / inspecting,
    seconds: { inspecting, metrics: (performance.now() - started) / 1000 - inspecting },
  };
}

/** Measures each kind of defect against all good images, where there are several. */
class KindEvaluators {
  private readonly kinds: ReadonlySet<string>;
  private readonly evaluators: ReadonlyMap<string, Evaluator>;

  constructor(tests: readonly LabelledImage[]) {
    this.kinds = new Set(tests.filter(({ label }) => label === 1).map(({ defect }) => defect));
    // Smaller than the whole's, because there may be many: a quarter of the distinct scores, in all a few hundred megabytes at most.
    this.evaluators = new Map(this.kinds.size < 2 ? [] : [...this.kinds].map((kind) => [kind, new Evaluator({ bufferSize: 2 ** 20, mostDistinct: 2 ** 22 })]));
  }

  add(sample: EvaluationSample, defect: string): void {
    for (const [kind, evaluator] of this.evaluators) if (sample.label === 0 || kind === defect) evaluator.add(sample);
  }

  /** @param whole where there is one kind alone, its metrics */
  metricsOf(defect: string, whole: Evaluation): EvaluationMetrics | undefined {
    if (!this.kinds.has(defect)) return undefined;
    const evaluation = this.evaluators.get(defect)?.result() ?? whole;
    return Object.fromEntries(METRIC_NAMES.map(([key]) => [key, evaluation[key]])) as unknown as EvaluationMetrics;
  }
}

/** The first images, in name order, of each kind. */
export function limitPerFolder(tests: readonly LabelledImage[], limit: number | undefined): LabelledImage[] {
  if (limit === undefined) return [...tests];
  const counts = new Map<string, number>();
  return tests.filter(({ defect }) => {
    const count = counts.get(defect) ?? 0;
    counts.set(defect, count + 1);
    return count < limit;
  });
}

export function outcomeRates(outcomes: readonly Pick<Outcome, 'defect' | 'label' | 'flagged'>[]): OutcomeRates {
  const share = (label: 0 | 1, flagged: boolean) => {
    const all = outcomes.filter((outcome) => outcome.label === label);
    return all.length === 0 || all.some((outcome) => outcome.flagged === undefined) ? null : all.filter((outcome) => outcome.flagged === flagged).length / all.length;
  };
  const folders = [...new Set(outcomes.map(({ defect }) => defect))];
  return {
    falsePositiveRate: share(0, true),
    missRate: share(1, false),
    perFolder: folders.map((defect) => {
      const all = outcomes.filter((outcome) => outcome.defect === defect);
      return { defect, images: all.length, flagged: all.some(({ flagged }) => flagged === undefined) ? null : all.filter(({ flagged }) => flagged).length };
    }),
  };
}

export function ratesInWords({ falsePositiveRate, missRate }: OutcomeRates): string {
  const percent = (share: number | null, of: string) => (share === null ? `no ${of} images to judge by` : `${(100 * share).toFixed(1)} % of the ${of} images`);
  return `flags ${percent(falsePositiveRate, 'good')}, misses ${percent(missRate, 'defective')}`;
}
