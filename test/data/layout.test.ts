import { describe, expect, it } from 'vitest';
import { allImages, compareCodePoints, defectImages, isImagePath, testImages, trainingImages } from '../../src/data/layout.ts';
import { InputError } from '../../src/errors.ts';

const category = [
  'test/scratch/001.png', 'test/scratch/000.jpg', 'test/good/000.png', 'test/dent/7.PNG', 'train/good/010.png', 'train/good/002.png',
  'train/good/notes.txt', 'ground_truth/scratch/000_mask.png', 'ground_truth/dent/7.png', 'readme.md', 'license.png',
];

describe('image names', () => {
  it('are known by their extension in any case; hidden files are not images', () => {
    expect(['a.png', 'b/c.JPEG', 'x.y.TiFf', 'w.webp', 'b.bmp', 'j.jpg', 't.tif'].every(isImagePath)).toBe(true);
    expect(['a.txt', '.a.png', 'b/.c.png', '.cache/a.png', 'png', 'a.png/readme', 'a.png.part'].some(isImagePath)).toBe(false);
  });

  it('sort by code point', () => {
    expect(['b', 'a', 'B', '10', '9', 'ä', 'a1', '\u{1F600}', '\uFF01'].sort(compareCodePoints)).toEqual(['10', '9', 'B', 'a', 'a1', 'b', 'ä', '\uFF01', '\u{1F600}']);
  });
});

describe('trainingImages', () => {
  it('takes train/good of a category', () => {
    expect(trainingImages(category, 'screw')).toEqual(['train/good/002.png', 'train/good/010.png']);
  });

  it('takes the images of a plain folder, not those below it', () => {
    expect(trainingImages(['b.png', 'a.jpg', 'x.txt', 'rejected/c.png', '.hidden.png'], 'line3')).toEqual(['a.jpg', 'b.png']);
  });

  it.each([
    [[], /^line3: .*empty/],
    [['a.txt', '.a.png'], /^line3: .*none of its 2 files is an image/],
    [['train/bad/a.png', 'test/good/b.png'], /^line3: .*train\/good/],
    [['test/good/b.png'], /^line3: .*train\/good/],
    [['day1/a.png', 'day2/b.png'], /^line3: .*subfolders \(day1, day2\)/],
  ])('names the folder and what is missing: %j', (listing, message) => {
    expect(() => trainingImages(listing, 'line3')).toThrow(InputError);
    expect(() => trainingImages(listing, 'line3')).toThrow(message);
  });
});

describe('testImages', () => {
  it('labels by folder, good first, and finds masks by stem', () => {
    expect(testImages(category, 'screw')).toEqual([
      { path: 'test/good/000.png', label: 0, defect: 'good' },
      { path: 'test/dent/7.PNG', label: 1, defect: 'dent', maskPath: 'ground_truth/dent/7.png' },
      { path: 'test/scratch/000.jpg', label: 1, defect: 'scratch', maskPath: 'ground_truth/scratch/000_mask.png' },
      { path: 'test/scratch/001.png', label: 1, defect: 'scratch' },
    ]);
  });

  it.each([
    [[], /^screw: .*empty/],
    [['train/good/a.png'], /^screw: .*test\/good/],
    [['test/a.png'], /^screw: .*test\/<defect>/],
  ])('names the folder and what is missing: %j', (listing, message) => {
    expect(() => testImages(listing, 'screw')).toThrow(InputError);
    expect(() => testImages(listing, 'screw')).toThrow(message);
  });
});

describe('allImages', () => {
  it('takes everything that is an image', () => {
    expect(allImages(['b/c.png', 'a.png', 'x.txt'], 'in')).toEqual(['a.png', 'b/c.png']);
    expect(() => allImages(['x.txt'], 'in')).toThrow(/^in: .*none of its 1 files/);
  });
});

describe('defectImages', () => {
  it('takes the test folders with their masks, kinds of defect in turn', () => {
    const listing = ['test/good/0.png', 'test/dent/a.png', 'test/dent/b.jpg', 'test/hole/c.png', 'ground_truth/dent/a_mask.png', 'ground_truth/dent/b.png', 'ground_truth/hole/c_mask.png'];
    expect(defectImages(listing, 'd')).toEqual([
      { path: 'test/dent/a.png', maskPath: 'ground_truth/dent/a_mask.png', defect: 'dent' },
      { path: 'test/hole/c.png', maskPath: 'ground_truth/hole/c_mask.png', defect: 'hole' },
      { path: 'test/dent/b.jpg', maskPath: 'ground_truth/dent/b.png', defect: 'dent' },
    ]);
  });

  it('takes a pair of folders, with kinds below them or without', () => {
    expect(defectImages(['images/a.png', 'masks/a.png', 'images/b.jpg', 'masks/b_mask.png'], 'd')).toEqual([
      { path: 'images/a.png', maskPath: 'masks/a.png', defect: '' }, { path: 'images/b.jpg', maskPath: 'masks/b_mask.png', defect: '' },
    ]);
    expect(defectImages(['bad/hole/a.png', 'Masks/hole/a.png', 'bad/dent/a.png', 'Masks/dent/a.png'], 'd').map(({ maskPath, defect }) => [maskPath, defect]))
      .toEqual([['Masks/dent/a.png', 'dent'], ['Masks/hole/a.png', 'hole']]);
    expect(defectImages(['a.png', 'masks/a.png'], 'd')).toEqual([{ path: 'a.png', maskPath: 'masks/a.png', defect: '' }]);
  });

  it.each([
    [['images/a.png', 'images/b.png', 'masks/b.png'], /^d\/images\/a\.png: this defect has no mask/],
    [['test/dent/a.png', 'test/good/b.png'], /^d\/test\/dent\/a\.png: this defect has no mask/],
    [['test/good/b.png'], /^d: .*no defective images with masks/],
    [['images/a.png'], /^d: .*neither a folder test nor one of masks/],
    [['masks/a.png'], /^d: .*no defective images with masks/],
    [[], /^d: /],
  ])('names what is missing: %j', (listing, message) => {
    expect(() => defectImages(listing, 'd')).toThrow(InputError);
    expect(() => defectImages(listing, 'd')).toThrow(message);
  });
});
