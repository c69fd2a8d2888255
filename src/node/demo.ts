/**
 * `npm run demo`: the whole job on a small scale and on data that it draws itself. For each of some procedural surfaces:
 * train on normal images, inspect held-out good and defective ones, measure against the exact masks; then heat maps and
 * one HTML report to look at. Nothing is downloaded, the encoder is the embedded one.
 */
import { rm } from 'node:fs/promises';
import { join, relative, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { preprocessMask } from '../data/preprocess.ts';
import { AbortedError, InpFormerError, UsageError } from '../errors.ts';
import { averageMetrics, evaluate, type Evaluation, type EvaluationMetrics, type EvaluationSample } from '../evaluate/evaluate.ts';
import type { Engine } from '../index.ts';
import { splitForCalibration } from '../inspect/calibration-split.ts';
import { TRUTH_OUTLINE } from '../inspect/heatmap.ts';
import { trainInspector } from '../train/train.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import { adapterChoices, type AdapterChoice } from './adapter.ts';
import { CommandContext, duration, table } from './commands/context.ts';
import { decodedBatches, overlayOf } from './commands/inspect.ts';
import { openDataset, readMask } from './dataset.ts';
import { resolveEncoder } from './encoder-store.ts';
import { outcomeRates, ratesInWords, type Outcome } from './evaluation.ts';
import { metricsTable } from './evaluation-table.ts';
import { writeFileAtomic } from './files.ts';
import { imageFileSource, thumbnail, writePng } from './images.ts';
import { writeProceduralSet } from './procedural-files.ts';
import { imageUri, renderReport, type ReportImage, type ReportSection } from './report.ts';

const ENCODER = 'tiny';
const TEXTURES = ['brushed-metal', 'leather'];
const SEED = 1;
/** Side of the drawn images, in pixels. */
const IMAGE_SIZE = 256;
const TRAINING_IMAGES = 24;
const CALIBRATION_IMAGES = 8;
const TEST_GOOD = 16;
const TEST_DEFECTIVE = 16;
const RESIZE = 168;
const CROP = 168;
const BATCH_SIZE = 4;
const STEPS = 20;
const WARMUP_STEPS = 6;
const PREVIEW_SIZE = 256;

export interface DemoSettings {
  /** Where data, heat maps and report go; what an earlier demo left there is replaced. */
  readonly out: string;
  readonly adapter: AdapterChoice;
  /** What happened before, e.g. the installation, for the table of times. */
  readonly setup?: readonly { readonly name: string; readonly seconds: number }[];
}

/** @returns the exit code */
export async function runDemo(argv: readonly string[], setup: DemoSettings['setup'] = []): Promise<number> {
  const controller = new AbortController();
  const stop = () => (controller.signal.aborted ? process.exit(130) : controller.abort());
  process.on('SIGINT', stop);
  const context = new CommandContext({ stdout: process.stdout, stderr: process.stderr, signal: controller.signal }, false);
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: { out: { type: 'string', default: join('out', 'demo') }, adapter: { type: 'string', default: 'auto' } },
    });
    if (!adapterChoices.includes(values.adapter as AdapterChoice)) throw new UsageError(`--adapter is one of ${adapterChoices.join(', ')}; got ${values.adapter}.`);
    await demo({ out: values.out, adapter: values.adapter as AdapterChoice, setup }, context);
    return 0;
  } catch (error) {
    if (error instanceof AbortedError || controller.signal.aborted) process.stderr.write('Stopped.\n');
    else if (error instanceof InpFormerError) process.stderr.write(`Error: ${error.message}\n`);
    else if ((error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS')) {
      process.stderr.write(`${(error as Error).message}\nUsage: npm run demo -- [--out DIR] [--adapter ${adapterChoices.join('|')}]\n`);
      return 2;
    } else throw error;
    return error instanceof UsageError ? 2 : 1;
  } finally {
    process.off('SIGINT', stop);
  }
}

async function demo({ out, adapter, setup = [] }: DemoSettings, context: CommandContext): Promise<void> {
  const started = performance.now();
  const engine = await context.engine(adapter);
  try {
    const encoder = await resolveEncoder(ENCODER);
    const results: TextureResult[] = [];
    for (const texture of TEXTURES) results.push(await runTexture(texture, out, engine, encoder, context));

    const rows: [string, Evaluation][] = results.map(({ section, evaluation }) => [section.title, evaluation]);
    const means: EvaluationMetrics = averageMetrics(rows.map(([, evaluation]) => evaluation));
    context.say();
    context.say(metricsTable([...rows, ['mean', means]]));
    const total = (performance.now() - started) / 1000 + setup.reduce((sum, { seconds }) => sum + seconds, 0);
    context.say();
    context.say(timesTable(results.map(({ section }) => section), setup, total));

    const reportFile = resolve(out, 'report.html');
    const score = (value: number | null) => (value === null ? '–' : value.toFixed(3));
    await writeFileAtomic(reportFile, renderReport({
      title: 'INP-Former on WebGPU: demonstration',
      subtitle: `Trained on ${TRAINING_IMAGES} good images of each surface, without a single defect, and tried on images that it had not seen. Left: the image. Right: its heat map, with found regions outlined in cyan and the true defect in green.`,
      figures: [
        { label: 'Image AUROC', value: score(means.imageAuroc), note: 'good and defective told apart' },
        { label: 'Pixel AUROC', value: score(means.pixelAuroc), note: 'defects found where they are' },
        { label: 'Images inspected', value: String(rows.reduce((sum, [, { images }]) => sum + images, 0)), note: 'none of them trained on' },
        { label: 'Time', value: duration(total), note: engine.adapter.isSoftware ? 'on the CPU, without a GPU' : 'training included' },
      ],
      sections: results.map(({ section }) => section),
      details: [
        ['Adapter', engine.adapter.name],
        ['Encoder', `${ENCODER}, ${encoder.architecture.width} channels, SHA-256 ${encoder.sha256}`],
        ['Training', `${STEPS} steps of ${BATCH_SIZE} images at ${CROP} x ${CROP}, seed ${SEED}`],
        ['Threshold', `from ${CALIBRATION_IMAGES} good images of each surface that were neither trained on nor tested`],
        ['Data', 'drawn by this program: procedural surfaces and defects with exact masks'],
        ['Heat map', 'fixed scale from the calibration; no stretching image by image'],
      ],
    }));
    context.say();
    context.field('Heat maps', `${relative('', join(out, 'heatmaps'))}`);
    context.field('Report', `${reportFile}`);
    context.field('Open it', pathToFileURL(reportFile).href);
  } finally {
    engine.dispose();
  }
}

interface TextureResult {
  readonly section: ReportSection;
  readonly evaluation: Evaluation;
}

async function runTexture(texture: string, out: string, engine: Engine, encoder: EncoderWeights, context: CommandContext): Promise<TextureResult> {
  const progress = context.progress();
  const data = join(out, 'data', texture);
  await drawImages(texture, data, progress);

  const [category] = (await openDataset(data)).categories;
  const split = splitForCalibration(category!.train, { limit: TRAINING_IMAGES });
  const sources = (paths: readonly string[]) => paths.map((path) => imageFileSource(join(data, path)));
  const { inspector, model } = await trainInspector(engine, {
    encoder,
    images: sources(split.train),
    calibrationImages: sources(split.calibration),
    resize: RESIZE, crop: CROP, steps: STEPS, warmupSteps: WARMUP_STEPS, batchSize: BATCH_SIZE, seed: SEED,
    signal: context.signal,
    onProgress: progress.onTraining,
  });
  await writeFileAtomic(join(out, `${texture}.safetensors`), model);

  const tests = new Map(category!.tests.map((test) => [join(data, test.path), test]));
  const samples: EvaluationSample[] = [];
  const outcomes: Outcome[] = [];
  const images: ReportImage[] = [];
  const { metadata } = inspector;
  await progress.begin('inspecting', tests.size);
  for await (const { images: batch, failures } of decodedBatches([...tests.keys()], BATCH_SIZE, context.signal)) {
    for (const { reason } of failures) throw new Error(`The demo can't read an image that it wrote: ${reason}`);
    const inspections = await inspector.inspectBatch(batch.map(({ image }) => image));
    for (const [i, inspection] of inspections.entries()) {
      const { file, image } = batch[i]!;
      const test = tests.get(file)!;
      const { path, label, defect } = test;
      const { score, verdict, map, mapWidth, mapHeight } = inspection;
      const truth = await readMask(test, data, { ...image, name: file });
      const mask = truth && preprocessMask(truth, { resize: RESIZE, crop: CROP, mapSize: { width: mapWidth, height: mapHeight } });
      samples.push({ name: file, score, label, map, width: mapWidth, height: mapHeight, ...(mask && { mask }) });
      outcomes.push({ file, score, defect, label, flagged: verdict === 'defective' });
      const heatmap = overlayOf(image, inspection, mask ? [{ mask, colour: TRUTH_OUTLINE }] : []);
      const heatmapFile = join(out, 'heatmaps', texture, path.slice('test/'.length));
      await writePng(heatmapFile, heatmap);
      images.push({
        name: path.slice('test/'.length), score, verdict, truth: defect,
        source: await imageUri(await thumbnail(image, PREVIEW_SIZE)),
        overlay: await imageUri(await thumbnail(heatmap, PREVIEW_SIZE)),
      });
    }
    progress.update(samples.length, tests.size, '');
  }
  const { threshold } = inspector;
  inspector.dispose();
  await progress.begin('metrics', 1);
  const evaluation = evaluate(samples);
  progress.end();
  const rates = outcomeRates(outcomes);
  context.field(texture, `threshold ${threshold.toPrecision(4)} ${ratesInWords(rates)}`);
  return {
    evaluation,
    section: {
      title: texture.replaceAll('-', ' '),
      description: `${samples.length} images that were not trained on, with the model of ${TRAINING_IMAGES} good ones.`,
      metrics: evaluation,
      threshold,
      thresholdRule: metadata.calibration.rule,
      phases: Object.entries(progress.seconds).map(([name, seconds]) => ({ name, seconds })),
      images,
    },
  };
}

/** In place of what was there. */
async function drawImages(texture: string, folder: string, progress: ReturnType<CommandContext['progress']>): Promise<void> {
  const counts = { train: TRAINING_IMAGES + CALIBRATION_IMAGES, testGood: TEST_GOOD, testDefective: TEST_DEFECTIVE };
  await progress.begin('drawing', counts.train + counts.testGood + counts.testDefective);
  await rm(folder, { recursive: true, force: true });
  await writeProceduralSet(folder, { texture, seed: SEED, size: IMAGE_SIZE, ...counts }, (done, total) => progress.update(done, total, ''));
}

function timesTable(sections: readonly ReportSection[], setup: NonNullable<DemoSettings['setup']>, total: number): string {
  const seconds = (value: number) => `${value.toFixed(1)} s`;
  return table(
    ['phase', 'time'],
    [
      ...setup.map(({ name, seconds: time }) => [name, seconds(time)]),
      ...sections.flatMap(({ title, phases }) => phases.map(({ name, seconds: time }) => [`${title}: ${name}`, seconds(time)])),
      ['total', seconds(total)],
    ],
    [1],
  );
}
