// Which images a step sees, and what the trained tensors start as.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { detectorConfig } from '../../src/model/config.ts';
import { trainableShapes } from '../../src/model/parameters.ts';
import { batchAt } from '../../src/train/schedule.ts';
import { initialTrainables } from '../../src/train/trainables.ts';

describe('batches', () => {
  it('show each image at most once an epoch, and leave out no more than an incomplete batch', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 16 }), fc.integer({ min: 0, max: 9 }), fc.integer(), (images, size, epoch, seed) => {
      const batchSize = Math.min(size, images);
      const stepsPerEpoch = Math.floor(images / batchSize);
      const seen = Array.from({ length: stepsPerEpoch }, (_, i) => batchAt(epoch * stepsPerEpoch + i, { stepsPerEpoch, batchSize }, images, seed));
      for (const batch of seen) expect(batch).toHaveLength(batchSize);
      const all = seen.flat();
      expect(new Set(all).size).toBe(all.length);
      expect(all.every((i) => Number.isInteger(i) && i >= 0 && i < images)).toBe(true);
      expect(images - all.length).toBeLessThan(batchSize);
    }));
  });

  it('depend on the seed and the epoch, and on nothing else', () => {
    const schedule = { stepsPerEpoch: 2, batchSize: 8 };
    const epoch = (number: number, seed: number) => [0, 1].flatMap((i) => batchAt(2 * number + i, schedule, 16, seed));
    expect(epoch(3, 1)).toEqual(epoch(3, 1));
    expect(epoch(3, 1)).not.toEqual(epoch(3, 2));
    expect(epoch(3, 1)).not.toEqual(epoch(4, 1));
  });
});

describe('initial values', () => {
  const config = detectorConfig({ architecture: { width: 96, depth: 4, numHeads: 3, patchSize: 14, numRegisters: 0, positionGrid: [4, 4], mlpRatio: 4, layerScale: true }, crop: 56 });
  const values = initialTrainables(config, 7);
  const moments = (x: Float32Array) => {
    const mean = x.reduce((s, v) => s + v, 0) / x.length;
    return { mean, std: Math.sqrt(x.reduce((s, v) => s + (v - mean) ** 2, 0) / x.length) };
  };

  it('exist for every trained tensor, in its size', () => {
    expect([...values].map(([name, v]) => [name, v.length])).toEqual([...trainableShapes(config)].map(([name, shape]) => [name, shape.reduce((a, b) => a * b, 1)]));
  });

  it('are the reference\'s: weights normal of std 0.01 cut at 0.03, norms 1 and 0, biases 0, learnScale 1, tokens N(0, 1)', () => {
    for (const [name, v] of values) {
      if (name === 'prototype_token') continue;
      if (/norm\d\.weight$|learn_scale$/.test(name)) expect([...new Set(v)], name).toEqual([1]);
      else if (name.endsWith('.bias')) expect([...new Set(v)], name).toEqual([0]);
      else {
        const { mean, std } = moments(v);
        // The standard error of the mean is 0.01 / sqrt(n); cutting at three sigma takes 1.3 % off the deviation.
        expect(Math.abs(mean), name).toBeLessThan(0.05 / Math.sqrt(v.length));
        expect(Math.abs(std - 0.009866), name).toBeLessThan(0.04 / Math.sqrt(v.length));
        expect(v.every((w) => Math.abs(w) <= Math.fround(0.03)), name).toBe(true);
        expect(v.some((w) => Math.abs(w) > 0.025), name).toBe(true);
      }
    }
    const tokens = values.get('prototype_token')!;
    expect(tokens).toHaveLength(6 * 96);
    expect(Math.abs(moments(tokens).mean)).toBeLessThan(5 / Math.sqrt(tokens.length));
    expect(Math.abs(moments(tokens).std - 1)).toBeLessThan(4 / Math.sqrt(2 * tokens.length));
  });

  it('come from the seed, each tensor\'s from its own stream', () => {
    expect(initialTrainables(config, 7)).toEqual(values);
    expect(initialTrainables(config, 8).get('prototype_token')).not.toEqual(values.get('prototype_token'));
    expect(values.get('decoder.0.attn.q.weight')).not.toEqual(values.get('decoder.1.attn.q.weight'));
    const deeper = initialTrainables({ ...config, extractorDepth: 2 }, 7);
    for (const [name, v] of values) expect(deeper.get(name)).toEqual(v);
  });
});
