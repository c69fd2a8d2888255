/**
 * Folders of real defects with their masks, to train a segmentation head with. Here a defect without a mask is an error: it
 * can't be learned from.
 */
import { InputError } from '../errors.ts';
import { noImages } from './dataset.ts';
import { readCategory } from './layout-folders.ts';
import { imagesOf, stem, topFolders } from './paths.ts';

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
  const images = imagesOf(listing);
  const found = listing.some((path) => path.startsWith('test/')) ? testedDefects(listing, folder) : pairedImages(images, folder, advice);
  if (found.length === 0) throw noImages(folder, images.length === 0 ? 'there are no images' : 'there are no defective images with masks', advice);
  const unmasked = found.find(({ maskPath }) => maskPath === undefined);
  if (unmasked) throw new InputError(`${folder}/${unmasked.path}: this defect has no mask. ${advice}`, { file: `${folder}/${unmasked.path}`, code: 'no-mask' });
  const byKind = new Map<string, DefectImage[]>();
  for (const { path, maskPath, defect } of found) byKind.set(defect, [...(byKind.get(defect) ?? []), { path, maskPath: maskPath!, defect }]);
  const kinds = [...byKind.values()];
  const longest = Math.max(...kinds.map((kind) => kind.length));
  return Array.from({ length: longest }, (_, i) => kinds.flatMap((kind) => kind.slice(i, i + 1))).flat();
}

function testedDefects(listing: readonly string[], folder: string): { path: string; defect: string; maskPath: string | undefined }[] {
  const defects = readCategory(listing, folder, `${folder}/`)!.tests.filter(({ label }) => label === 1);
  return defects.map(({ path, defect, maskPaths }) => {
    if (maskPaths && maskPaths.length > 1) throw new InputError(`${folder}/${path}: this defect has ${maskPaths.length} masks. Merge them into one file, or leave the image out.`, { file: `${folder}/${path}`, code: 'no-mask' });
    return { path, defect, maskPath: maskPaths?.[0] };
  });
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
