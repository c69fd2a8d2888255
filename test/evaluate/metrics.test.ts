import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError, UsageError } from '../../src/errors.ts';
import { auproExact, auproOfficial, pixelScores } from '../../src/evaluate/aupro.ts';
import { averageMetrics, evaluate, Evaluator, type EvaluationSample } from '../../src/evaluate/evaluate.ts';
import { PixelScores, type ScoredMap } from '../../src/evaluate/pixel-scores.ts';
import { groupScores, rankingCurves, rankingMetrics } from '../../src/evaluate/ranking.ts';
import { labelRegions } from '../../src/evaluate/regions.ts';
import { Random } from '../../src/data/random.ts';
import { describeGolden, float32, goldenJson, goldenTensors, maxAbsDifference } from '../support/golden.ts';

describeGolden('metrics', () => {
  interface ImageCase { scores: number[]; labels: number[]; I_AUROC: number; I_AP: number; I_F1max: number }
  interface PixelCase { P_AUROC: number; P_AP: number; P_F1max: number; AUPRO_official: number; regions_8_connected: number }
  const { image, pixel } = goldenJson<{ image: Record<string, ImageCase>; pixel: Record<string, PixelCase> }>('metrics/metrics.json');
  const tensors = goldenTensors('metrics/metrics.safetensors');

  for (const [name, expected] of Object.entries(image)) {
    it(`image scores: ${name}`, () => {
      const actual = rankingMetrics(groupScores(expected.scores, expected.labels))!;
      expect(Math.abs(actual.auroc - expected.I_AUROC)).toBeLessThanOrEqual(1e-9);
      expect(Math.abs(actual.averagePrecision - expected.I_AP)).toBeLessThanOrEqual(1e-9);
      expect(Math.abs(actual.f1Max - expected.I_F1max)).toBeLessThanOrEqual(1e-9);
    });
  }

  for (const [name, expected] of Object.entries(pixel)) {
    it(`pixels: ${name}`, () => {
      const maps = float32(tensors, `${name}.maps`);
      const masks = tensors.get(`${name}.masks`)!.data as Uint8Array;
      const [count, height, width] = tensors.get(`${name}.maps`)!.shape as [number, number, number];
      const samples = Array.from({ length: count }, (_, i): EvaluationSample & ScoredMap => {
        const map = maps.subarray(i * width * height, (i + 1) * width * height);
        const mask = masks.subarray(i * width * height, (i + 1) * width * height);
        return { score: Math.max(...map), label: mask.some((value) => value !== 0) ? 1 : 0, map, mask, width, height };
      });
      const actual = evaluate(samples);
      expect(Math.abs(actual.pixelAuroc! - expected.P_AUROC)).toBeLessThanOrEqual(1e-9);
      expect(Math.abs(actual.pixelAp! - expected.P_AP)).toBeLessThanOrEqual(1e-9);
      expect(Math.abs(actual.pixelF1Max! - expected.P_F1max)).toBeLessThanOrEqual(1e-9);
      expect(Math.abs(actual.aupro! - expected.AUPRO_official)).toBeLessThanOrEqual(1e-6);

      const regions = samples.reduce((sum, { mask }) => sum + labelRegions(mask!, width, height).count, 0);
      expect(regions).toBe(expected.regions_8_connected);
      const curve = auproOfficial(pixelScores(samples))!;
      // The stored curve is float32.
      expect(maxAbsDifference(curve.thresholds, float32(tensors, `${name}.thresholds`))).toBeLessThanOrEqual(1e-6);
      expect(maxAbsDifference(curve.pro, float32(tensors, `${name}.pro`))).toBeLessThanOrEqual(1e-6);
      expect(maxAbsDifference(curve.fpr, float32(tensors, `${name}.fpr`))).toBeLessThanOrEqual(1e-6);
    });
  }
});

/** Scores from a few values, so that ties are common; both classes present. */
const rankings = fc.array(fc.tuple(fc.integer({ min: -4, max: 4 }), fc.integer({ min: 0, max: 1 })), { minLength: 2, maxLength: 30 })
  .map((pairs) => ({ scores: pairs.map(([score]) => score / 4), labels: pairs.map(([, label]) => label) }))
  .filter(({ labels }) => labels.includes(0) && labels.includes(1));

describe('rankingMetrics', () => {
  it('equals the definitions, computed by brute force', () => {
    fc.assert(fc.property(rankings, ({ scores, labels }) => {
      const actual = rankingMetrics(groupScores(scores, labels))!;
      const positives = scores.filter((_, i) => labels[i] === 1);
      const negatives = scores.filter((_, i) => labels[i] === 0);
      const wins = positives.flatMap((p) => negatives.map((n) => (p > n ? 1 : p === n ? 0.5 : 0)));
      expect(actual.auroc).toBeCloseTo(wins.reduce<number>((sum, win) => sum + win, 0) / wins.length, 12);

      let recallBefore = 0;
      let averagePrecision = 0;
      let f1Max = 0;
      for (const threshold of [...new Set(scores)].sort((a, b) => b - a)) {
        const recall = positives.filter((p) => p >= threshold).length / positives.length;
        const precision = positives.filter((p) => p >= threshold).length / scores.filter((s) => s >= threshold).length;
        averagePrecision += (recall - recallBefore) * precision;
        recallBefore = recall;
        f1Max = Math.max(f1Max, (2 * precision * recall) / (precision + recall + 1e-7));
      }
      expect(actual.averagePrecision).toBeCloseTo(averagePrecision, 12);
      expect(actual.f1Max).toBeCloseTo(f1Max, 12);

      const found = scores.map((score) => score >= actual.f1Threshold);
      const hits = found.filter((f, i) => f && labels[i] === 1).length;
      expect(2 * hits / (found.filter(Boolean).length + positives.length)).toBeCloseTo(f1Max, 6);
    }));
  });

  it('does not change under a monotone transform; AUROC mirrors under a reversal', () => {
    fc.assert(fc.property(rankings, ({ scores, labels }) => {
      const { f1Threshold, ...metrics } = rankingMetrics(groupScores(scores, labels))!;
      const { f1Threshold: transformedThreshold, ...transformed } = rankingMetrics(groupScores(scores.map((s) => Math.exp(3 * s) - 7), labels))!;
      expect(transformed).toEqual(metrics);
      expect(transformedThreshold).toBe(Math.exp(3 * f1Threshold) - 7);
      expect(rankingMetrics(groupScores(scores.map((s) => -s), labels))!.auroc).toBeCloseTo(1 - metrics.auroc, 12);
    }));
  });

  it('knows perfect, reversed and undefined', () => {
    expect(rankingMetrics(groupScores([1, 2, 3, 4], [0, 0, 1, 1]))).toMatchObject({ auroc: 1, averagePrecision: 1, f1Threshold: 3 });
    expect(rankingMetrics(groupScores([1, 2, 3, 4], [1, 1, 0, 0]))).toMatchObject({ auroc: 0 });
    expect(rankingMetrics(groupScores([1, 2], [0, 0]))).toBeNull();
    expect(rankingMetrics(groupScores([1, 2], [1, 1]))).toBeNull();
    expect(rankingMetrics(groupScores([], []))).toBeNull();
  });

  it('refuses NaN and differing lengths', () => {
    expect(() => rankingMetrics(groupScores([1, NaN], [0, 1]))).toThrow(UsageError);
    expect(() => rankingMetrics(groupScores([1, 2], [1]))).toThrow(UsageError);
  });
});

/** Small images with masks of several regions and scores from a few values. */
const scoredMaps = fc.array(fc.array(fc.tuple(fc.integer({ min: -8, max: 8 }), fc.boolean()), { minLength: 20, maxLength: 20 }), { minLength: 1, maxLength: 3 })
  .map((images) => images.map((pixels): Required<ScoredMap> => ({
    map: Float32Array.from(pixels, ([score]) => score / 8),
    mask: Uint8Array.from(pixels, ([, anomalous]) => Number(anomalous)),
    width: 5,
    height: 4,
    name: 'test',
  })))
  .filter((maps) => maps.some(({ mask }) => mask.includes(1)) && maps.some(({ mask }) => mask.includes(0)));

/** PRO and FPR at one threshold, as they are defined. */
function proAndFpr(maps: readonly Required<ScoredMap>[], isAbove: (score: number) => boolean): [pro: number, fpr: number] {
  const shares: number[] = [];
  let above = 0;
  let normal = 0;
  for (const { map, mask, width, height } of maps) {
    const { labels, count } = labelRegions(mask, width, height);
    for (let label = 1; label <= count; label++) {
      const scores = [...map].filter((_, i) => labels[i] === label);
      shares.push(scores.filter(isAbove).length / scores.length);
    }
    const scores = [...map].filter((_, i) => labels[i] === 0);
    normal += scores.length;
    above += scores.filter(isAbove).length;
  }
  return [shares.reduce((sum, share) => sum + share, 0) / shares.length, above / normal];
}

describe('AUPRO', () => {
  it('official: the curve equals its definition at every threshold', () => {
    fc.assert(fc.property(scoredMaps, (maps) => {
      const { thresholds, pro, fpr, aupro } = auproOfficial(pixelScores(maps))!;
      expect(thresholds.length).toBe(200);
      for (let i = 0; i < 200; i += 7) {
        const [expectedPro, expectedFpr] = proAndFpr(maps, (score) => score > thresholds[i]!);
        expect(pro[i]).toBeCloseTo(expectedPro, 12);
        expect(fpr[i]).toBeCloseTo(expectedFpr, 12);
      }
      expect(aupro).toBeGreaterThanOrEqual(0);
      expect(aupro).toBeLessThanOrEqual(1 + 1e-12);
    }), { numRuns: 50 });
  });

  it('exact: equals the trapezoids of the definition over all distinct scores', () => {
    fc.assert(fc.property(scoredMaps, (maps) => {
      const distinct = [...new Set(maps.flatMap(({ map }) => [...map].map((score) => score + 0)))].sort((a, b) => b - a);
      let area = 0;
      let [pro, fpr] = [0, 0];
      for (const threshold of distinct) {
        const [nextPro, nextFpr] = proAndFpr(maps, (score) => score >= threshold);
        const cut = Math.min(nextFpr, 0.3);
        if (cut > fpr) {
          const atCut = pro + (nextPro - pro) * (cut - fpr) / (nextFpr - fpr);
          area += (cut - fpr) * (pro + atCut) / 2;
        }
        [pro, fpr] = [nextPro, nextFpr];
        if (fpr >= 0.3) break;
      }
      expect(auproExact(pixelScores(maps))).toBeCloseTo(area / 0.3, 10);
    }));
  });

  it('is 1 for a perfect map, by both readings, and official settles the 0/0 of a two-valued one', () => {
    const mask = Uint8Array.from([0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    const graded = { map: Float32Array.from(mask, (m, i) => m + i / 1000), mask, width: 4, height: 4 };
    expect(auproExact(pixelScores([graded]))).toBeCloseTo(1, 12);
    expect(auproOfficial(pixelScores([graded]))!.aupro).toBeGreaterThan(0.99);
    const twoValued = { map: Float32Array.from(mask), mask, width: 4, height: 4 };
    expect(auproExact(pixelScores([twoValued]))).toBeCloseTo(1, 12);
    expect(auproOfficial(pixelScores([twoValued]))!.aupro).toBe(1);
    const constant = { map: new Float32Array(16), mask, width: 4, height: 4 };
    expect(auproOfficial(pixelScores([constant]))!.aupro).toBe(0);
    expect(auproExact(pixelScores([constant]))).toBeCloseTo(0.15, 12);
    // All normal pixels above every threshold but the lowest: no point below FPR 0.3.
    const hopeless = { map: Float32Array.from(mask, (m) => 1 - m), mask, width: 4, height: 4 };
    expect(auproOfficial(pixelScores([hopeless]))!.aupro).toBe(0);
  });

  it('is null without regions or without normal pixels', () => {
    const map = Float32Array.of(1, 2, 3, 4);
    const size = { width: 2, height: 2 };
    for (const aupro of [auproOfficial, auproExact]) {
      expect(aupro(pixelScores([]))).toBeNull();
      expect(aupro(pixelScores([{ map, ...size }]))).toBeNull();
      expect(aupro(pixelScores([{ map, mask: new Uint8Array(4).fill(1), ...size }]))).toBeNull();
    }
  });
});

describe('evaluate', () => {
  const size = { width: 2, height: 2 };
  const good = { score: 0.1, label: 0, map: Float32Array.of(0, 0.1, 0.2, 0.1), ...size } as const;
  const bad = { score: 0.9, label: 1, map: Float32Array.of(0, 0.9, 0.8, 0.05), mask: Uint8Array.of(0, 255, 255, 0), ...size } as const;

  it('takes a normal image without a mask as all normal', () => {
    const result = evaluate([good, bad]);
    expect(result).toEqual(evaluate([{ ...good, mask: new Uint8Array(4) }, bad]));
    expect(result).toMatchObject({ imageAuroc: 1, imageAp: 1, pixelAuroc: 1, pixelAp: 1, images: 2, defectiveImages: 1, pixelImages: 2, imagesWithoutMask: 0 });
    expect(result.imageF1Max).toBeCloseTo(1, 6);
  });

  it('leaves defective images without a mask out of the pixel metrics, and counts them', () => {
    const { mask: _, ...unmasked } = bad;
    expect(evaluate([good, bad, unmasked])).toMatchObject({ pixelAuroc: 1, pixelImages: 2, imagesWithoutMask: 1, images: 3 });
  });

  it('is null where a metric is undefined', () => {
    expect(evaluate([good])).toMatchObject({ imageAuroc: null, imageAp: null, imageF1Max: null, pixelAuroc: null, pixelAp: null, pixelF1Max: null, aupro: null });
    expect(evaluate([{ score: 1, label: 1 }, { score: 0, label: 0 }])).toMatchObject({ imageAuroc: 1, pixelAuroc: null, aupro: null, pixelImages: 0 });
    expect(evaluate([])).toMatchObject({ images: 0, imageAuroc: null });
  });

  it('refuses NaN, wrong labels and wrong sizes, naming the sample', () => {
    expect(() => evaluate([{ ...good, score: NaN, name: 'a.png' }])).toThrow(/a\.png.*NaN/);
    expect(() => evaluate([{ ...good, label: 2 as 1, name: 'a.png' }])).toThrow(/a\.png.*2/);
    expect(() => evaluate([{ ...good, width: 3, name: 'a.png' }])).toThrow(UsageError);
    expect(() => evaluate([{ ...bad, mask: new Uint8Array(3) }])).toThrow(UsageError);
    const broken = { ...good, map: Float32Array.of(0, NaN, 0, 0), name: 'a.png' };
    expect(() => evaluate([broken])).toThrow(InputError);
    expect(() => evaluate([broken])).toThrow(/a\.png.*NaN at pixel \(1, 0\)/);
  });

  it('is the same whatever the order of the images and however often scores are merged', () => {
    fc.assert(fc.property(scoredMaps, (maps) => {
      const merged = new PixelScores({ bufferSize: 8 });
      for (const map of [...maps].reverse()) merged.add(map);
      const whole = pixelScores(maps);
      expect(auproExact(merged)).toBeCloseTo(auproExact(whole)!, 12);
      expect(auproOfficial(merged)!.aupro).toBeCloseTo(auproOfficial(whole)!.aupro, 12);
      expect(rankingMetrics(merged)).toEqual(rankingMetrics(whole));
      expect([merged.positives, merged.negatives, merged.regions, merged.range, merged.droppedBits]).toEqual([whole.positives, whole.negatives, whole.regions, whole.range, 0]);
    }), { numRuns: 50 });
  });

  it('stays close where memory for every distinct score is not given', () => {
    const exact = new Evaluator();
    const bounded = new Evaluator({ bufferSize: 2 ** 14, mostDistinct: 2 ** 18 });
    for (const sample of manyPixels(8)) {
      exact.add(sample);
      bounded.add(sample);
    }
    const expected = exact.result();
    const actual = bounded.result();
    for (const key of ['pixelAuroc', 'pixelAp', 'pixelF1Max', 'aupro', 'auproExact'] as const) {
      expect(Math.abs(actual[key]! - expected[key]!), key).toBeLessThanOrEqual(2e-5);
    }
    // P(1 + u > v) for u, v uniform in [0, 1.5): 1 - (1/3)^2 / 2.
    expect(expected.pixelAuroc).toBeCloseTo(1 - 1 / 18, 2);
  });

  it('averages each metric over the categories that have it', () => {
    const whole = evaluate([good, bad]);
    const onlyGood = evaluate([good]);
    expect(averageMetrics([whole, onlyGood])).toEqual(averageMetrics([whole]));
    expect(averageMetrics([whole, { ...whole, imageAuroc: 0.5 }]).imageAuroc).toBe(0.75);
    expect(averageMetrics([onlyGood]).aupro).toBeNull();
  });
});

/** Images of 256 x 256 whose defects score higher by 1, in noise of 1.5. */
function manyPixels(count: number): EvaluationSample[] {
  const random = new Random(5);
  const side = 256;
  return Array.from({ length: count }, (_, index): EvaluationSample => {
    const mask = new Uint8Array(side * side);
    if (index % 2 === 1) for (let y = 100; y < 200; y++) mask.fill(1, y * side + 100, y * side + 220);
    return { score: index, label: (index % 2) as 0 | 1, mask, map: Float32Array.from(mask, (m) => m + random.next() * 1.5), width: side, height: side };
  });
}

describe('curves', () => {
  it('go from corner to corner through the points of the definition', () => {
    const { roc, precisionRecall } = rankingCurves(groupScores([0.9, 0.8, 0.8, 0.3, 0.1], [1, 1, 0, 1, 0]))!;
    expect(roc).toEqual([[0, 0], [0, 1 / 3], [0.5, 2 / 3], [0.5, 1], [1, 1]]);
    expect(precisionRecall).toEqual([[1 / 3, 1], [2 / 3, 2 / 3], [1, 0.75], [1, 0.6]]);
    expect(rankingCurves(groupScores([1, 2], [1, 1]))).toBeNull();
  });

  it('of many points keep few and lose no more than their resolution', () => {
    const random = new Random(3);
    const labels = Array.from({ length: 20_000 }, () => Number(random.next() < 0.3));
    const groups = groupScores(labels.map((label) => label * 0.5 + random.next()), labels);
    const { roc } = rankingCurves(groups, 100)!;
    expect(roc.length).toBeLessThan(500);
    const area = roc.slice(1).reduce((sum, [x, y], i) => sum + (x - roc[i]![0]) * (y + roc[i]![1]) / 2, 0);
    expect(area).toBeCloseTo(rankingMetrics(groups)!.auroc, 3);
  });
});
