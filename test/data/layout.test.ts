import { describe, expect, it } from 'vitest';
import { knownDataset, requireTests, requireTraining, type Dataset } from '../../src/data/dataset.ts';
import { allImages, readDataset, splitFiles } from '../../src/data/layout.ts';
import { compareCodePoints, isImagePath } from '../../src/data/paths.ts';
import { InputError } from '../../src/errors.ts';

const read = (listing: readonly string[], folder: string, texts: Record<string, string> = {}): Dataset => readDataset(listing, new Map(Object.entries(texts)), folder);
/** [path, label, defect, masks] of each test image. */
const testsOf = (dataset: Dataset, category = 0) => dataset.categories[category]!.tests.map(({ path, label, defect, maskPaths }) => [path, label, defect, ...(maskPaths ?? [])]);
/** The message of the InputError, which names `file`. */
function failure(act: () => unknown, file: string): string {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    expect((error as InputError).file).toBe(file);
    return (error as Error).message;
  }
  throw new Error('It did not fail.');
}

const category = [
  'test/scratch/001.png', 'test/scratch/000.jpg', 'test/good/000.png', 'test/dent/7.PNG', 'train/good/010.png', 'train/good/002.png',
  'train/good/notes.txt', 'ground_truth/scratch/000_mask.png', 'ground_truth/dent/7.png', 'readme.md', 'license.png',
];
const inFolders = (folders: readonly string[], listing: readonly string[]) => folders.flatMap((folder) => listing.map((path) => `${folder}/${path}`));

describe('image names', () => {
  it('are known by their extension in any case; hidden files are not images', () => {
    expect(['a.png', 'b/c.JPEG', 'x.y.TiFf', 'w.webp', 'b.bmp', 'j.jpg', 't.tif'].every(isImagePath)).toBe(true);
    expect(['a.txt', '.a.png', 'b/.c.png', '.cache/a.png', 'png', 'a.png/readme', 'a.png.part'].some(isImagePath)).toBe(false);
  });

  it('sort by code point', () => {
    expect(['b', 'a', 'B', '10', '9', 'ä', 'a1', '\u{1F600}', '\uFF01'].sort(compareCodePoints)).toEqual(['10', '9', 'B', 'a', 'a1', 'b', 'ä', '\uFF01', '\u{1F600}']);
  });
});

describe('the layout of MVTec AD', () => {
  it('one category: labelled by folder, good first, masks by stem whatever their extension', () => {
    const dataset = read(category, 'data/screw');
    expect(dataset).toMatchObject({ layout: 'MVTec', title: 'MVTec AD, 1 of 15 categories in the layout of MVTec AD', known: { name: 'MVTec AD', categories: 15 }, notes: [] });
    expect(dataset.categories).toHaveLength(1);
    expect(dataset.categories[0]).toMatchObject({ name: 'screw', train: ['train/good/002.png', 'train/good/010.png'], validation: [] });
    expect(testsOf(dataset)).toEqual([
      ['test/good/000.png', 0, 'good'],
      ['test/dent/7.PNG', 1, 'dent', 'ground_truth/dent/7.png'],
      ['test/scratch/000.jpg', 1, 'scratch', 'ground_truth/scratch/000_mask.png'],
      ['test/scratch/001.png', 1, 'scratch'],
    ]);
  });

  it('a root: a category a folder, with paths from the root; other folders are named', () => {
    const dataset = read([...inFolders(['screw', 'cable'], category), 'heatmaps/a.png', 'readme.txt'], 'mvtec');
    expect(dataset.categories.map(({ name }) => name)).toEqual(['cable', 'screw']);
    expect(dataset.categories[1]!.train).toEqual(['screw/train/good/002.png', 'screw/train/good/010.png']);
    expect(testsOf(dataset, 1)[1]).toEqual(['screw/test/dent/7.PNG', 1, 'dent', 'screw/ground_truth/dent/7.png']);
    expect(dataset.notes).toEqual(['left out, because they have neither train nor test nor good: heatmaps']);
    const own = read(inFolders(['my_part', 'other'], category), 'x');
    expect([own.known, own.title]).toEqual([undefined, '2 categories in the layout of MVTec AD']);
  });

  it('inside the one folder of an archive, as VisA\'s script leaves its 1cls layout', () => {
    const dataset = read(inFolders(['1cls/candle', '1cls/pcb1'], ['train/good/0001.JPG', 'test/good/0002.JPG', 'test/bad/000.JPG', 'ground_truth/bad/000.png']), 'VisA_pytorch');
    expect(dataset.title).toBe('VisA, 2 of 12 categories in the layout of MVTec AD');
    expect(dataset.categories[0]!.train).toEqual(['1cls/candle/train/good/0001.JPG']);
    expect(testsOf(dataset)[1]).toEqual(['1cls/candle/test/bad/000.JPG', 1, 'bad', '1cls/candle/ground_truth/bad/000.png']);
    // A root with one category is no archive, and its category keeps its name.
    expect(read(inFolders(['screw'], category), 'mvtec').categories).toMatchObject([{ name: 'screw', train: ['screw/train/good/002.png', 'screw/train/good/010.png'] }]);
  });

  it('MVTec AD 2: validation images, test_public, masks inside; private tests are left alone', () => {
    const dataset = read([
      'train/good/000_regular.png', 'validation/good/001_regular.png', 'test_public/good/002_regular.png', 'test_public/bad/003_overexposed.png',
      'test_public/ground_truth/bad/003_overexposed_mask.png', 'test_private/004.png', 'test_private_mixed/005_mixed.png',
    ], 'ad2/can');
    expect(dataset.categories[0]).toMatchObject({ train: ['train/good/000_regular.png'], validation: ['validation/good/001_regular.png'] });
    expect(testsOf(dataset)).toEqual([
      ['test_public/good/002_regular.png', 0, 'good'],
      ['test_public/bad/003_overexposed.png', 1, 'bad', 'test_public/ground_truth/bad/003_overexposed_mask.png'],
    ]);
  });

  it('BTAD: ok and ko; MVTec LOCO: several masks an image', () => {
    const btad = read(inFolders(['01', '02'], ['train/ok/0000.bmp', 'test/ok/0001.bmp', 'test/ko/0002.bmp', 'ground_truth/ko/0002.png']), 'BTech');
    expect(btad.title).toBe('BTAD, 2 of 3 categories in the layout of MVTec AD');
    expect(testsOf(btad)).toEqual([['01/test/ok/0001.bmp', 0, 'good'], ['01/test/ko/0002.bmp', 1, 'ko', '01/ground_truth/ko/0002.png']]);
    const loco = read(['train/good/0.png', 'validation/good/1.png', 'test/good/2.png', 'test/logical_anomalies/003.png', 'ground_truth/logical_anomalies/003/000.png', 'ground_truth/logical_anomalies/003/001.png'], 'loco/pushpins');
    expect(testsOf(loco)[1]).toEqual(['test/logical_anomalies/003.png', 1, 'logical_anomalies', 'ground_truth/logical_anomalies/003/000.png', 'ground_truth/logical_anomalies/003/001.png']);
  });

  it('a mask that belongs to no image beside a defect without one is an error', () => {
    const message = failure(() => read(['train/good/0.png', 'test/good/1.png', 'test/dent/000.png', 'ground_truth/dent/mask-000.png'], 'screw'), 'screw/ground_truth/dent/mask-000.png');
    expect(message).toMatch(/screw\/test\/dent\/000\.png has no mask: their names do not match/);
    // Either alone is none: images were taken away, or not all defects are outlined.
    expect(testsOf(read(['train/good/0.png', 'test/dent/000.png', 'ground_truth/dent/000.png', 'ground_truth/dent/001.png', 'test/scratch/000.png'], 'screw'))).toHaveLength(2);
  });

  it('what is missing is named: training images when training, test images when testing', () => {
    const noTraining = read(['test/good/b.png', 'train/bad/a.png'], 'line3');
    expect(failure(() => requireTraining(noTraining, 'line3'), 'line3')).toMatch(/line3\/train\/good/);
    const noTests = read(['train/good/a.png'], 'line3');
    expect(failure(() => requireTests(noTests, 'line3'), 'line3')).toMatch(/line3\/test\/good or line3\/test\/<defect>/);
    expect(failure(() => requireTests(read(['test/a.png'], 'line3'), 'line3'), 'line3')).toMatch(/test\/<defect>/);
    // Of many categories those without test images are left out; without training images nothing works.
    const some = read([...inFolders(['a'], category), 'b/train/good/0.png'], 'root');
    expect(requireTests(some, 'root').map(({ name }) => name)).toEqual(['a']);
    expect(failure(() => requireTraining(read([...inFolders(['a'], category), 'b/test/good/0.png'], 'root'), 'root'), 'root')).toMatch(/root\/b\/train\/good/);
  });
});

describe('VisA', () => {
  const csv = [
    'object,split,label,image,mask',
    'candle,train,normal,candle/Data/Images/Normal/0836.JPG,',
    'candle,test,normal,candle/Data/Images/Normal/0001.JPG,',
    'candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png',
    'pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,', '',
  ];
  const listing = ['split_csv/1cls.csv', 'split_csv/2cls_fewshot.csv', 'candle/Data/Images/Normal/0836.JPG', 'candle/Data/Images/Normal/0001.JPG', 'candle/Data/Images/Anomaly/000.JPG', 'candle/Data/Masks/Anomaly/000.png', 'pcb1/Data/Images/Normal/0000.JPG', 'candle/image_anno.csv'];
  const visa = (lines: readonly string[], files = listing) => read(files, 'VisA', { 'split_csv/1cls.csv': lines.join('\r\n') });

  it('is read by its split file', () => {
    expect(splitFiles(listing)).toEqual(['split_csv/1cls.csv']);
    const dataset = visa(csv);
    expect(dataset.title).toBe('VisA, 2 of 12 categories');
    expect(dataset.categories.map(({ name, train }) => [name, train])).toEqual([['candle', ['candle/Data/Images/Normal/0836.JPG']], ['pcb1', ['pcb1/Data/Images/Normal/0000.JPG']]]);
    expect(testsOf(dataset)).toEqual([
      ['candle/Data/Images/Normal/0001.JPG', 0, 'good'],
      ['candle/Data/Images/Anomaly/000.JPG', 1, 'bad', 'candle/Data/Masks/Anomaly/000.png'],
    ]);
    // Its masks hold the numbers of kinds, not black and white.
    expect(dataset.categories[0]!.tests[1]!.maskIsLabels).toBe(true);
  });

  it('inside an archive\'s folder as well', () => {
    const inner = listing.map((path) => `VisA_20220922/${path}`);
    expect(splitFiles(inner)).toEqual(['VisA_20220922/split_csv/1cls.csv']);
    expect(read(inner, 'data', { 'VisA_20220922/split_csv/1cls.csv': csv.join('\n') }).categories[0]!.train).toEqual(['VisA_20220922/candle/Data/Images/Normal/0836.JPG']);
  });

  it.each([
    [() => read(listing.slice(2), 'VisA'), /no such file/],
    [() => visa(['image,label']), /first line is "image,label"/],
    [() => visa([...csv.slice(0, 4), 'candle,test,anomaly']), /line 5 is "candle,test,anomaly", expected five fields/],
    [() => visa([csv[0]!, 'candle,valid,normal,a.JPG,']), /line 2 has the split "valid"/],
    [() => visa([csv[0]!, 'candle,train,anomaly,candle/Data/Images/Anomaly/000.JPG,']), /two classes/],
    [() => visa(csv, listing.filter((path) => !path.includes('0836'))), /line 2 names candle\/Data\/Images\/Normal\/0836\.JPG, which is not there/],
    [() => visa(csv, listing.filter((path) => !path.includes('Masks'))), /line 4 names candle\/Data\/Masks/],
    [() => visa(csv.slice(0, 1)), /names no image/],
  ])('read wrongly names the split file and the line %#', (act, message) => {
    expect(failure(act, 'VisA/split_csv/1cls.csv')).toMatch(message);
  });
});

describe('Real-IAD', () => {
  const json = {
    meta: { prefix: '', normal_class: 'OK' },
    train: [{ category: 'audiojack', anomaly_class: 'OK', image_path: 'OK/S0001/a.jpg', mask_path: null }],
    test: [
      { category: 'audiojack', anomaly_class: 'OK', image_path: 'OK/S0002/b.jpg', mask_path: null },
      { category: 'audiojack', anomaly_class: 'BX', image_path: 'NG/BX/S0003/c.jpg', mask_path: 'NG/BX/S0003/c.png' },
    ],
  };
  const images = ['OK/S0001/a.jpg', 'OK/S0002/b.jpg', 'NG/BX/S0003/c.jpg', 'NG/BX/S0003/c.png'];
  const split = 'realiad_jsons/realiad_jsons/audiojack.json';
  const listing = [split, 'realiad_jsons/realiad_jsons/usb.json', 'realiad_jsons/realiad_jsons_sv/audiojack.json', ...inFolders(['realiad_256/audiojack', 'realiad_1024/audiojack'], images)];
  const realIad = (content: unknown, files = listing) => read(files, 'Real-IAD', { [split]: typeof content === 'string' ? content : JSON.stringify(content), 'realiad_jsons/realiad_jsons/usb.json': '{}' });

  it('is read by its split files, with the images of the resolution that the authors use', () => {
    expect(splitFiles(listing)).toEqual([split, 'realiad_jsons/realiad_jsons/usb.json']);
    const dataset = realIad(json);
    expect(dataset.title).toBe('Real-IAD, 1 of 30 categories');
    expect(dataset.notes).toEqual(['images from realiad_1024', '1 of 2 categories have no images in realiad_1024 and are left out']);
    expect(dataset.categories).toMatchObject([{ name: 'audiojack', train: ['realiad_1024/audiojack/OK/S0001/a.jpg'] }]);
    expect(testsOf(dataset)).toEqual([
      ['realiad_1024/audiojack/OK/S0002/b.jpg', 0, 'good'],
      ['realiad_1024/audiojack/NG/BX/S0003/c.jpg', 1, 'BX', 'realiad_1024/audiojack/NG/BX/S0003/c.png'],
    ]);
    const flat = ['realiad_jsons/audiojack.json', ...inFolders(['realiad_256/audiojack'], images)];
    expect(read(flat, 'Real-IAD', { 'realiad_jsons/audiojack.json': JSON.stringify(json) }).notes).toEqual(['images from realiad_256']);
  });

  it.each([
    ['realiad_jsons', () => read(listing.filter((path) => !path.endsWith('.json')), 'Real-IAD'), /no split files/],
    ['realiad_1024', () => read([split], 'Real-IAD', { [split]: JSON.stringify(json) }), /no images/],
    [split, () => realIad('{"meta": '), /not readable as JSON/],
    [split, () => realIad({ train: [] }), /no list "test"/],
    [split, () => realIad({ ...json, test: [{ image_path: 3, anomaly_class: 'OK' }] }), /entry 0 of "test" needs the texts/],
    [split, () => realIad({ ...json, train: [json.test[1]] }), /class BX; only OK is normal/],
    [split, () => realIad(json, listing.filter((path) => !path.endsWith('1024/audiojack/OK/S0001/a.jpg'))), /entry 0 of "train" names OK\/S0001\/a\.jpg, but Real-IAD\/realiad_1024\/audiojack\/OK\/S0001\/a\.jpg is not there/],
    [split, () => realIad(json, listing.filter((path) => !path.endsWith('1024/audiojack/NG/BX/S0003/c.png'))), /entry 1 of "test" names NG\/BX\/S0003\/c\.png/],
    [split, () => realIad(json, [split, 'realiad_1024/toy/OK/a.jpg']), /no folder audiojack/],
  ])('read wrongly names %s %#', (file, act, message) => {
    expect(failure(act, `Real-IAD/${file}`)).toMatch(message);
  });
});

describe('a pair of good and bad', () => {
  const good = Array.from({ length: 10 }, (_, i) => `good/${i}.png`);

  it('keeps every fifth good image for evaluation and finds masks by name', () => {
    const dataset = read([...good, 'bad/a.png', 'bad/dent/b.png', 'bad/c.png', 'masks/a.png', 'masks/dent/b_mask.png'], 'parts');
    expect(dataset).toMatchObject({ layout: 'good and bad', title: 'good and bad images, 1 category', notes: ['every fifth good image is kept for evaluation, the others are for training'] });
    expect(dataset.categories[0]!.train).toEqual(good.filter((_, i) => i % 5 !== 4));
    expect(testsOf(dataset)).toEqual([
      ['good/4.png', 0, 'good'], ['good/9.png', 0, 'good'],
      ['bad/a.png', 1, 'bad', 'masks/a.png'], ['bad/c.png', 1, 'bad'], ['bad/dent/b.png', 1, 'dent', 'masks/dent/b_mask.png'],
    ]);
  });

  it('has masks beside the images too, many pairs in a root, and without bad ones trains on all', () => {
    expect(testsOf(read([...good, 'NG/x.png', 'NG/x_mask.png'], 'parts')).at(-1)).toEqual(['NG/x.png', 1, 'NG', 'NG/x_mask.png']);
    expect(read(inFolders(['a', 'b'], [...good, 'bad/x.png']), 'parts').categories.map(({ name, train }) => [name, train.length])).toEqual([['a', 8], ['b', 8]]);
    expect(read(good, 'parts').categories[0]).toMatchObject({ train: good, tests: [] });
  });

  it('a mask without its image beside a defect without its mask is an error', () => {
    expect(failure(() => read([...good, 'bad/a.png', 'masks/x.png'], 'parts'), 'parts/masks/x.png')).toMatch(/parts\/bad\/a\.png has no mask/);
  });
});

describe('a folder of images', () => {
  it('is normal images to train on, without those below', () => {
    const dataset = read(['b.png', 'a.jpg', 'x.txt', 'rejected/c.png', '.hidden.png'], 'data/line3');
    expect(dataset.categories).toMatchObject([{ name: 'line3', train: ['a.jpg', 'b.png'], tests: [] }]);
    expect(dataset).toMatchObject({ layout: 'images', title: 'a folder of normal images' });
    expect(failure(() => requireTests(dataset, 'line3'), 'line3')).toMatch(/test\/good/);
  });

  it.each([
    [[], /^line3: .*empty/],
    [['a.txt', '.a.png'], /^line3: .*none of its 2 files is an image/],
    [['day1/a.png', 'day2/b.png'], /^line3: .*subfolders \(day1, day2\)/],
  ])('names the folder and what is missing: %j', (listing, message) => {
    expect(failure(() => read(listing, 'line3'), 'line3')).toMatch(message);
  });
});

it('known data sets are told by all their categories\' names', () => {
  expect(knownDataset(['candle', 'pcb4'])!.name).toBe('VisA');
  expect(knownDataset(['toothbrush', 'usb'])!.name).toBe('Real-IAD');
  // Both have these two; they are the larger part of the smaller one.
  expect(knownDataset(['toothbrush', 'zipper'])!.name).toBe('MVTec AD');
  expect(knownDataset(['screw', 'mine'])).toBeUndefined();
  expect(knownDataset([])).toBeUndefined();
});

describe('allImages', () => {
  it('takes everything that is an image', () => {
    expect(allImages(['b/c.png', 'a.png', 'x.txt'], 'in')).toEqual(['a.png', 'b/c.png']);
    expect(() => allImages(['x.txt'], 'in')).toThrow(/^in: .*none of its 1 files/);
  });
});
