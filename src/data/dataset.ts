/**
 * What a data set is, whatever its layout on disk: categories, each with normal images to train on and labelled images to
 * test with. Layouts (layout.ts) make it from a list of paths, so that nothing else needs to know one folder from another.
 */
import { InputError } from '../errors.ts';

export interface LabelledImage {
  /** Relative to the listed folder, with forward slashes. */
  readonly path: string;
  /** 0 normal, 1 defective. */
  readonly label: 0 | 1;
  /** 'good', or the kind of defect. */
  readonly defect: string;
  /**
   * Ground-truth masks, whose union counts (MVTec LOCO has a file a defect). Absent for a normal image, and for a defective
   * one without any: it then counts for the image metrics only.
   */
  readonly maskPaths?: readonly string[];
  /** Every value but 0 is anomalous: VisA's masks hold the number of the defect's kind. Otherwise values above half are. */
  readonly maskIsLabels?: boolean;
}

export interface DatasetCategory {
  readonly name: string;
  /** Normal images to train on, in code-point order. */
  readonly train: readonly string[];
  /** Normal images that the data set keeps apart, where it does: for the threshold. */
  readonly validation: readonly string[];
  /** 'good' first, then the defects, each in code-point order. */
  readonly tests: readonly LabelledImage[];
  /** Where the layout has training and test images, for messages: `screw/train/good`. */
  readonly places: { readonly train: string; readonly tests: string };
}

export interface Dataset {
  readonly layout: 'MVTec' | 'VisA' | 'Real-IAD' | 'good and bad' | 'images';
  /** What was found, in words: the data set's name where it is a known one, the layout, the categories. */
  readonly title: string;
  /** The published data set, where the categories are its own; see {@link KNOWN_DATASETS}. */
  readonly known?: { readonly name: string; readonly categories: number };
  readonly categories: readonly DatasetCategory[];
  /** What a user should know of how it was read. */
  readonly notes: readonly string[];
}

/** Published data sets by the names of their categories. */
export const KNOWN_DATASETS: readonly { readonly name: string; readonly categories: readonly string[] }[] = [
  { name: 'MVTec AD', categories: ['bottle', 'cable', 'capsule', 'carpet', 'grid', 'hazelnut', 'leather', 'metal_nut', 'pill', 'screw', 'tile', 'toothbrush', 'transistor', 'wood', 'zipper'] },
  { name: 'MVTec AD 2', categories: ['can', 'fabric', 'fruit_jelly', 'rice', 'sheet_metal', 'vial', 'wallplugs', 'walnuts'] },
  { name: 'MVTec LOCO AD', categories: ['breakfast_box', 'juice_bottle', 'pushpins', 'screw_bag', 'splicing_connectors'] },
  { name: 'VisA', categories: ['candle', 'capsules', 'cashew', 'chewinggum', 'fryum', 'macaroni1', 'macaroni2', 'pcb1', 'pcb2', 'pcb3', 'pcb4', 'pipe_fryum'] },
  { name: 'Real-IAD', categories: ['audiojack', 'bottle_cap', 'button_battery', 'end_cap', 'eraser', 'fire_hood', 'mint', 'mounts', 'pcb', 'phone_battery', 'plastic_nut', 'plastic_plug', 'porcelain_doll', 'regulator', 'rolled_strip_base', 'sim_card_set', 'switch', 'tape', 'terminalblock', 'toothbrush', 'toy', 'toy_brick', 'transistor1', 'u_block', 'usb', 'usb_adaptor', 'vcpill', 'wooden_beads', 'woodstick', 'zipper'] },
  { name: 'BTAD', categories: ['01', '02', '03'] },
  { name: 'MPDD', categories: ['bracket_black', 'bracket_brown', 'bracket_white', 'connector', 'metal_plate', 'tubes'] },
];

/** The published data set that has all these categories; of several, the one of which they are the larger part. */
export function knownDataset(categories: readonly string[]): Dataset['known'] {
  const [found] = KNOWN_DATASETS
    .filter((known) => categories.length > 0 && categories.every((name) => known.categories.includes(name)))
    .sort((a, b) => a.categories.length - b.categories.length);
  return found && { name: found.name, categories: found.categories.length };
}

/** The folder's data set without a category that has no test images; @throws InputError, code `no-images`, where none has any. */
export function requireTests({ categories }: Dataset, folder: string): DatasetCategory[] {
  const withTests = categories.filter(({ tests }) => tests.length > 0);
  if (withTests.length > 0) return withTests;
  throw noImages(folder, `there are no images in ${categories[0]!.places.tests}`, 'Evaluation needs good and defective test images in one of the layouts of docs/data.md: for example test/good/*.png, test/<defect>/*.png and, for the pixel metrics, ground_truth/<defect>/<name>_mask.png.');
}

/** @throws InputError, code `no-images`, naming the first category without normal training images */
export function requireTraining({ categories }: Dataset, folder: string): readonly DatasetCategory[] {
  const empty = categories.find(({ train }) => train.length === 0);
  if (!empty) return categories;
  throw noImages(folder, `no images in ${empty.places.train}`, `Put the normal images of ${empty.name} there, or name a folder that holds just normal images.`);
}

export function noImages(folder: string, found: string, advice: string): InputError {
  return new InputError(`${folder}: no images to use: ${found}. ${advice}`, { file: folder, code: 'no-images' });
}
