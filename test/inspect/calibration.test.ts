// The threshold's rule, held to what it promises: never below what was seen (but for outliers), rarely exceeded by one more normal image,
// and a heat scale with the pixel threshold at a fifth. The split never trains on what it calibrates with.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { UsageError } from '../../src/errors.ts';
import { calibrate, outlyingScores } from '../../src/inspect/calibration.ts';
import { splitForCalibration } from '../../src/inspect/calibration-split.ts';
import { pixelThresholdFor, regionLevel } from '../../src/inspect/pixel-level.ts';

const map = Float32Array.from({ length: 1000 }, (_, i) => 0.02 + i * 1e-5);
const gaussian = (random: Random) => Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());

describe('calibrate', () => {
  it('is mean + k(n) std with Student\'s k: 2.51 for 8 images, 2.07 for 32', () => {
    for (const [count, factor] of [[8, 2.5081], [32, 2.0711]] as const) {
      const scores = Array.from({ length: count }, (_, i) => 0.1 + (i % 2 === 0 ? 0.02 : -0.02));
      const { threshold, scoreMean, scoreStd, scoreMax, count: n } = calibrate({ scores, maps: [map] });
      expect(n).toBe(count);
      expect(scoreMean).toBeCloseTo(0.1, 12);
      expect(scoreStd).toBeCloseTo(0.02 * Math.sqrt(count / (count - 1)), 12);
      expect(scoreMax).toBeCloseTo(0.12, 12);
      expect(Math.abs((threshold - scoreMean) / scoreStd - factor)).toBeLessThan(0.015);
    }
  });

  it('lets about one normal image in forty through, from 8 and from 32 images', () => {
    for (const count of [8, 32]) {
      const random = new Random(`calibration ${count}`);
      const draw = () => 0.1 + 0.02 * gaussian(random);
      let above = 0;
      const rounds = 4000;
      for (let round = 0; round < rounds; round++) {
        const { threshold } = calibrate({ scores: Array.from({ length: count }, draw), maps: [map.subarray(0, 4)] });
        if (draw() > threshold) above++;
      }
      // 2.5 % of 4000 is 100; the standard deviation of the count is 10. Less is fine, as the highest score counts as well.
      expect(above).toBeGreaterThan(60);
      expect(above).toBeLessThan(140);
    }
  });

  it('is never below the highest normal score, and wider for images that were trained on', () => {
    const scores = [...Array.from({ length: 10 }, () => 0.1), 0.9];
    expect(calibrate({ scores, maps: [map] }).threshold).toBeGreaterThanOrEqual(0.9);
    const few = { scores: [0.1, 0.11, 0.12, 0.1], maps: [map] };
    const held = calibrate(few);
    const seen = calibrate({ ...few, heldOut: false });
    expect(seen.threshold - seen.scoreMean).toBeCloseTo(1.5 * (held.threshold - held.scoreMean), 9);
    expect(seen.pixelThreshold).toBeGreaterThan(held.pixelThreshold);
    expect(held.rule).toContain('4 normal images held out');
    expect(seen.rule).toContain('training set');
  });

  it('sets a few far scores among many aside, says so, and takes many far scores for normal', () => {
    const random = new Random('outliers');
    const usual = Array.from({ length: 30 }, () => 0.1 + 0.01 * gaussian(random));
    const clean = calibrate({ scores: usual, maps: [map] });
    const odd = calibrate({ scores: [0.5, ...usual, 0.3], maps: [map] });
    expect(outlyingScores([0.5, ...usual, 0.3])).toEqual([0, 31]);
    expect(odd).toMatchObject({ count: 32, outliers: 2, scoreMean: clean.scoreMean, threshold: clean.threshold });
    expect(odd.rule).toContain('2 of them set aside as outliers');
    expect(outlyingScores([...usual, 0.3, 0.4, 0.5, 0.6])).toEqual([]);
    expect(outlyingScores([0.1, 0.1, 0.11, 0.9])).toEqual([]);
    // Scores that agree by chance do not make a near one an outlier.
    expect(outlyingScores([...Array.from({ length: 30 }, () => 0.1), 0.11])).toEqual([]);
  });

  it('keeps a margin where scores agree by chance, and works from one image', () => {
    expect(calibrate({ scores: [0.1, 0.1, 0.1], maps: [map] }).threshold).toBeCloseTo(0.1 + 4 * 0.005, 9);
    expect(calibrate({ scores: [0.2], maps: [map] }).threshold).toBeCloseTo(0.2 + 4 * 0.01, 9);
  });

  it('places pixel threshold and scale: one pixel in a thousand above, the median cold, the threshold at a fifth', () => {
    const pixels = Float32Array.from({ length: 10001 }, (_, i) => (i * 7919) % 10001);
    const { pixelThreshold, scaleLow, scaleHigh } = calibrate({ scores: [2e4, 2e4], maps: [pixels.subarray(0, 5000), pixels.subarray(5000)] });
    expect(pixelThreshold).toBeCloseTo(9990, 3);
    expect(scaleLow).toBeCloseTo(5000, 3);
    expect(scaleLow + (scaleHigh - scaleLow) / 5).toBeCloseTo(pixelThreshold, 3);
  });

  it('takes as a defect what lies above the pixel threshold and above half of the peak', () => {
    const calibration = calibrate({ scores: [0.2, 0.21, 0.22], maps: [Float32Array.from({ length: 1000 }, (_, i) => 0.1 + (i % 10) * 0.001)] });
    const faint = Float32Array.of(0.1, calibration.pixelThreshold + 0.001);
    expect(regionLevel(faint, calibration, calibration.threshold)).toBe(calibration.pixelThreshold);
    expect(regionLevel(Float32Array.of(0.3, 0.9), calibration, calibration.threshold)).toBeCloseTo((calibration.scaleLow + 0.9) / 2, 6);
  });

  it('holds for any scores and maps: finite, ordered, pixel threshold at most the threshold', () => {
    const value = fc.float({ min: 0, max: 2, noNaN: true });
    fc.assert(fc.property(
      fc.array(value, { minLength: 1, maxLength: 50 }),
      fc.array(fc.float32Array({ minLength: 1, maxLength: 40, min: 0, max: 2, noNaN: true }), { minLength: 1, maxLength: 4 }),
      fc.boolean(),
      (scores, maps, heldOut) => {
        const c = calibrate({ scores, maps, heldOut });
        const set = new Set(outlyingScores(scores));
        expect(c.outliers).toBe(set.size);
        expect(c.threshold).toBeGreaterThanOrEqual(Math.max(...scores.filter((_, i) => !set.has(i))) - 1e-9);
        expect(c.pixelThreshold).toBeLessThanOrEqual(c.threshold);
        expect(c.scaleHigh).toBeGreaterThan(c.scaleLow);
        expect(Number.isFinite(c.scaleHigh)).toBe(true);
        expect(pixelThresholdFor(c, c.threshold / 2)).toBeLessThanOrEqual(c.threshold / 2);
      },
    ));
  });

  it('refuses nothing, NaN and infinity', () => {
    expect(() => calibrate({ scores: [], maps: [map] })).toThrow(UsageError);
    expect(() => calibrate({ scores: [1], maps: [] })).toThrow(UsageError);
    expect(() => calibrate({ scores: [NaN], maps: [map] })).toThrow(/NaN/);
    expect(() => calibrate({ scores: [1], maps: [Float32Array.of(1, Infinity)] })).toThrow(UsageError);
  });
});

describe('splitForCalibration', () => {
  const paths = (count: number) => Array.from({ length: count }, (_, i) => `${String(i).padStart(3, '0')}.png`);

  it('with a limit trains on exactly the first images and calibrates on others, evenly spaced', () => {
    const split = splitForCalibration(paths(200), { limit: 64 });
    expect(split.train).toEqual(paths(64));
    expect(split.calibration).toHaveLength(32);
    expect(split.heldOut).toBe(true);
    const indices = split.calibration.map((path) => Number.parseInt(path, 10));
    expect(Math.min(...indices)).toBeGreaterThanOrEqual(64);
    const gaps = indices.slice(1).map((index, i) => index - indices[i]!);
    expect(Math.max(...gaps) - Math.min(...gaps)).toBeLessThanOrEqual(1);
    expect(splitForCalibration(paths(67), { limit: 64 }).calibration).toEqual(['064.png', '065.png', '066.png']);
  });

  it('without one holds out about 15 %, at least 2, at most the count', () => {
    expect(splitForCalibration(paths(8)).calibration).toHaveLength(2);
    expect(splitForCalibration(paths(100)).calibration).toHaveLength(15);
    expect(splitForCalibration(paths(1000)).calibration).toHaveLength(32);
    expect(splitForCalibration(paths(1000), { count: 5 }).calibration).toHaveLength(5);
    // A limit that limits nothing is none.
    expect(splitForCalibration(paths(20), { limit: 20 })).toEqual(splitForCalibration(paths(20)));
  });

  it('too few images are trained on and calibrated on, and it says so', () => {
    for (const count of [1, 7]) {
      const split = splitForCalibration(paths(count));
      expect(split).toMatchObject({ train: paths(count), calibration: paths(count), heldOut: false });
      expect(split.rule).toContain('too few');
    }
  });

  it('loses no image and never holds out what it trains on', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 300 }), fc.option(fc.integer({ min: 1, max: 300 }), { nil: undefined }), (count, limit) => {
      const split = splitForCalibration(paths(count), { limit });
      if (split.heldOut) expect(split.train.filter((path) => split.calibration.includes(path))).toEqual([]);
      if (limit === undefined || limit >= count) expect(new Set([...split.train, ...split.calibration]).size).toBe(count);
      else expect(split.train).toEqual(paths(limit));
      expect(split.calibration.length).toBeGreaterThan(0);
      expect(new Set(split.calibration).size).toBe(split.calibration.length);
      expect([...split.calibration].sort()).toEqual(split.calibration);
    }));
    expect(() => splitForCalibration(paths(3), { limit: 0 })).toThrow(UsageError);
    expect(() => splitForCalibration(paths(3), { count: 1.5 })).toThrow(UsageError);
  });
});
