/**
 * `inp-former evaluate`: the seven metrics of the papers on an MVTec-style folder, and how the calibrated threshold does
 * there. Ground truth takes the reference's path to the map's grid.
 */
import { join } from 'node:path';
import { testImages, type LabelledImage } from '../../data/layout.ts';
import { preprocessMask } from '../../data/preprocess.ts';
import { InputError } from '../../errors.ts';
import { evaluate as measure, type Evaluation, type EvaluationSample } from '../../evaluate/evaluate.ts';
import { Inspector } from '../../inspect/inspector.ts';
import type { Precision } from '../../model/parameters.ts';
import { readFileChecked } from '../files.ts';
import { listFolder } from '../folders.ts';
import { decodeImageFile } from '../images.ts';
import { duration, table, type CommandContext, type CommonOptions } from './context.ts';
import { openEncoderOf } from './encoders.ts';
import { decodedBatches, type FailedImage } from './inspect.ts';

export interface EvaluateCommandOptions extends CommonOptions {
  readonly model: string;
  readonly data: string;
  readonly encoder?: string;
  readonly limitPerClass?: number;
  readonly threshold?: number;
  readonly batchSize: number;
  readonly precision: Precision;
  readonly skipUnreadable?: boolean;
  readonly zeroShot?: boolean;
}

export async function evaluate(options: EvaluateCommandOptions, context: CommandContext): Promise<number> {
  const { model, data, limitPerClass, threshold, adapter, skipUnreadable = false } = options;
  const started = performance.now();
  const tests = limitPerFolder(testImages(await listFolder(data), data), limitPerClass);
  const bytes = await readFileChecked(model);
  const metadata = Inspector.readMetadata(bytes, model);
  const encoder = await openEncoderOf(metadata, options.encoder, context);
  const engine = await context.engine(adapter);
  const progress = context.progress();
  try {
    await progress.begin('opening', 1);
    const batchSize = Math.min(options.batchSize, tests.length);
    const inspector = await Inspector.open(engine, bytes, encoder, { batchSize, name: model, precision: options.precision, ...(options.zeroShot && { mode: 'zero-shot' }) });
    if (threshold !== undefined) inspector.threshold = threshold;

    await progress.begin('inspecting', tests.length);
    const byFile = new Map(tests.map((test) => [join(data, test.path), test]));
    const samples: EvaluationSample[] = [];
    const outcomes: Outcome[] = [];
    const skipped: FailedImage[] = [];
    for await (const { images, failures } of decodedBatches([...byFile.keys()], batchSize, context.signal)) {
      for (const failure of failures) {
        if (!skipUnreadable) throw new InputError(`${failure.reason} (--skip-unreadable leaves such images out.)`, { file: failure.file });
        context.warn(`skipped: ${failure.reason}`);
        skipped.push(failure);
      }
      const inspections = images.length === 0 ? [] : await inspector.inspectBatch(images.map(({ image }) => image));
      for (const [i, { score, map, mapWidth, mapHeight, verdict }] of inspections.entries()) {
        const { file } = images[i]!;
        const { label, defect, maskPath } = byFile.get(file)!;
        const mask = maskPath === undefined ? undefined : preprocessMask(await decodeImageFile(join(data, maskPath)), {
          resize: metadata.resize, crop: metadata.crop, mapSize: { width: mapWidth, height: mapHeight },
        });
        samples.push({ name: file, score, label, map, width: mapWidth, height: mapHeight, ...(mask && { mask }) });
        outcomes.push({ defect, label, flagged: verdict === 'defective' });
      }
      progress.update(samples.length + skipped.length, tests.length, '');
    }
    const usedThreshold = inspector.threshold;
    inspector.dispose();
    if (samples.length === 0) throw new InputError(`${data}: none of its ${tests.length} test images could be read.`, { file: data });

    await progress.begin('metrics', 1);
    const evaluation = measure(samples);
    progress.end();
    const seconds: Record<string, number> = { ...progress.seconds, total: (performance.now() - started) / 1000 };
    const rates = outcomeRates(outcomes);

    context.field('Images', `${evaluation.images} (${evaluation.defectiveImages} defective), ${evaluation.pixelImages} with pixel ground truth${skipped.length > 0 ? `, ${skipped.length} skipped` : ''}`);
    if (evaluation.imagesWithoutMask > 0) context.warn(`${evaluation.imagesWithoutMask} defective images have no mask in ground_truth and count only for the image metrics.`);
    context.say();
    context.say(metricsTable([[metadata.encoder.name, evaluation]]));
    context.say();
    if (Number.isNaN(usedThreshold)) context.field('Threshold', 'none in zero-shot inspection; --threshold judges one');
    else context.field('Threshold', `${usedThreshold.toPrecision(4)}: ${ratesInWords(rates)}`);
    if (!Number.isNaN(usedThreshold)) context.say(table(['test folder', 'images', 'flagged'], rates.perFolder.map(({ defect, images, flagged }) => [defect, String(images), String(flagged)]), [1, 2]));
    context.say();
    context.field('Time', Object.entries(seconds).map(([phase, time]) => `${phase} ${duration(time)}`).join(', '));
    context.result({
      command: 'evaluate',
      ...evaluation,
      zeroShot: options.zeroShot ?? false,
      ...(!Number.isNaN(usedThreshold) && { threshold: usedThreshold, ...rates }),
      skipped,
      model,
      data,
      encoder: metadata.encoder,
      resize: metadata.resize,
      crop: metadata.crop,
      adapter: { name: engine.adapter.name, isSoftware: engine.adapter.isSoftware },
      imagesPerSecond: samples.length / seconds['inspecting']!,
      seconds,
    });
    return 0;
  } finally {
    progress.end();
    engine.dispose();
  }
}

/** The first images, in name order, of each test folder. */
export function limitPerFolder(tests: readonly LabelledImage[], limit: number | undefined): LabelledImage[] {
  if (limit === undefined) return [...tests];
  const counts = new Map<string, number>();
  return tests.filter(({ defect }) => {
    const count = counts.get(defect) ?? 0;
    counts.set(defect, count + 1);
    return count < limit;
  });
}

export interface Outcome {
  readonly defect: string;
  readonly label: 0 | 1;
  /** Whether the verdict was defective. */
  readonly flagged: boolean;
}

export interface OutcomeRates {
  /** Share of the normal images that were flagged; null without any. */
  readonly falsePositiveRate: number | null;
  /** Share of the defective images that were not; null without any. */
  readonly missRate: number | null;
  readonly perFolder: { readonly defect: string; readonly images: number; readonly flagged: number }[];
}

export function outcomeRates(outcomes: readonly Outcome[]): OutcomeRates {
  const share = (label: 0 | 1, flagged: boolean) => {
    const all = outcomes.filter((outcome) => outcome.label === label);
    return all.length === 0 ? null : all.filter((outcome) => outcome.flagged === flagged).length / all.length;
  };
  const folders = [...new Set(outcomes.map(({ defect }) => defect))];
  return {
    falsePositiveRate: share(0, true),
    missRate: share(1, false),
    perFolder: folders.map((defect) => {
      const all = outcomes.filter((outcome) => outcome.defect === defect);
      return { defect, images: all.length, flagged: all.filter(({ flagged }) => flagged).length };
    }),
  };
}

export function ratesInWords({ falsePositiveRate, missRate }: OutcomeRates): string {
  const percent = (share: number | null, of: string) => (share === null ? `no ${of} images to judge by` : `${(100 * share).toFixed(1)} % of the ${of} images`);
  return `flags ${percent(falsePositiveRate, 'good')}, misses ${percent(missRate, 'defective')}`;
}

/** One row per data set, the seven metrics as columns. */
export function metricsTable(rows: readonly (readonly [string, Evaluation])[], title = ''): string {
  const number = (value: number | null) => (value === null ? '-' : value.toFixed(3));
  return table(
    [title, 'I-AUROC', 'I-AP', 'I-F1max', 'P-AUROC', 'P-AP', 'P-F1max', 'AUPRO'],
    rows.map(([name, e]) => [name, ...[e.imageAuroc, e.imageAp, e.imageF1Max, e.pixelAuroc, e.pixelAp, e.pixelF1Max, e.aupro].map(number)]),
    [1, 2, 3, 4, 5, 6, 7],
  );
}
