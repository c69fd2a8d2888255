/**
 * Real-IAD as it is published: a JSON file a category in realiad_jsons/realiad_jsons (or realiad_jsons), and images in
 * realiad_1024/<category> (or another resolution), to which the files' paths are relative:
 *
 *   { "meta": { "normal_class": "OK", ... }, "train": [ { "category", "anomaly_class", "image_path", "mask_path" }, ... ], "test": [ ... ] }
 *
 * Source: Wang et al., CVPR 2024. The other splits (single view, noisy) lie in folders of their own beside; this one is the
 * one that anomaly detection is measured on.
 */
import { InputError } from '../errors.ts';
import type { DatasetCategory, LabelledImage } from './dataset.ts';
import { goodFirst } from './layout-folders.ts';
import { compareCodePoints, fileName, stem, topFolders } from './paths.ts';

/** The first is what INP-Former's authors use. */
const IMAGE_FOLDERS = ['realiad_1024', 'realiad_512', 'realiad_256', 'realiad_raw'];
const SPLIT_FOLDERS = ['realiad_jsons/realiad_jsons', 'realiad_jsons'];

/** The split files, a category each; none where the folder is not Real-IAD's. */
export function realIadSplits(listing: readonly string[]): string[] {
  for (const folder of SPLIT_FOLDERS) {
    const found = listing.filter((path) => path.startsWith(`${folder}/`) && path.endsWith('.json') && !path.slice(folder.length + 1).includes('/'));
    if (found.length > 0) return found.sort(compareCodePoints);
  }
  return [];
}

export function isRealIad(listing: readonly string[]): boolean {
  return topFolders(listing).some((folder) => folder === 'realiad_jsons' || IMAGE_FOLDERS.includes(folder));
}

/**
 * Categories whose images are there: a part of the data set may be copied, but not a part of a category.
 * @throws InputError naming the split file and what in it does not fit
 */
export function readRealIad(listing: readonly string[], texts: ReadonlyMap<string, string>, at: string): { categories: DatasetCategory[]; notes: string[] } {
  const splits = realIadSplits(listing);
  if (splits.length === 0) {
    throw new InputError(`${at}realiad_jsons: there are no split files (realiad_jsons/realiad_jsons/<category>.json), which say what the images are for. Unpack realiad_jsons.zip beside the images.`, { file: `${at}realiad_jsons` });
  }
  const images = IMAGE_FOLDERS.find((folder) => topFolders(listing).includes(folder));
  if (images === undefined) {
    throw new InputError(`${at}${IMAGE_FOLDERS[0]}: there are split files but no images: none of ${IMAGE_FOLDERS.join(', ')} is there. Unpack the images beside realiad_jsons.`, { file: `${at}${IMAGE_FOLDERS[0]}` });
  }
  const files = new Set(listing);
  const present = new Set(listing.filter((path) => path.startsWith(`${images}/`)).map((path) => path.split('/')[1]!));
  const here = splits.filter((split) => present.has(stem(fileName(split))));
  if (here.length === 0) {
    throw new InputError(`${at}${splits[0]}: ${at}${images} has no folder ${stem(fileName(splits[0]!))}, nor one of the other ${splits.length - 1} categories. Unpack the images there.`, { file: `${at}${splits[0]}` });
  }
  const missing = splits.length - here.length;
  return {
    categories: here.map((split) => readSplit(split, texts.get(split) ?? '', `${images}/${stem(fileName(split))}`, files, at)),
    notes: [
      `images from ${images}`,
      ...(missing > 0 ? [`${missing} of ${splits.length} categories have no images in ${images} and are left out`] : []),
    ],
  };
}

interface Sample {
  readonly image_path: string;
  readonly mask_path?: string | null;
  readonly anomaly_class: string;
}

function readSplit(split: string, text: string, root: string, files: ReadonlySet<string>, at: string): DatasetCategory {
  const file = `${at}${split}`;
  const fail = (problem: string, cause?: unknown): never => {
    throw new InputError(`${file}: ${problem}. Take the file, and the images, from the data set's archives.`, { file, cause });
  };
  let parsed: { meta?: { normal_class?: string }; train?: unknown; test?: unknown } | null;
  try {
    parsed = JSON.parse(text) as typeof parsed;
  } catch (cause) {
    return fail(`not readable as JSON (${cause instanceof Error ? cause.message : String(cause)})`, cause);
  }
  const samples = (part: 'train' | 'test'): Sample[] => {
    const list = parsed?.[part];
    if (!Array.isArray(list)) return fail(`it has no list "${part}"`);
    return list.map((sample: Partial<Sample> | null, i) => {
      if (typeof sample?.image_path !== 'string' || typeof sample.anomaly_class !== 'string') fail(`entry ${i} of "${part}" needs the texts image_path and anomaly_class, got ${JSON.stringify(sample)?.slice(0, 120)}`);
      return sample as Sample;
    });
  };
  const place = (path: string, entry: string): string => {
    const full = `${root}/${path.replace(/^\.?\//, '')}`;
    return files.has(full) ? full : fail(`${entry} names ${path}, but ${at}${full} is not there`);
  };
  const normal = parsed?.meta?.normal_class ?? 'OK';
  const train = samples('train').map(({ image_path, anomaly_class }, i) => {
    if (anomaly_class !== normal) fail(`entry ${i} of "train" is of the class ${anomaly_class}; only ${normal} is normal`);
    return place(image_path, `entry ${i} of "train"`);
  });
  const tests = samples('test').map(({ image_path, mask_path, anomaly_class }, i): LabelledImage => {
    const entry = `entry ${i} of "test"`;
    const path = place(image_path, entry);
    if (anomaly_class === normal) return { path, label: 0, defect: 'good' };
    return { path, label: 1, defect: anomaly_class, ...(mask_path ? { maskPaths: [place(mask_path, entry)] } : {}) };
  });
  return {
    name: stem(fileName(split)), train: train.sort(compareCodePoints), validation: [],
    tests: goodFirst(tests.sort((a, b) => compareCodePoints(a.path, b.path))),
    places: { train: `${file} ("train")`, tests: `${file} ("test")` },
  };
}
