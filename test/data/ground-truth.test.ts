import { describe, expect, it } from 'vitest';
import { mergedMask, type NamedMask } from '../../src/data/ground-truth.ts';
import type { RasterImage } from '../../src/data/image.ts';
import { preprocessMask } from '../../src/data/preprocess.ts';
import { InputError } from '../../src/errors.ts';

const image = { name: 'a.png', width: 8, height: 8 };
const groundTruth = (masks: readonly NamedMask[], of: typeof image, isLabels = false) => preprocessMask(mergedMask(masks, of, isLabels), { resize: 8, crop: 8, mapSize: 8 });
/** `value` in the rows from `top`, 0 elsewhere. */
const mask = (value: number, top = 4, width = 8, height = 8): RasterImage => ({ width, height, channels: 1, data: Uint8Array.from({ length: width * height }, (_, i) => (Math.floor(i / width) >= top ? value : 0)) });
const rows = (values: Uint8Array) => Array.from({ length: 8 }, (_, y) => values[y * 8]);

describe('ground truth', () => {
  it('is white where white is, and the union of several masks', () => {
    expect(rows(groundTruth([{ name: 'm', mask: mask(255) }], image))).toEqual([0, 0, 0, 0, 1, 1, 1, 1]);
    const top = { ...mask(255), data: mask(255).data.map((value) => 255 - value) };
    expect(rows(groundTruth([{ name: 'm', mask: mask(255) }, { name: 'n', mask: top }], image))).toEqual([1, 1, 1, 1, 1, 1, 1, 1]);
  });

  it('takes numbers of kinds for what they are', () => {
    expect(rows(groundTruth([{ name: 'm', mask: mask(2) }], image))).toEqual([0, 0, 0, 0, 1, 1, 1, 1]);
    // A grey that is not white is no defect, unless the mask is known to hold kinds.
    const grey = mask(60, 2);
    grey.data.fill(255, 6 * 8);
    expect(rows(groundTruth([{ name: 'm', mask: grey }], image))).toEqual([0, 0, 0, 0, 0, 0, 1, 1]);
    expect(rows(groundTruth([{ name: 'm', mask: grey }], image, true))).toEqual([0, 0, 1, 1, 1, 1, 1, 1]);
  });

  it('may have another resolution than its image, but no other shape', () => {
    expect(rows(groundTruth([{ name: 'm', mask: mask(255, 8, 16, 16) }], image))).toEqual([0, 0, 0, 0, 1, 1, 1, 1]);
    const wrong = () => groundTruth([{ name: 'm.png', mask: mask(255, 4, 12, 8) }], image);
    expect(wrong).toThrow(InputError);
    expect(wrong).toThrow(/^m\.png: the mask has 12 x 8 pixels, but its image a\.png has 8 x 8/);
    expect(() => groundTruth([{ name: 'm', mask: mask(255) }, { name: 'n', mask: mask(255, 8, 16, 16) }], image)).toThrow(/^n: the mask has 16 x 16 pixels, m, of the same image, 8 x 8/);
  });
});
