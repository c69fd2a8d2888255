/**
 * Where images lie in a folder: the layout of MVTec AD (`train/good`, `test/good`, `test/<defect>`,
 * `ground_truth/<defect>/<stem>_mask.png`) or a plain folder of normal images. Pure functions of a list of relative
 * paths, so that Node's folders, a page's dropped directory and tests share them.
 */
import { InputError } from '../errors.ts';

export interface LabelledImage {
  /** Relative to the listed folder, with forward slashes. */
  readonly path: string;
  /** 0 normal, 1 defective. */
  readonly label: 0 | 1;
  /** The test folder's name: 'good' or the kind of defect. */
  readonly defect: string;
  /** The ground-truth mask; absent for normal images, and for a defective one where there is no such file: the pixel metrics then leave it out. */
  readonly maskPath?: string;
}

export const IMAGE_EXTENSIONS: readonly string[] = ['png', 'jpg', 'jpeg', 'webp', 'bmp', 'tif', 'tiff'];

/** Whether a file is taken for an image: by its extension, in any case, unless it or a folder on its path is hidden (starts with a dot). */
export function isImagePath(path: string): boolean {
  if (path.split('/').some((part) => part.startsWith('.'))) return false;
  const dot = path.lastIndexOf('.');
  return dot > path.lastIndexOf('/') && IMAGE_EXTENSIONS.includes(path.slice(dot + 1).toLowerCase());
}

/** Plain code-point order: the same everywhere, whatever the locale or file system. */
export function compareCodePoints(a: string, b: string): number {
  for (let i = 0; i < a.length && i < b.length; i++) {
    const difference = a.codePointAt(i)! - b.codePointAt(i)!;
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/**
 * The normal images to train on: those of `train/good`, or, in a folder without `train` and `test`, the images that lie
 * directly in it. In code-point order.
 * @param listing relative paths of the files in the folder and below
 * @param folder what errors call it
 */
export function trainingImages(listing: readonly string[], folder: string): string[] {
  const images = listing.filter(isImagePath).sort(compareCodePoints);
  if (hasFolder(listing, 'train') || hasFolder(listing, 'test')) {
    const normal = images.filter((path) => isIn(path, 'train/good'));
    if (normal.length > 0) return normal;
    throw noImages(
      folder,
      `it has the folders of a data set (${topFolders(listing).join(', ')}) but no images in train/good`,
      'Put the normal images into train/good, or name a folder that holds just normal images.',
    );
  }
  const normal = images.filter((path) => !path.includes('/'));
  if (normal.length > 0) return normal;
  if (images.length > 0) {
    throw noImages(folder, `images lie only in its subfolders (${topFolders(images).join(', ')})`, 'Name the subfolder that holds the normal images.');
  }
  throw noImages(folder, emptyReason(listing), `Images are files that end in ${IMAGE_EXTENSIONS.join(', ')}.`);
}

/** The labelled images of `test/<defect>`, 'good' first, then the defects, each in code-point order, with their masks. */
export function testImages(listing: readonly string[], folder: string): LabelledImage[] {
  const images = listing.filter(isImagePath).sort(compareCodePoints);
  const tests = images.filter((path) => path.startsWith('test/') && path.split('/').length === 3);
  if (tests.length === 0) {
    const found = images.length === 0 ? emptyReason(listing) : `there are no images in test/good or test/<defect>`;
    throw noImages(folder, found, 'Evaluation needs test/good/*.png, test/<defect>/*.png and, for the pixel metrics, ground_truth/<defect>/<name>_mask.png.');
  }
  // By folder and stem, because image and mask may differ in extension.
  const masks = new Map<string, string>();
  for (const path of images) {
    if (path.startsWith('ground_truth/')) masks.set(stem(path), path);
  }
  const labelled = tests.map((path): LabelledImage => {
    const defect = path.split('/')[1]!;
    if (defect === 'good') return { path, label: 0, defect };
    const name = `ground_truth/${stem(path).slice('test/'.length)}`;
    const maskPath = masks.get(`${name}_mask`) ?? masks.get(name);
    return { path, label: 1, defect, ...(maskPath !== undefined && { maskPath }) };
  });
  return [...labelled.filter((image) => image.label === 0), ...labelled.filter((image) => image.label === 1)];
}

/** A defective image and its mask, relative to the listed folder. */
export interface DefectImage {
  readonly path: string;
  readonly maskPath: string;
  /** The kind of defect; '' where the layout names none. */
  readonly defect: string;
}

const maskFolders = ['masks', 'mask', 'ground_truth'];

/**
 * Real defects with their masks: `test/<defect>` with `ground_truth/<defect>` as in MVTec AD, or a folder of images beside one
 * called `masks` (or `mask`, `ground_truth`) with files of the same names, with or without `_mask`. Kinds of defect take turns,
 * so that the first few are of many kinds.
 * @throws InputError for a defective image without a mask, or where there are none
 */
export function defectImages(listing: readonly string[], folder: string): DefectImage[] {
  const advice = 'Defects are test/<defect>/*.png with ground_truth/<defect>/<name>_mask.png, or two folders, images and masks, with files of the same names.';
  const images = listing.filter(isImagePath).sort(compareCodePoints);
  const found = hasFolder(listing, 'test')
    ? testImages(listing, folder).filter(({ label }) => label === 1)
    : pairedImages(images, folder, advice);
  if (found.length === 0) throw noImages(folder, images.length === 0 ? emptyReason(listing) : 'there are no defective images with masks', advice);
  const unmasked = found.find(({ maskPath }) => maskPath === undefined);
  if (unmasked) throw new InputError(`${folder}/${unmasked.path}: this defect has no mask. ${advice}`, { file: `${folder}/${unmasked.path}`, code: 'no-mask' });
  const byKind = new Map<string, DefectImage[]>();
  for (const { path, maskPath, defect } of found) byKind.set(defect, [...(byKind.get(defect) ?? []), { path, maskPath: maskPath!, defect }]);
  const kinds = [...byKind.values()];
  const longest = Math.max(...kinds.map((kind) => kind.length));
  return Array.from({ length: longest }, (_, i) => kinds.flatMap((kind) => kind.slice(i, i + 1))).flat();
}

function pairedImages(images: readonly string[], folder: string, advice: string): { path: string; defect: string; maskPath: string | undefined }[] {
  const maskFolder = topFolders(images).find((name) => maskFolders.includes(name.toLowerCase()));
  if (maskFolder === undefined) throw noImages(folder, 'it has neither a folder test nor one of masks', advice);
  const masks = new Map(images.filter((path) => path.startsWith(`${maskFolder}/`)).map((path) => [stem(path).slice(maskFolder.length + 1), path]));
  return images.filter((path) => !path.startsWith(`${maskFolder}/`)).map((path) => {
    // Subfolders of the images' folder may stand for kinds, and then have their like among the masks.
    const inside = path.includes('/') ? stem(path).slice(path.indexOf('/') + 1) : stem(path);
    const defect = inside.includes('/') ? inside.split('/')[0]! : '';
    return { path, defect, maskPath: masks.get(`${inside}_mask`) ?? masks.get(inside) };
  });
}

/** All images of a plain folder, subfolders included: what `inspect` takes when it is given a folder. */
export function allImages(listing: readonly string[], folder: string): string[] {
  const images = listing.filter(isImagePath).sort(compareCodePoints);
  if (images.length === 0) throw noImages(folder, emptyReason(listing), `Images are files that end in ${IMAGE_EXTENSIONS.join(', ')}.`);
  return images;
}

function noImages(folder: string, found: string, advice: string): InputError {
  return new InputError(`${folder}: no images to use: ${found}. ${advice}`, { file: folder, code: 'no-images' });
}

function emptyReason(listing: readonly string[]): string {
  return listing.length === 0 ? 'the folder is empty' : `none of its ${listing.length} files is an image`;
}

function hasFolder(listing: readonly string[], name: string): boolean {
  return listing.some((path) => path.startsWith(`${name}/`));
}

/** Whether a file lies directly in `folder`. */
function isIn(path: string, folder: string): boolean {
  return path.lastIndexOf('/') === folder.length && path.startsWith(folder);
}

function topFolders(listing: readonly string[]): string[] {
  return [...new Set(listing.filter((path) => path.includes('/')).map((path) => path.split('/')[0]!))].sort(compareCodePoints);
}

function stem(path: string): string {
  return path.slice(0, path.lastIndexOf('.'));
}
