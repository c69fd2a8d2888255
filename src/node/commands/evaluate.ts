/**
 * `inp-former evaluate`: the metrics of the papers for each category of a data set and on average, and how the calibrated
 * threshold does there; as a table, one JSON object, CSV and an HTML report. Ground truth takes the reference's path to the
 * map's grid.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { sizeInWords } from '../../data/preprocess.ts';
import { averageMetrics } from '../../evaluate/evaluate.ts';
import { Inspector } from '../../inspect/inspector.ts';
import type { ModelMetadata } from '../../inspect/model-file.ts';
import type { Precision } from '../../model/parameters.ts';
import { modelFileName, openDatasets, type OpenCategory } from '../dataset.ts';
import { evaluateCategory, outcomeRates, ratesInWords, type CategoryResult, type EvaluateCategoryOptions } from '../evaluation.ts';
import { kindsTable, metricsTable, resultRows, resultsCsv, thresholdTable } from '../evaluation-table.ts';
import { readFileChecked, writeFileAtomic } from '../files.ts';
import { duration, type CommandContext, type CommonOptions, type Progress } from './context.ts';
import { openEncoderOf } from './encoders.ts';
import { inspectOptions, tilesInWords, type FramingOptions } from './inspect.ts';
import { prepareOutputFile } from './output.ts';

export interface EvaluateCommandOptions extends CommonOptions, FramingOptions {
  readonly model: string;
  readonly data: readonly string[];
  readonly categories?: readonly string[];
  readonly encoder?: string;
  readonly limitPerClass?: number;
  readonly threshold?: number;
  readonly batchSize: number;
  readonly precision: Precision;
  readonly skipUnreadable?: boolean;
  readonly zeroShot?: boolean;
  readonly csv?: string;
  readonly html?: string;
}

/** Mistakes shown in the report. */
const WORST_MISTAKES = 12;

export async function evaluate(options: EvaluateCommandOptions, context: CommandContext): Promise<number> {
  const { model, data, adapter, csv, html } = options;
  const started = performance.now();
  const { datasets, categories } = await openDatasets(data, {
    purpose: 'testing', ...(options.categories && { only: options.categories }),
    say: (line) => context.field('Data', line), warn: (text) => context.warn(text),
  });
  if (csv !== undefined) await prepareOutputFile(csv, 'CSV file', 'results.csv', '--csv');
  if (html !== undefined) await prepareOutputFile(html, 'report', 'report.html', '--html');
  // A folder has a model for each category.
  const isFolder = await stat(model).then((info) => info.isDirectory(), () => false);
  const modelFiles = categories.map(({ name }) => (isFolder ? join(model, modelFileName(name)) : model));
  const first = await openModel(modelFiles[0]!);
  const encoder = await openEncoderOf(first.metadata, options.encoder, context);
  const engine = await context.engine(adapter);
  const progress = context.progress();
  try {
    const results: CategoryResult[] = [];
    for (const group of groupBy(categories, (_, i) => modelFiles[i]!)) {
      const { bytes, metadata } = group.key === modelFiles[0] ? first : await openModel(group.key);
      const framing = inspectOptions(options, metadata, context.signal);
      if (framing.tile) context.field('Tiles', tilesInWords(metadata, options.tileOverlap));
      await progress.begin('opening', 1);
      const inspector = await Inspector.open(engine, bytes, encoder, { batchSize: options.batchSize, name: group.key, precision: options.precision, ...(options.zeroShot && { mode: 'zero-shot' }) });
      try {
        results.push(...await evaluateCategories(inspector, group.items, {
          ...options, framing, ...(html !== undefined && { mistakes: WORST_MISTAKES }), signal: context.signal,
        }, progress, context));
      } finally {
        inspector.dispose();
      }
    }
    progress.end();
    const seconds = { ...progress.seconds, total: (performance.now() - started) / 1000 };
    const skipped = results.flatMap((result) => result.skipped);
    const summary = summaryOf(results);

    context.field('Images', `${summary.images} (${summary.defectiveImages} defective), ${summary.pixelImages} with pixel ground truth${skipped.length > 0 ? `, ${skipped.length} skipped` : ''}`);
    context.say();
    context.say(metricsTable(resultRows(results)));
    context.say();
    context.say(thresholdTable(results));
    if (results.length === 1) {
      const [{ threshold, perFolder }] = results as [CategoryResult];
      context.say();
      context.field('Threshold', Number.isFinite(threshold) ? `${threshold.toPrecision(4)}: ${ratesInWords(results[0]!)}` : 'none: give one with --threshold to have verdicts');
      context.say(kindsTable(perFolder));
    }
    context.say();
    context.field('Time', Object.entries(seconds).map(([phase, time]) => `${phase} ${duration(time)}`).join(', '));
    if (csv !== undefined) {
      await writeFileAtomic(csv, resultsCsv(results));
      context.field('CSV', csv);
    }
    if (html !== undefined) {
      const { renderEvaluation } = await import('../evaluation-report.ts');
      await writeFileAtomic(html, await renderEvaluation({
        results, summary,
        title: datasets.map(({ title }) => title).join(' and '),
        details: [
          ['Model', isFolder ? `${model}, a model for each category` : model],
          ['Data', data.join(', ')],
          ['Encoder', `${encoder.name}, SHA-256 ${encoder.sha256}`],
          ['Images', `${imagesInWords(first.metadata, options)}${options.limitPerClass === undefined ? '' : `; the first ${options.limitPerClass} of each kind`}`],
          ['Training', trainingInWords(first.metadata)],
          ['Adapter', engine.adapter.name],
          ['Time', Object.entries(seconds).map(([phase, time]) => `${phase} ${duration(time)}`).join(', ')],
        ],
      }));
      context.field('Report', html);
    }
    context.result({
      command: 'evaluate',
      zeroShot: options.zeroShot ?? false,
      ...summary,
      ...(results.length === 1 && Number.isFinite(results[0]!.threshold) && { threshold: results[0]!.threshold, perFolder: results[0]!.perFolder }),
      categories: results.map(categoryRecord),
      skipped,
      model,
      data,
      datasets: datasets.map(({ title }) => title),
      encoder: first.metadata.encoder,
      resize: first.metadata.resize,
      crop: first.metadata.crop,
      framing: first.metadata.framing,
      adapter: { name: engine.adapter.name, isSoftware: engine.adapter.isSoftware },
      seconds,
    });
    return 0;
  } finally {
    progress.end();
    engine.dispose();
  }
}

async function openModel(file: string): Promise<{ bytes: Uint8Array; metadata: ModelMetadata }> {
  const bytes = await readFileChecked(file);
  return { bytes, metadata: Inspector.readMetadata(bytes, file) };
}

/** Each category with the threshold of its own, where the model has one. */
export async function evaluateCategories(
  inspector: Inspector, categories: readonly OpenCategory[],
  options: Omit<EvaluateCategoryOptions, 'onProgress' | 'onSkipped'> & { readonly threshold?: number }, progress: Progress, context: CommandContext,
): Promise<CategoryResult[]> {
  const results: CategoryResult[] = [];
  for (const category of categories) {
    // Zero-shot inspection has no thresholds, hence none of a category.
    const calibrated = inspector.mode === 'zero-shot' ? undefined : inspector.metadata.categories;
    const known = calibrated?.some(({ name }) => name === category.name) ?? false;
    if (calibrated && !known) context.warn(`the model was not calibrated for ${category.name}: the joint threshold judges it.`);
    inspector.category = known ? category.name : undefined;
    if (options.threshold !== undefined) inspector.threshold = options.threshold;
    await progress.begin('inspecting', category.tests.length);
    results.push(await evaluateCategory(inspector, category, {
      ...options,
      onProgress: (done, total) => progress.update(done, total, category.name),
      onSkipped: (reason) => context.warn(`skipped: ${reason}`),
    }));
  }
  return results;
}

/** What holds for all categories: counts together, metrics on average, the threshold's rates over all images. */
export function summaryOf(results: readonly CategoryResult[]) {
  const evaluations = results.map(({ evaluation }) => evaluation);
  const sum = (of: (result: CategoryResult) => number): number => results.reduce((total, result) => total + of(result), 0);
  const { falsePositiveRate, missRate } = outcomeRates(results.flatMap(({ outcomes }) => outcomes));
  const exact = evaluations.map(({ auproExact }) => auproExact).filter((value) => value !== null);
  return {
    ...averageMetrics(evaluations),
    auproExact: exact.length === 0 ? null : exact.reduce((a, b) => a + b, 0) / exact.length,
    images: sum(({ evaluation }) => evaluation.images),
    defectiveImages: sum(({ evaluation }) => evaluation.defectiveImages),
    pixelImages: sum(({ evaluation }) => evaluation.pixelImages),
    imagesWithoutMask: sum(({ evaluation }) => evaluation.imagesWithoutMask),
    falsePositiveRate, missRate,
    imagesPerSecond: sum(({ outcomes }) => outcomes.length) / sum(({ seconds }) => seconds.inspecting),
  };
}

/** What programs are told of a category. */
export function categoryRecord({ category, evaluation, threshold, falsePositiveRate, missRate, perFolder, imagesPerSecond, seconds }: CategoryResult) {
  return { category, ...evaluation, threshold: Number.isFinite(threshold) ? threshold : null, falsePositiveRate, missRate, perFolder, imagesPerSecond, seconds };
}

/** The sizes and the way in which images were looked at. */
function imagesInWords(metadata: ModelMetadata, options: FramingOptions): string {
  const { resize, crop, framing } = metadata;
  const sizes = `resized to ${sizeInWords(resize)}, centre ${sizeInWords(crop)}`;
  if (options.tile ?? framing === 'tiles') return `${sizes}, in tiles ${tilesInWords(metadata, options.tileOverlap)}`;
  return framing === 'keep-aspect' ? `undistorted, ${sizes}` : sizes;
}

function trainingInWords({ training, categories }: ModelMetadata): string {
  return training ? `${training.images} images${categories ? ` of ${categories.length} categories` : ''}, ${training.steps} steps of ${training.batchSize}, seed ${training.seed}` : 'unknown';
}

function groupBy<T>(items: readonly T[], keyOf: (item: T, i: number) => string): { key: string; items: T[] }[] {
  const groups = new Map<string, T[]>();
  for (const [i, item] of items.entries()) groups.set(keyOf(item, i), [...groups.get(keyOf(item, i)) ?? [], item]);
  return [...groups].map(([key, members]) => ({ key, items: members }));
}
