import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import fc from 'fast-check';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import type { RasterImage } from '../../src/data/image.ts';
import { cropOffset, preprocess, preprocessMask, resizeAndCrop, toGrey } from '../../src/data/preprocess.ts';
import { Random } from '../../src/data/random.ts';
import { antialiasedCoefficients, RESAMPLE_PRECISION_BITS, resizeAntialiased, resizeNearest } from '../../src/data/resample.ts';
import { InputError, UsageError } from '../../src/errors.ts';
import { describeGolden, expectClose, float32, goldenFolder, goldenJson, goldenTensors } from '../support/golden.ts';

const sha256 = (data: Uint8Array | Uint8ClampedArray): string => createHash('sha256').update(data).digest('hex');

function image(width: number, height: number, channels: 1 | 3 | 4, value: (i: number) => number): RasterImage {
  return { width, height, channels, data: Uint8Array.from({ length: width * height * channels }, (_, i) => value(i)) };
}

function noise(width: number, height: number, channels: 1 | 3 | 4): RasterImage {
  const random = new Random(`${width}x${height}x${channels}`);
  return image(width, height, channels, () => random.integer(256));
}

describeGolden('resample', () => {
  interface Index {
    cases: { name: string; src_w: number; src_h: number; dst_w: number; dst_h: number; sha256: string }[];
    screw: { file: string; decoded_sha256: string; full448_sha256: string; crop_box_left_top_right_bottom: [number, number, number, number]; crop448_sha256: string };
    chain: { resize: number; crop: number; mean: [number, number, number]; std: [number, number, number] };
    chain64: { resize: number; crop: number };
    mask: { resize: number; crop: number; out: number };
  }
  const index = goldenJson<Index>('resample/index.json');
  const tensors = goldenTensors('resample/resample.safetensors');
  const raster = (name: string): RasterImage => {
    const { shape, data } = tensors.get(name)!;
    return { width: shape[1]!, height: shape[0]!, channels: (shape[2] ?? 1) as 1 | 3, data: data as Uint8Array };
  };

  for (const { name, src_w, src_h, dst_w, dst_h, sha256: hash } of index.cases) {
    it(`${name}: ${src_w} x ${src_h} to ${dst_w} x ${dst_h}, every byte`, () => {
      const result = resizeAntialiased(raster(`${name}.src`), dst_w, dst_h);
      expect(differingBytes(result.data, raster(`${name}.dst`).data)).toBe(0);
      expect(sha256(result.data)).toBe(hash);
    });
  }

  it('the chain to the encoder\'s input', () => {
    const { resize, crop, mean, std } = index.chain;
    const input = preprocess(raster('chain.src'), { resize, crop, mean, std });
    const [, rows, columns] = tensors.get('chain.input')!.shape as [number, number, number];
    const step = Math.ceil(crop / rows);
    const sampled = Float32Array.from({ length: 3 * rows * columns }, (_, i) => {
      const [c, y, x] = [Math.floor(i / (rows * columns)), Math.floor(i / columns) % rows, i % columns];
      return input[(c * crop + y * step) * crop + x * step]!;
    });
    expectClose(sampled, float32(tensors, 'chain.input'), { maxAbs: 1e-6, name: 'chain.input' });
    const small = preprocess(raster('chain.src'), { ...index.chain64, mean, std });
    expectClose(small, float32(tensors, 'chain64.input'), { maxAbs: 1e-6, name: 'chain64.input' });
  });

  it('the path of a mask', () => {
    const { resize, crop, out } = index.mask;
    const mask = preprocessMask(raster('mask.src'), { resize, crop, mapSize: out });
    const expected = (tensors.get('mask.dst')!.data as Uint8Array).map((value) => (value > 0 ? 1 : 0));
    expect(differingBytes(mask, expected)).toBe(0);
  });

  const photograph = resolve(goldenFolder()!, '../data', index.screw.file);
  if (existsSync(photograph)) {
    it('a photograph, whole and cropped', async () => {
      // sharp repeats grey to RGB.
      const { data, info } = await sharp(photograph).extractChannel(0).raw().toBuffer({ resolveWithObject: true });
      expect(sha256(data)).toBe(index.screw.decoded_sha256);
      const decoded = { width: info.width, height: info.height, channels: 1 as const, data };
      expect(sha256(resizeAntialiased(decoded, 448, 448).data)).toBe(index.screw.full448_sha256);

      const [left, top, right, bottom] = index.screw.crop_box_left_top_right_bottom;
      const cropped = image(right - left, bottom - top, 1, (i) => data[(top + Math.floor(i / (right - left))) * info.width + left + (i % (right - left))]!);
      expect(sha256(resizeAntialiased(cropped, 448, 448).data)).toBe(index.screw.crop448_sha256);
    });
  } else console.info(`golden: resample of a photograph: not run, ${index.screw.file} is not beside the golden set.`);
});

function differingBytes(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let differing = 0;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) differing++;
  return differing;
}

describe('antialiased resize', () => {
  it('tables: weights of each output sum to one and lie inside the input', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 700 }), fc.integer({ min: 1, max: 300 }), (input, output) => {
      const { first, count, weights, maxCount } = antialiasedCoefficients(input, output);
      for (let i = 0; i < output; i++) {
        expect(first[i]! >= 0 && count[i]! >= 1 && count[i]! <= maxCount && first[i]! + count[i]! <= input).toBe(true);
        const row = weights.subarray(i * maxCount, (i + 1) * maxCount);
        expect(Math.abs(row.reduce((sum, w) => sum + w, 0) - 2 ** RESAMPLE_PRECISION_BITS)).toBeLessThanOrEqual(maxCount);
        expect(row.subarray(count[i]!).every((w) => w === 0)).toBe(true);
      }
    }), { numRuns: 50 });
  });

  it('keeps a constant image, and an image of the same size', () => {
    for (const value of [0, 1, 127, 255]) {
      expect(new Set(resizeAntialiased(image(37, 53, 3, () => value), 20, 91).data)).toEqual(new Set([value]));
    }
    const original = noise(9, 7, 3);
    const copy = resizeAntialiased(original, 9, 7);
    expect(copy.data).toEqual(original.data);
    expect(copy.data.buffer).not.toBe(original.data.buffer);
  });

  it.each([
    // Where the height shrinks by more than twice as many pixels as the width, the columns come first.
    { from: [24, 67], to: [20, 20], hash: '244985ab59d9c0ebd921801e0da586b4aeebf308bf05997fdf7bd993000d7650' },
    { from: [40, 33], to: [48, 21], hash: '436adb3b2c6fcb1bac9b90ca15537ae95f05312f05626c6ee90e1737e3efb3c1' },
    { from: [22, 61], to: [37, 50], hash: 'ab47f18dbaa09f9618d238344ac6a2ff1c8b1a82e4eab104fc60655b4cf1aedc' },
    { from: [13, 200], to: [13, 9], hash: 'd34f65f38b3442706b7e6255eeb9ddc723151e3cfc9b52799fb7c0842e71534e' },
    // Just twice as many: the rows.
    { from: [30, 64], to: [20, 44], hash: '72268df60977ec1166dffac48d2e13f676900a13e617e0aea1b9d06f6ea1b51a' },
  ])('from $from to $to: the bytes of Pillow 13', ({ from: [fromWidth, fromHeight], to: [width, height], hash }) => {
    const pattern = image(fromWidth!, fromHeight!, 1, (i) => Math.floor((i * i * 7 + i * 13) / 11) % 256);
    expect(sha256(resizeAntialiased(pattern, width!, height!).data)).toBe(hash);
  });

  it('commutes with transposition up to the rounding between the passes', () => {
    const original = noise(31, 17, 1);
    const transposed = image(17, 31, 1, (i) => original.data[(i % 17) * 31 + Math.floor(i / 17)]!);
    const a = resizeAntialiased(original, 12, 24);
    const b = resizeAntialiased(transposed, 24, 12);
    for (let y = 0; y < 24; y++) for (let x = 0; x < 12; x++) expect(Math.abs(a.data[y * 12 + x]! - b.data[x * 24 + y]!)).toBeLessThanOrEqual(1);
  });

  it('resizes grey as it resizes the same image in RGB', () => {
    const grey = noise(40, 30, 1);
    const colour = image(40, 30, 3, (i) => grey.data[Math.floor(i / 3)]!);
    expect([...resizeAndCrop(grey, { resize: 28, crop: 20 }).data]).toEqual([...resizeAndCrop(colour, { resize: 28, crop: 20 }).data]);
  });

  it('refuses sizes that are none and images whose bytes do not fit', () => {
    expect(() => antialiasedCoefficients(0, 4)).toThrow(UsageError);
    expect(() => resizeAntialiased(noise(4, 4, 1), 0, 4)).toThrow(UsageError);
    expect(() => resizeAntialiased({ width: 4, height: 4, channels: 3, data: new Uint8Array(47) }, 2, 2)).toThrow(InputError);
  });
});

describe('nearest', () => {
  it('takes source floor(i n / m)', () => {
    expect([...resizeNearest(Uint8Array.of(1, 2, 3, 4, 5, 6), 3, 2, 4, 3)]).toEqual([1, 1, 2, 3, 1, 1, 2, 3, 4, 4, 5, 6]);
    expect(() => resizeNearest(new Uint8Array(5), 3, 2, 4, 3)).toThrow(UsageError);
  });
});

describe('preprocess', () => {
  it('crops as torchvision does: odd margins go to the even half', () => {
    expect([448 - 392, 1, 3, 5, 7, 0].map((margin) => cropOffset(100 + margin, 100).x)).toEqual([28, 0, 2, 2, 4, 0]);
    expect(cropOffset({ width: 30, height: 20 }, { width: 10, height: 15 })).toEqual({ x: 10, y: 2 });
    expect(() => cropOffset(224, 256)).toThrow(/crop.*256.*larger.*224/);
  });

  it('drops alpha and keeps the channels apart, for other aspect ratios too', () => {
    const rgba = noise(12, 8, 4);
    const rgb = image(12, 8, 3, (i) => rgba.data[Math.floor(i / 3) * 4 + (i % 3)]!);
    const options = { resize: { width: 10, height: 6 }, crop: { width: 8, height: 4 } };
    const input = preprocess(rgba, options);
    expect(input.length).toBe(3 * 8 * 4);
    expect(input).toEqual(preprocess(rgb, options));
    const pure = preprocess(image(4, 4, 3, (i) => (i % 3 === 1 ? 255 : 0)), { resize: 4, crop: 4 });
    expect(pure[0]).toBeCloseTo(-0.485 / 0.229, 6);
    expect(pure[16]).toBeCloseTo((1 - 0.456) / 0.224, 6);
    expect(pure[32]).toBeCloseTo(-0.406 / 0.225, 6);
  });

  it('masks: any channel count, exactly the pixels above one half', () => {
    const mask = image(8, 8, 1, (i) => (i % 8 < 4 ? 255 : 0));
    const expected = Array.from({ length: 64 }, (_, i) => Number(i % 8 < 4));
    expect([...preprocessMask(mask, { resize: 8, crop: 8, mapSize: 8 })]).toEqual(expected);
    const rgba = image(8, 8, 4, (i) => (i % 4 === 3 || Math.floor(i / 4) % 8 < 4 ? 255 : 0));
    expect([...preprocessMask(rgba, { resize: 8, crop: 8, mapSize: 8 })]).toEqual(expected);
    expect([127, 128].map((value) => preprocessMask(image(2, 2, 1, () => value), { resize: 2, crop: 2, mapSize: 1 })[0])).toEqual([0, 1]);
  });

  it('grey conversion is Pillow\'s', () => {
    expect([...toGrey({ width: 4, height: 1, channels: 3, data: Uint8Array.of(255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255) }).data]).toEqual([76, 150, 29, 255]);
  });
});
