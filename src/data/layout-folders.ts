/**
 * Categories that show in their folders' names. MVTec AD's layout, and what its successors made of it:
 *
 *   train/good  test/good  test/<defect>  ground_truth/<defect>/<stem>_mask.png      MVTec AD, MPDD, VisA's 1cls layout
 *   train/ok    test/ok    test/ko        ground_truth/ko/<stem>.png                 BTAD
 *   train/good  validation/good  test_public/{good,bad}  test_public/ground_truth/bad/<stem>_mask.png   MVTec AD 2
 *   train/good  validation/good  test/<defect>  ground_truth/<defect>/<stem>/000.png, 001.png, ...      MVTec LOCO AD
 *
 * and a plain pair: good/ and bad/, with masks/ where there are any.
 */
import { InputError } from '../errors.ts';
import type { DatasetCategory, LabelledImage } from './dataset.ts';
import { below, fileName, folderOf, imagesOf, stem, topFolders } from './paths.ts';

const GOOD = ['good', 'ok', 'normal'];
const BAD = ['bad', 'ng', 'ko', 'defect', 'defects', 'defective', 'anomaly', 'anomalous', 'abnormal'];
const MASKS = ['masks', 'mask', 'ground_truth'];
/** Of the good images of a pair, every so-manieth is kept for evaluation. */
const PAIR_TEST_EVERY = 5;

const isGood = (name: string): boolean => GOOD.includes(name.toLowerCase());
const isBad = (name: string): boolean => BAD.includes(name.toLowerCase());

/** The category whose folder was listed, or undefined where it is none. @param at its place, for messages */
export function readCategory(listing: readonly string[], name: string, at: string): DatasetCategory | undefined {
  const folders = topFolders(listing);
  if (folders.some((folder) => ['train', 'test', 'test_public'].includes(folder))) return readMvtecCategory(listing, name, at);
  if (folders.some(isGood)) return readPair(listing, folders, name, at);
  return undefined;
}

/** Whether {@link readCategory} takes the folder for a good/bad pair. */
export function isPair(listing: readonly string[]): boolean {
  const folders = topFolders(listing);
  return folders.some(isGood) && !folders.includes('train') && !folders.includes('test');
}

function readMvtecCategory(listing: readonly string[], name: string, at: string): DatasetCategory {
  const images = imagesOf(listing);
  const normal = (split: string): string[] => images.filter((path) => {
    const parts = path.split('/');
    return parts.length === 3 && parts[0] === split && isGood(parts[1]!);
  });
  const split = topFolders(listing).includes('test_public') ? 'test_public' : 'test';
  const truth = images.some((path) => path.startsWith('ground_truth/')) ? 'ground_truth' : `${split}/ground_truth`;
  const masks = new Masks(images.filter((path) => path.startsWith(`${truth}/`)));
  const tests = images.filter((path) => path.startsWith(`${split}/`) && path.split('/').length === 3).map((path): LabelledImage => {
    const defect = path.split('/')[1]!;
    return isGood(defect) ? { path, label: 0, defect: 'good' } : labelled(path, defect, masks.of(`${truth}/${defect}/${stem(fileName(path))}`));
  });
  masks.check(tests, at, (mask) => mask.slice(truth.length + 1).split('/')[0]!);
  return {
    name, train: normal('train'), validation: normal('validation'), tests: goodFirst(tests),
    places: { train: `${at}train/good`, tests: `${at}${split}/good or ${at}${split}/<defect>` },
  };
}

function readPair(listing: readonly string[], folders: readonly string[], name: string, at: string): DatasetCategory {
  const images = imagesOf(listing);
  const inside = (top: string): string[] => images.filter((path) => path.startsWith(`${top}/`));
  const good = folders.filter(isGood).flatMap(inside);
  const bad = folders.filter(isBad).flatMap(inside);
  const maskFolders = folders.filter((folder) => MASKS.includes(folder.toLowerCase()));
  const badStems = new Set(bad.map(stem));
  const isBesideMask = (path: string): boolean => stem(path).endsWith('_mask') && badStems.has(stem(path).slice(0, -'_mask'.length));
  const masks = new Masks([...maskFolders.flatMap(inside), ...bad.filter(isBesideMask)]);
  const defective = bad.filter((path) => !isBesideMask(path)).map((path): LabelledImage => {
    const [top, ...rest] = stem(path).split('/') as [string, ...string[]];
    const defect = rest.length > 1 ? rest[0]! : top;
    const found = [`${stem(path)}_mask`, ...maskFolders.flatMap((folder) => [`${folder}/${rest.join('/')}`, `${folder}/${stem(path)}`, `${folder}/${rest.at(-1)}`])]
      .map((place) => masks.of(place)).find((paths) => paths.length > 0);
    return labelled(path, defect, found ?? []);
  });
  masks.check(defective, at);
  // With nothing to be told apart from, all good images are for training.
  const isTest = (i: number): boolean => defective.length > 0 && i % PAIR_TEST_EVERY === PAIR_TEST_EVERY - 1;
  return {
    name, validation: [],
    train: good.filter((_, i) => !isTest(i)),
    tests: [...good.filter((_, i) => isTest(i)).map((path): LabelledImage => ({ path, label: 0, defect: 'good' })), ...defective],
    places: { train: `${at}good`, tests: `${at}bad` },
  };
}

function labelled(path: string, defect: string, maskPaths: readonly string[]): LabelledImage {
  return { path, label: 1, defect, ...(maskPaths.length > 0 && { maskPaths }) };
}

export function goodFirst(tests: readonly LabelledImage[]): LabelledImage[] {
  return [...tests.filter(({ label }) => label === 0), ...tests.filter(({ label }) => label === 1)];
}

/** Ground-truth files by the image that they belong to; extensions of image and mask may differ. */
class Masks {
  private readonly byStem = new Map<string, string[]>();
  private readonly used = new Set<string>();

  constructor(paths: readonly string[]) {
    for (const path of paths) {
      for (const key of [stem(path), folderOf(path)]) this.byStem.set(key, [...this.byStem.get(key) ?? [], path]);
    }
  }

  /** `<place>_mask.*`, `<place>.*`, or all files of the folder `<place>`. */
  of(place: string): readonly string[] {
    const found = this.byStem.get(`${place}_mask`) ?? this.byStem.get(place) ?? [];
    for (const path of found) this.used.add(path);
    return found;
  }

  /**
   * A mask that belongs to no image beside a defect without one means that their names do not match: measured without it,
   * the pixel metrics would be wrong and nobody would know. Either alone is no mistake.
   * @param defectOf the kind of defect that a mask is for, where its folder says so
   */
  check(tests: readonly LabelledImage[], at: string, defectOf?: (mask: string) => string): void {
    const stray = [...new Set([...this.byStem.values()].flat())].filter((path) => !this.used.has(path));
    for (const { path, label, defect, maskPaths } of tests) {
      const mask = label === 1 && !maskPaths ? stray.find((other) => !defectOf || defectOf(other) === defect) : undefined;
      if (mask !== undefined) {
        throw new InputError(`${at}${mask}: this mask belongs to no test image, and ${at}${path} has no mask: their names do not match. A mask is called like its image, with or without _mask behind.`, { file: `${at}${mask}` });
      }
    }
  }
}

/** The category folders of a data set's root. */
export function readCategories(listing: readonly string[], at: string): DatasetCategory[] {
  return topFolders(listing).flatMap((name) => {
    const category = readCategory(below(listing, name), name, `${at}${name}/`);
    return category ? [underFolder(category, name)] : [];
  });
}

/** The category with its paths seen from the folder above. */
export function underFolder(category: DatasetCategory, folder: string): DatasetCategory {
  const up = (path: string): string => `${folder}/${path}`;
  return {
    ...category,
    train: category.train.map(up),
    validation: category.validation.map(up),
    tests: category.tests.map((test) => ({ ...test, path: up(test.path), ...(test.maskPaths && { maskPaths: test.maskPaths.map(up) }) })),
  };
}
