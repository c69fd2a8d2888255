/**
 * VisA as it is published: images in <category>/Data/Images/{Normal,Anomaly}, masks in <category>/Data/Masks/Anomaly, and
 * split_csv/1cls.csv that says which are for what, a line an image: object,split,label,image,mask. The masks' values are
 * the numbers of the defects' kinds. (The 1cls layout that the authors' script makes of it is MVTec AD's.)
 *
 * Source: Zou et al., ECCV 2022; split_csv/1cls.csv and utils/prepare_data.py of amazon-science/spot-diff.
 */
import { InputError } from '../errors.ts';
import type { DatasetCategory, LabelledImage } from './dataset.ts';
import { goodFirst } from './layout-folders.ts';
import { compareCodePoints } from './paths.ts';

export const VISA_SPLIT = 'split_csv/1cls.csv';
const HEADER = 'object,split,label,image,mask';

export function isVisa(listing: readonly string[]): boolean {
  return listing.includes(VISA_SPLIT) || listing.some((path) => /^[^/]+\/Data\/Images\/(Normal|Anomaly)\//.test(path));
}

/** @throws InputError naming the split file, and the line that does not fit */
export function readVisa(listing: readonly string[], split: string | undefined, at: string): DatasetCategory[] {
  const file = `${at}${VISA_SPLIT}`;
  const fail = (problem: string, advice: string): never => {
    throw new InputError(`${file}: ${problem}. ${advice}`, { file });
  };
  if (split === undefined) return fail('there is no such file, and VisA\'s folders alone do not say which images are for training', 'Copy split_csv/1cls.csv from the data set\'s archive.');
  const [header = '', ...lines] = split.replace(/^\uFEFF/, '').split(/\r?\n/);
  if (header.trim() !== HEADER) fail(`its first line is "${header.trim().slice(0, 60)}", expected "${HEADER}"`, 'Take the file from the data set\'s archive.');

  const files = new Set(listing);
  const categories = new Map<string, { train: string[]; tests: LabelledImage[] }>();
  for (const [i, line] of lines.entries()) {
    if (line.trim() === '') continue;
    const where = `line ${i + 2}`;
    const fields = line.split(',').map((field) => field.trim());
    const [object = '', set = '', label = '', image = '', mask = ''] = fields;
    if (fields.length !== 5 || object === '' || image === '') fail(`${where} is "${line.slice(0, 80)}", expected five fields, ${HEADER}`, 'Take the file from the data set\'s archive.');
    if (!['train', 'test'].includes(set) || !['normal', 'anomaly'].includes(label)) fail(`${where} has the split "${set}" and the label "${label}", expected train or test, and normal or anomaly`, 'Take the file from the data set\'s archive.');
    if (set === 'train' && label === 'anomaly') fail(`${where} trains on an anomaly`, 'That is one of the splits with two classes; 1cls.csv is the one for anomaly detection.');
    for (const path of [image, mask]) if (path !== '' && !files.has(path)) fail(`${where} names ${path}, which is not there`, 'Copy the data set again, or take the line out.');
    const category = categories.get(object) ?? { train: [], tests: [] };
    categories.set(object, category);
    if (set === 'train') category.train.push(image);
    else if (label === 'normal') category.tests.push({ path: image, label: 0, defect: 'good' });
    else category.tests.push({ path: image, label: 1, defect: 'bad', ...(mask !== '' && { maskPaths: [mask], maskIsLabels: true }) });
  }
  if (categories.size === 0) fail('it names no image', 'Take the file from the data set\'s archive.');
  return [...categories].sort(([a], [b]) => compareCodePoints(a, b)).map(([name, { train, tests }]) => ({
    name, validation: [],
    train: train.sort(compareCodePoints),
    tests: goodFirst(tests.sort((a, b) => compareCodePoints(a.path, b.path))),
    places: { train: `${file} (train)`, tests: `${file} (test)` },
  }));
}
