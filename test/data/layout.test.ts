import { describe, expect, it } from 'vitest';
import { allImages, compareCodePoints, isImagePath, testImages, trainingImages } from '../../src/data/layout.ts';
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
