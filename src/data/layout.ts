/**
 * Which data set a folder holds, told from the list of its files and the text of its split files: MVTec AD and its
 * successors, VisA, Real-IAD, a good/bad pair, one category or a root with many, or plain images. Pure functions, so that
 * Node's folders, a page's dropped directory and tests share them. What is read wrongly is an error that names the file.
 */
import { type Dataset, type DatasetCategory, knownDataset, noImages } from './dataset.ts';
import { isPair, readCategories, readCategory, underFolder } from './layout-folders.ts';
import { isRealIad, readRealIad, realIadSplits } from './layout-real-iad.ts';
import { isVisa, readVisa, VISA_SPLIT } from './layout-visa.ts';
import { below, IMAGE_EXTENSIONS, imagesOf, isImagePath, topFolders } from './paths.ts';

export { KNOWN_DATASETS, requireTests, requireTraining, type Dataset, type DatasetCategory, type LabelledImage } from './dataset.ts';
export { mergedMask, type NamedMask } from './ground-truth.ts';

/** Folders below the root that a layout can have: realiad_jsons aside, images lie at realiad_1024/<category>/NG/<defect>/<sample>/. */
export const DATASET_DEPTH = 7;

/** The split files whose text {@link readDataset} needs, by their paths in the listing. */
export function splitFiles(listing: readonly string[]): string[] {
  const prefix = wrapper(listing);
  const inside = prefix === '' ? listing : below(listing, prefix.slice(0, -1));
  return [...realIadSplits(inside), ...inside.filter((path) => path === VISA_SPLIT)].map((path) => prefix + path);
}

/**
 * @param listing relative paths of the files in the folder and below, with forward slashes
 * @param texts text of the files that {@link splitFiles} names
 * @param folder what errors call the folder
 * @param name what its category is called, where it holds just one; by default the last part of `folder`
 * @throws InputError naming the file that does not fit, or the folder that holds nothing to use (code `no-images`)
 */
export function readDataset(listing: readonly string[], texts: ReadonlyMap<string, string>, folder: string, name = nameOf(folder)): Dataset {
  const prefix = wrapper(listing);
  if (prefix !== '') {
    const top = prefix.slice(0, -1);
    const inner = readDataset(below(listing, top), new Map([...texts].map(([path, text]) => [path.slice(prefix.length), text])), `${folder}/${top}`, top);
    return { ...inner, categories: inner.categories.map((category) => underFolder(category, top)) };
  }

  const at = `${folder}/`;
  const single = readCategory(listing, name, at);
  if (single) return dataset(isPair(listing) ? 'good and bad' : 'MVTec', [single], pairNotes(isPair(listing) ? [single] : []));
  if (isRealIad(listing)) {
    const { categories, notes } = readRealIad(listing, texts, at);
    return dataset('Real-IAD', categories, notes);
  }
  if (isVisa(listing)) return dataset('VisA', readVisa(listing, texts.get(VISA_SPLIT), at), []);
  const categories = readCategories(listing, at);
  if (categories.length > 0) {
    const others = topFolders(listing.filter(isImagePath)).filter((top) => !categories.some((category) => category.name === top));
    const pairs = categories.filter((category) => isPair(below(listing, category.name)));
    return dataset(pairs.length === categories.length ? 'good and bad' : 'MVTec', categories, [
      ...pairNotes(pairs),
      ...(others.length > 0 ? [`left out, because they have neither train nor test nor good: ${others.join(', ')}`] : []),
    ]);
  }
  return dataset('images', [plainImages(listing, folder, name)], []);
}

/** All images of a plain folder, subfolders included: what `inspect` takes when it is given a folder. */
export function allImages(listing: readonly string[], folder: string): string[] {
  const images = imagesOf(listing);
  if (images.length === 0) throw noImages(folder, emptyReason(listing), IMAGES_ARE);
  return images;
}

const IMAGES_ARE = `Images are files that end in ${IMAGE_EXTENSIONS.join(', ')}.`;

/** A folder without `train` and `test`: the images that lie directly in it are normal. */
function plainImages(listing: readonly string[], folder: string, name: string): DatasetCategory {
  const images = imagesOf(listing);
  const train = images.filter((path) => !path.includes('/'));
  if (train.length > 0) return { name, train, validation: [], tests: [], places: { train: folder, tests: `${folder}/test/good or ${folder}/test/<defect>` } };
  if (images.length > 0) {
    throw noImages(folder, `images lie only in its subfolders (${topFolders(images).join(', ')}), and these have neither train nor test nor good`, 'Name the subfolder that holds the normal images, or use one of the layouts of docs/data.md.');
  }
  throw noImages(folder, emptyReason(listing), IMAGES_ARE);
}

function dataset(layout: Dataset['layout'], categories: readonly DatasetCategory[], notes: readonly string[]): Dataset {
  const known = layout === 'images' || layout === 'good and bad' ? undefined : knownDataset(categories.map(({ name }) => name));
  const count = (n: number, word: string, words: string): string => `${n} ${n === 1 ? word : words}`;
  const size = known && known.categories > categories.length ? `${categories.length} of ${count(known.categories, 'category', 'categories')}` : count(categories.length, 'category', 'categories');
  const what = layout === 'images' ? 'a folder of normal images'
    : layout === 'good and bad' ? `good and bad images, ${size}`
    : `${known ? `${known.name}, ` : ''}${size}${known?.name === layout ? '' : ` in the layout of ${layout === 'MVTec' ? 'MVTec AD' : layout}`}`;
  return { layout, title: what, ...(known && { known }), categories, notes };
}

function pairNotes(pairs: readonly DatasetCategory[]): string[] {
  return pairs.some(({ tests }) => tests.length > 0) ? ['every fifth good image is kept for evaluation, the others are for training'] : [];
}

/** The one folder that holds everything, as archives and VisA's script (1cls/) leave it; '' where the root itself is the data set. */
function wrapper(listing: readonly string[]): string {
  const tops = topFolders(listing.filter((path) => isImagePath(path) || path.endsWith('.json') || path.endsWith('.csv')));
  const [top] = tops;
  if (top === undefined || tops.length > 1 || listing.some((path) => !path.includes('/') && isImagePath(path))) return '';
  if (isRealIad(listing) || isVisa(listing) || isCategoryFolder(listing)) return '';
  const inside = below(listing, top);
  return readsAsRoot(inside) || wrapper(inside) !== '' ? `${top}/` : '';
}

/** Whether the listing's own folders are those of a category or a data set; a lone category in a root is one as well. */
function readsAsRoot(listing: readonly string[]): boolean {
  return isRealIad(listing) || isVisa(listing) || topFolders(listing).some((top) => isCategoryFolder(below(listing, top)));
}

function isCategoryFolder(listing: readonly string[]): boolean {
  return topFolders(listing).some((top) => ['train', 'test', 'test_public'].includes(top)) || isPair(listing);
}

function emptyReason(listing: readonly string[]): string {
  return listing.length === 0 ? 'the folder is empty' : `none of its ${listing.length} files is an image`;
}

function nameOf(folder: string): string {
  return folder.split('/').filter((part) => part !== '').at(-1) ?? folder;
}
