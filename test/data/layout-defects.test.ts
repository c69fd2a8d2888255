import { describe, expect, it } from 'vitest';
import { defectImages } from '../../src/data/layout-defects.ts';
import { InputError } from '../../src/errors.ts';

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
