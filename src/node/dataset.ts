/**
 * Data sets on disk: folders listed, split files read, and the categories of all of them side by side, with whole paths.
 */
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { requireTests, requireTraining, type Dataset, type DatasetCategory, type LabelledImage } from '../data/dataset.ts';
import { mergedMask } from '../data/ground-truth.ts';
import type { ImageSource, RasterImage } from '../data/image.ts';
import { DATASET_DEPTH, readDataset, splitFiles } from '../data/layout.ts';
import { InputError, UsageError } from '../errors.ts';
import { CALIBRATION_IMAGES, evenlySpaced, splitForCalibration } from '../inspect/calibration-split.ts';
import { fileError } from './files.ts';
import { listFolder } from './folders.ts';
import { decodeImageFile, imageFileSource } from './images.ts';

/** The data set in a folder, see {@link readDataset}. */
export async function openDataset(folder: string): Promise<Dataset> {
  const listing = await listFolder(folder, DATASET_DEPTH);
  const texts = new Map<string, string>();
  for (const path of splitFiles(listing)) {
    texts.set(path, await readFile(join(folder, path), 'utf8').catch((cause: unknown) => {
      throw fileError(join(folder, path), cause, 'read');
    }));
  }
  return readDataset(listing, texts, folder, resolve(folder).split(/[\\/]/).at(-1) || folder);
}

/** A category with the folder that its paths start from. */
export interface OpenCategory extends DatasetCategory {
  readonly folder: string;
}

export interface OpenDatasets {
  readonly datasets: readonly Dataset[];
  /** Of all data sets; names that several have begin with their data set's. */
  readonly categories: readonly OpenCategory[];
}

export interface OpenDatasetsOptions {
  /** What the images are for: categories without such images are errors, or left out. */
  readonly purpose: 'training' | 'testing';
  /** Only these categories. */
  readonly only?: readonly string[];
  /** Told what was found, a line a data set, and what to know of it. */
  readonly say?: (line: string) => void;
  readonly warn?: (text: string) => void;
}

/** @throws InputError where a folder can't be read, or has no images for the purpose; UsageError for a category that none has */
export async function openDatasets(folders: readonly string[], { purpose, only, say, warn }: OpenDatasetsOptions): Promise<OpenDatasets> {
  const opened: { folder: string; dataset: Dataset }[] = [];
  for (const folder of folders) {
    const dataset = await openDataset(folder);
    say?.(`${folder}: ${dataset.title}${dataset.notes.map((note) => `; ${note}`).join('')}`);
    opened.push({ folder, dataset });
  }
  const chosen = opened.map(({ folder, dataset }) => {
    const wanted = { ...dataset, categories: dataset.categories.filter(({ name }) => !only || only.includes(name)) };
    if (wanted.categories.length === 0) return [];
    const kept = purpose === 'training' ? requireTraining(wanted, folder) : requireTests(wanted, folder);
    for (const { name, places } of wanted.categories) if (!kept.some((category) => category.name === name)) warn?.(`${name} has no images in ${places.tests} and is left out.`);
    if (purpose === 'testing') for (const category of kept) warnOfGaps(category, warn);
    return kept.map((category): OpenCategory => ({ ...category, folder }));
  });
  const all = opened.flatMap(({ dataset }) => dataset.categories.map(({ name }) => name));
  const unknown = only?.find((name) => !all.includes(name));
  if (unknown !== undefined) throw new UsageError(`There is no category "${unknown}"; there are ${all.join(', ')}.`);

  const flat = chosen.flat();
  const names = flat.map(({ name, folder }) => (flat.filter((other) => other.name === name).length > 1 ? `${resolve(folder).split(/[\\/]/).at(-1)}/${name}` : name));
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new UsageError(`Two data sets have a category ${twice}: give each folder once, or rename one.`);
  return { datasets: opened.map(({ dataset }) => dataset), categories: flat.map((category, i) => ({ ...category, name: names[i]! })) };
}

/** What a category lacks is told: the metrics that need it are left out. */
function warnOfGaps({ name, tests, places }: DatasetCategory, warn: OpenDatasetsOptions['warn']): void {
  const count = (label: 0 | 1): number => tests.filter((test) => test.label === label).length;
  for (const [label, kind] of [[0, 'good'], [1, 'defective']] as const) {
    if (count(label) === 0) warn?.(`${name} has no ${kind} test images (${places.tests}): its image metrics are undefined, and averages leave them out.`);
  }
  const bare = tests.filter((test) => test.label === 1 && !test.maskPaths).length;
  if (bare > 0) warn?.(`${bare} of the ${count(1)} defective images of ${name} have no mask and count only for the image metrics.`);
}

export interface TrainingSplit {
  readonly train: readonly ImageSource[];
  readonly calibration: readonly ImageSource[];
  /** False where no image could be held out: the threshold then comes from the training images. */
  readonly heldOut: boolean;
  /** What was done, in words, a line a category. */
  readonly rules: readonly string[];
}

/** Of all categories together; more would only take time. */
const MOST_CALIBRATION_IMAGES = 256;
const FEWEST_CALIBRATION_IMAGES = 8;

/**
 * Which images of each category to train on and which to hold out for the threshold: the data set's own validation images
 * where it has any, else as {@link splitForCalibration} does. With `holdOut` false all are trained on, and calibrated on too.
 * @param limit trains on the first so many images of each category
 */
export function splitCategories(categories: readonly OpenCategory[], { limit, holdOut = true }: { limit?: number | undefined; holdOut?: boolean } = {}): TrainingSplit {
  const count = Math.min(CALIBRATION_IMAGES, Math.max(FEWEST_CALIBRATION_IMAGES, Math.floor(MOST_CALIBRATION_IMAGES / categories.length)));
  const splits = categories.map(({ name, folder, train, validation }) => {
    const sources = (paths: readonly string[]): ImageSource[] => paths.map((path) => ({ ...imageFileSource(join(folder, path)), ...(categories.length > 1 && { category: name }) }));
    if (!holdOut) {
      const some = train.slice(0, limit);
      return { train: sources(some), calibration: sources(some), heldOut: false, rule: `all ${some.length} images are trained on, and the threshold comes from them too, with a wider margin` };
    }
    if (validation.length > 0) {
      const kept = evenlySpaced(validation, count);
      return { train: sources(train.slice(0, limit)), calibration: sources(kept), heldOut: true, rule: `${Math.min(limit ?? Infinity, train.length)} images are trained on; the threshold comes from ${kept.length} of the data set's ${validation.length} validation images` };
    }
    const split = splitForCalibration(train, { limit, count });
    return { train: sources(split.train), calibration: sources(split.calibration), heldOut: split.heldOut, rule: split.rule };
  });
  const heldOut = splits.every((split) => split.heldOut);
  // One rule for all: margins of seen and unseen images do not mix.
  if (!heldOut && holdOut && categories.length > 1) return splitCategories(categories, { limit, holdOut: false });
  return {
    train: splits.flatMap((split) => split.train),
    calibration: splits.flatMap((split) => split.calibration),
    heldOut,
    rules: splits.map(({ rule }, i) => (categories.length > 1 ? `${categories[i]!.name}: ${rule}` : rule)),
  };
}

/** The mask of a test image, black and white; undefined for an image without one. @throws InputError naming the mask */
export async function readMask({ maskPaths, maskIsLabels }: LabelledImage, folder: string, image?: RasterImage & { readonly name: string }): Promise<RasterImage | undefined> {
  if (!maskPaths) return undefined;
  const masks = await Promise.all(maskPaths.map(async (path) => ({ name: join(folder, path), mask: await decodeImageFile(join(folder, path)) })));
  return mergedMask(masks, image, maskIsLabels);
}

/** A file for each category: names that come from two data sets have a slash. */
export function modelFileName(category: string): string {
  if (/[\\:*?"<>|]|^\.|\.\./.test(category)) throw new InputError(`The category "${category}" can't be a file's name: rename its folder.`);
  return `${category.replaceAll('/', '__')}.safetensors`;
}
