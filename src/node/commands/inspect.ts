/**
 * `inp-former inspect`: score, verdict, regions and a heat-map overlay for each image. An image that can't be read is
 * reported and left out; the others are inspected all the same, and the exit code says 1 in the end.
 */
import { stat } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';
import type { RasterImage } from '../../data/image.ts';
import { allImages } from '../../data/layout.ts';
import { sizeInWords, toSize } from '../../data/preprocess.ts';
import { InputError, UsageError } from '../../errors.ts';
import { FOUND_OUTLINE, overlay } from '../../inspect/heatmap.ts';
import { Inspector, type Inspection, type InspectOptions } from '../../inspect/inspector.ts';
import { calibrationFor, type ModelMetadata } from '../../inspect/model-file.ts';
import type { Precision } from '../../model/parameters.ts';
import { makeFolder, readFileChecked, writeFileAtomic } from '../files.ts';
import { listFolder } from '../folders.ts';
import { decodeImageFile, encodePng } from '../images.ts';
import { duration, type CommandContext, type CommonOptions } from './context.ts';
import { openEncoderOf } from './encoders.ts';
import type { PrototypePictures } from './prototypes.ts';

/** Options of how images are framed. */
export interface FramingOptions {
  readonly tile?: boolean;
  readonly tileOverlap?: number;
}

/** Tiles where they are asked for, or where the model was trained on them. */
export function inspectOptions({ tile, tileOverlap }: FramingOptions, metadata: Pick<ModelMetadata, 'framing'>, signal: AbortSignal): InspectOptions {
  const isTiled = tile ?? metadata.framing === 'tiles';
  if (!isTiled && tileOverlap !== undefined) throw new UsageError('--tile-overlap is of --tile: add that.');
  return { tile: isTiled && { signal, ...(tileOverlap !== undefined && { overlap: tileOverlap }) } };
}

export interface InspectCommandOptions extends CommonOptions, FramingOptions {
  readonly model: string;
  readonly encoder?: string;
  readonly out: string;
  readonly threshold?: number;
  readonly category?: string;
  readonly batchSize: number;
  readonly precision: Precision;
  readonly zeroShot?: boolean;
  readonly prototypes?: boolean;
  readonly compare?: readonly string[];
}

export interface FailedImage {
  readonly file: string;
  readonly reason: string;
}

export async function inspect(given: readonly string[], options: InspectCommandOptions, context: CommandContext): Promise<number> {
  const { model, out, threshold, category, adapter } = options;
  const files = await expandFolders(given);
  const bytes = await readFileChecked(model);
  const metadata = Inspector.readMetadata(bytes, model);
  calibrationFor(metadata, category); // refuses a category that the model does not know
  await makeFolder(out);
  const framing = inspectOptions(options, metadata, context.signal);
  if (options.compare && !options.prototypes) throw new UsageError('--compare shows the prototypes of another model beside: add --prototypes.');
  const encoder = await openEncoderOf(metadata, options.encoder, context);
  const engine = await context.engine(adapter);
  let prototypes: PrototypePictures | undefined;
  try {
    const batchSize = framing.tile ? options.batchSize : Math.min(options.batchSize, files.length);
    const inspector = await Inspector.open(engine, bytes, encoder, { batchSize, name: model, precision: options.precision, ...(options.zeroShot && { mode: 'zero-shot' }) });
    inspector.category = category;
    const { calibration } = inspector;
    if (threshold !== undefined) inspector.threshold = threshold;
    if (Number.isNaN(inspector.threshold)) context.field('Threshold', 'none: zero-shot scores of things that the model does not know have no calibrated one; --threshold gives one');
    else context.field('Threshold', `${inspector.threshold.toPrecision(4)} (${threshold !== undefined ? 'given with --threshold' : inspector.threshold !== calibration.threshold ? `set by the model's user; calibrated: ${calibration.threshold.toPrecision(4)}` : `${category === undefined ? '' : `${category}: `}${calibration.rule}`})`);
    if (framing.tile) context.field('Tiles', tilesInWords(metadata, options.tileOverlap));
    if (options.prototypes) prototypes = await (await import('./prototypes.ts')).PrototypePictures.open(engine, { ...options, inspector, framing, overlayOf }, context);
    context.say();
    context.say('   score  verdict    image');

    const started = performance.now();
    const names = overlayNames(files);
    const failed: FailedImage[] = [];
    const results: object[] = [];
    let defective = 0;
    for await (const { images, failures } of decodedBatches(files, framing.tile ? 1 : batchSize, context.signal)) {
      for (const failure of failures) context.warn(`skipped: ${failure.reason}`);
      failed.push(...failures);
      const inspections = images.length === 0 ? [] : await inspector.inspectBatch(images.map(({ image }) => image), { ...framing, prototypes: options.prototypes ?? false });
      for (const [i, inspection] of inspections.entries()) {
        const { file, image } = images[i]!;
        const heatmap = join(out, names.get(file)!);
        await writeFileAtomic(heatmap, await encodePng(overlayOf(image, inspection)));
        if (inspection.verdict === 'defective') defective++;
        context.say(`${inspection.score.toFixed(4).padStart(8)}  ${verdictWords[inspection.verdict].padEnd(9)}  ${file}${regionsInWords(inspection)}`);
        results.push({
          file,
          score: inspection.score,
          ...(inspection.verdict !== 'unjudged' && { threshold: inspection.threshold }),
          verdict: inspection.verdict,
          width: image.width,
          height: image.height,
          regions: inspection.regions.map(({ source, area, peak }) => ({ ...source, mapArea: area, peak })),
          heatmap,
          ...(inspection.tiles && { tiles: inspection.tiles.map(({ source, score }) => ({ ...source, score })) }),
          ...(prototypes && { prototypes: await prototypes.add(file, names.get(file)!, image, inspection) }),
        });
      }
    }
    const seconds = (performance.now() - started) / 1000;
    const used = inspector.threshold;
    inspector.dispose();
    const prototypeReport = await prototypes?.finish();

    context.say();
    if (results.length > 0) {
      const verdicts = Number.isNaN(used) ? '' : `: ${defective} defective, ${results.length - defective} good`;
      context.field('Inspected', `${results.length} in ${duration(seconds)}${verdicts}`);
      context.field('Heat maps', out);
      if (prototypeReport) context.field('Prototypes', prototypeReport);
    }
    if (failed.length > 0) context.field('Unreadable', `${failed.length} of ${files.length}, named above`);
    context.result({
      command: 'inspect',
      model,
      zeroShot: options.zeroShot ?? false,
      ...(category !== undefined && { category }),
      ...(!Number.isNaN(used) && { threshold: used }),
      scale: { low: calibration.scaleLow, high: calibration.scaleHigh },
      adapter: { name: engine.adapter.name, isSoftware: engine.adapter.isSoftware },
      inspected: results.length,
      defective,
      images: results,
      ...(prototypeReport && { prototypeReport }),
      failed,
      seconds,
    });
    return failed.length > 0 ? 1 : 0;
  } finally {
    engine.dispose();
  }
}

const verdictWords = { good: 'good', defective: 'DEFECTIVE', unjudged: '-' } as const;

/** The overlay that people see: heat on the calibration's fixed scale, found regions outlined where the verdict is defective. */
export function overlayOf(
  image: RasterImage,
  inspection: Inspection,
  moreOutlines: readonly { mask: Uint8Array; colour: readonly [number, number, number] }[] = [],
): RasterImage {
  const { map, mask, verdict } = inspection;
  return overlay(image, map, {
    ...inspection,
    outlines: [...moreOutlines, ...(verdict === 'defective' ? [{ mask, colour: FOUND_OUTLINE }] : [])],
  });
}

/** Folders stand for the images in them. A file is taken whatever its name; what it is, decoding finds out. */
async function expandFolders(given: readonly string[]): Promise<string[]> {
  const files: string[] = [];
  for (const path of given) {
    const isFolder = await stat(path).then((info) => info.isDirectory(), () => false);
    if (isFolder) files.push(...allImages(await listFolder(path), path).map((image) => join(path, image)));
    else files.push(path);
  }
  return [...new Set(files)];
}

export interface DecodedBatch {
  readonly images: { readonly file: string; readonly image: RasterImage }[];
  readonly failures: FailedImage[];
}

/** Decodes ahead by one batch, so that the GPU does not wait for the disk. Unreadable images come as failures. */
export async function* decodedBatches(files: readonly string[], batchSize: number, signal: AbortSignal): AsyncGenerator<DecodedBatch> {
  const decode = async (batch: readonly string[]): Promise<DecodedBatch> => {
    const images: DecodedBatch['images'] = [];
    const failures: FailedImage[] = [];
    await Promise.all(batch.map(async (file, i) => {
      try {
        images[i] = { file, image: await decodeImageFile(file) };
      } catch (error) {
        if (!(error instanceof InputError) || error.code === 'missing-package') throw error;
        failures.push({ file, reason: error.message });
      }
    }));
    return { images: images.filter((image) => image !== undefined), failures };
  };
  const start = (from: number) => {
    if (from >= files.length) return undefined;
    const batch = decode(files.slice(from, from + batchSize));
    // Its rejection is thrown when its turn comes; until then it must not count as unhandled.
    batch.catch(() => {});
    return batch;
  };
  let next = start(0);
  for (let from = batchSize; next !== undefined; from += batchSize) {
    signal.throwIfAborted();
    const batch = await next;
    next = start(from);
    yield batch;
  }
}

/** One file name each: the image's, with its folder's before it where two images have the same. */
export function overlayNames(files: readonly string[]): Map<string, string> {
  const names = new Map<string, string>();
  const taken = new Set<string>();
  const plain = (file: string) => basename(file, extname(file));
  const counts = new Map<string, number>();
  for (const file of files) counts.set(plain(file), (counts.get(plain(file)) ?? 0) + 1);
  for (const file of files) {
    const base = counts.get(plain(file)) === 1 ? plain(file) : `${basename(dirname(file))}_${plain(file)}`;
    let name = `${base}.heatmap.png`;
    for (let i = 2; taken.has(name); i++) name = `${base}_${i}.heatmap.png`;
    taken.add(name);
    names.set(file, name);
  }
  return names;
}

/** What a tile is, and what that means for the threshold. */
export function tilesInWords({ view, resize, crop, framing }: ModelMetadata, overlap = 0.25): string {
  const [from, to, cut] = [toSize(resize), toSize(crop), toSize(view)];
  const size = sizeInWords({ width: Math.round((cut.width * to.width) / from.width), height: Math.round((cut.height * to.height) / from.height) });
  return `of ${size} pixels, overlapping by ${Math.round(100 * overlap)} % or more${framing === 'tiles' ? '' : '; the threshold is from images of one such view and may be low for many: --threshold sets another'}`;
}

function regionsInWords({ verdict, regions }: Inspection): string {
  const [first] = regions;
  if (verdict !== 'defective' || !first) return '';
  const { x, y, width, height } = first.source;
  return `  (${regions.length === 1 ? 'region' : `${regions.length} regions, hottest`} at ${x}, ${y}, ${width} x ${height})`;
}
