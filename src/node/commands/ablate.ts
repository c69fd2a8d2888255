/**
 * `inp-former ablate`: trains variants of the detector with one part changed on the user's own data, measures each, and shows
 * in one table what the parts are worth there. The models stay, to be looked at with `inspect`.
 */
import { join } from 'node:path';
import { ablate as runVariants, findVariants, type AblationResult } from '../../train/ablation.ts';
import { openDatasets, readMask, splitCategories } from '../dataset.ts';
import { limitPerFolder } from '../evaluation.ts';
import { makeFolder, writeFileAtomic } from '../files.ts';
import { imageFileSource } from '../images.ts';
import { openSpillFile } from '../spill.ts';
import { duration, table, type CommandContext, type CommonOptions } from './context.ts';
import { openEncoder } from './encoders.ts';

export interface AblateCommandOptions extends CommonOptions {
  readonly data: string;
  readonly out: string;
  readonly variants?: string;
  readonly encoder: string;
  readonly resize: number;
  readonly crop: number;
  readonly steps: number;
  readonly warmup?: number;
  readonly batchSize: number;
  readonly limit?: number;
  readonly limitPerClass?: number;
  readonly seed: number;
}

export async function ablate(options: AblateCommandOptions, context: CommandContext): Promise<number> {
  const { data, out, resize, crop, steps, warmup, batchSize, limit, limitPerClass, seed } = options;
  const names = options.variants?.split(',').map((name) => name.trim());
  const variants = findVariants(names);
  // What is trained on is compared as one, so that a data set's categories count together.
  const { categories } = await openDatasets([data], { purpose: 'testing', warn: (text) => context.warn(text) });
  const split = splitCategories(categories, { limit });
  const tests = categories.flatMap(({ folder, tests: own }) => limitPerFolder(own, limitPerClass).map((test) => ({ ...test, folder })));
  await makeFolder(out);
  context.field('Images', `${split.rules.join('; ')}; ${tests.length} are tested`);
  context.field('Variants', `${variants.length}, ${steps} steps each: ${variants.map(({ name }) => name).join(', ')}`);
  const encoder = await openEncoder(options.encoder, context);
  const engine = await context.engine(options.adapter);
  const progress = context.progress();
  const started = performance.now();
  try {
    const results: Omit<AblationResult, 'model'>[] = [];
    let testing = false;
    const runs = runVariants(engine, {
      encoder, images: split.train, ...(split.heldOut && { calibrationImages: split.calibration }),
      tests: tests.map((test) => ({ source: imageFileSource(join(test.folder, test.path)), label: test.label, ...(test.maskPaths && { mask: { name: join(test.folder, test.maskPaths[0]!), load: async () => (await readMask(test, test.folder))! } }) })),
      variants: variants.map(({ name }) => name),
      resize, crop, steps, batchSize, seed, ...(warmup !== undefined && { warmupSteps: warmup }),
      signal: context.signal, featureCache: { spill: openSpillFile },
      onProgress: (state) => {
        testing = false;
        progress.onTraining(state);
      },
      onTest: (done, total) => {
        if (!testing) void progress.begin('testing', total);
        testing = true;
        progress.update(done, total, '');
      },
    });
    for await (const { model, ...result } of runs) {
      progress.end();
      await writeFileAtomic(join(out, `${result.name}.safetensors`), model);
      results.push(result);
      const { imageAuroc, pixelAp } = result.evaluation;
      context.say(`${result.name}: I-AUROC ${figure(imageAuroc)}, P-AP ${figure(pixelAp)}, ${duration(result.seconds)} of training`);
    }
    const seconds = (performance.now() - started) / 1000;
    const record = {
      command: 'ablate', data, steps, batchSize, seed, resize, crop,
      encoder: { name: encoder.name, sha256: encoder.sha256 }, adapter: { name: engine.adapter.name, isSoftware: engine.adapter.isSoftware },
      variants: results, seconds,
    };
    await writeFileAtomic(join(out, 'ablation.json'), `${JSON.stringify(record, undefined, 1)}\n`);
    await writeFileAtomic(join(out, 'ablation.csv'), ablationCsv(results));
    context.say();
    context.say(ablationTable(results));
    context.say();
    context.field('Written', `${join(out, 'ablation.json')}, ablation.csv, and the models`);
    context.field('Time', duration(seconds));
    context.result(record);
    return 0;
  } finally {
    progress.end();
    engine.dispose();
  }
}

const metrics = [
  ['I-AUROC', 'imageAuroc'], ['I-AP', 'imageAp'], ['I-F1max', 'imageF1Max'], ['P-AUROC', 'pixelAuroc'], ['P-AP', 'pixelAp'], ['P-F1max', 'pixelF1Max'], ['AUPRO', 'aupro'],
] as const;

const figure = (value: number | null): string => (value === null ? '-' : value.toFixed(3));

/** A row a variant, with the differences from the first in the two numbers that the papers' ablations look at. */
export function ablationTable(results: readonly Omit<AblationResult, 'model'>[]): string {
  const [base] = results;
  const difference = (result: Omit<AblationResult, 'model'>, metric: 'imageAuroc' | 'pixelAp'): string => {
    const [value, from] = [result.evaluation[metric], base!.evaluation[metric]];
    if (result === base || value === null || from === null) return '';
    return `${value >= from ? '+' : ''}${(value - from).toFixed(3)}`;
  };
  return table(
    ['variant', ...metrics.map(([title]) => title), 'I-AUROC diff', 'P-AP diff', 'values', 'what'],
    results.map((result) => [
      result.name, ...metrics.map(([, metric]) => figure(result.evaluation[metric])),
      difference(result, 'imageAuroc'), difference(result, 'pixelAp'), `${(result.trainedValues / 1e6).toFixed(2)} M`, result.what,
    ]),
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
  );
}

export function ablationCsv(results: readonly Omit<AblationResult, 'model'>[]): string {
  const header = ['variant', ...metrics.map(([title]) => title), 'false-positive rate', 'miss rate', 'final loss', 'trained values', 'training seconds'];
  const rows = results.map(({ name, evaluation, falsePositiveRate, missRate, finalLoss, trainedValues, seconds }) => [
    name, ...metrics.map(([, metric]) => evaluation[metric] ?? ''), falsePositiveRate ?? '', missRate ?? '', finalLoss, trainedValues, seconds.toFixed(1),
  ]);
  return [header, ...rows].map((row) => `${row.join(',')}\n`).join('');
}
