import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Random, seedFromText } from '../../src/data/random.ts';
import { UsageError } from '../../src/errors.ts';

describe('Random', () => {
  it('gives the documented seeds and values of the golden weights', () => {
    const golden: [name: string, seed: number, low: number, high: number, first: number[]][] = [
      ['prototype_token', 3866654785, -1, 1, [-0.05298135057091713, -0.6238378286361694, -0.9158599376678467]],
      ['bottleneck.0.fc1.weight', 1544881180, -0.03, 0.03, [-0.008823432959616184, -0.01960202306509018, -0.016017479822039604]],
      ['decoder.7.attn.kv.bias', 3443888649, -0.03, 0.03, [0.015393727459013462, 0.014525257050991058, 0.0036115136463195086]],
    ];
    for (const [name, seed, low, high, first] of golden) {
      expect(seedFromText(`inp/${name}`)).toBe(seed);
      const random = new Random(`inp/${name}`);
      expect(first.map(() => Math.fround(random.uniform(low, high)))).toEqual(first);
    }
  });

  it('hashes UTF-8', () => {
    expect(seedFromText('')).toBe(0x811c9dc5);
    expect(seedFromText('a')).toBe(0xe40c292c);
    expect(seedFromText('é')).not.toBe(seedFromText('e'));
  });

  it('continues from its saved state', () => {
    fc.assert(fc.property(fc.integer(), fc.integer({ min: 0, max: 50 }), (seed, steps) => {
      const random = new Random(seed);
      for (let i = 0; i < steps; i++) random.normal();
      const resumed = new Random(0);
      resumed.state = JSON.parse(JSON.stringify(random.state)) as number;
      expect(Array.from({ length: 20 }, () => resumed.normal())).toEqual(Array.from({ length: 20 }, () => random.normal()));
      expect(resumed.state).toBe(random.state);
      expect(random.state).toBe(random.state >>> 0);
    }));
  });

  it('has the moments of its distributions', () => {
    const random = new Random('moments');
    const n = 200_000;
    const moments = (draw: () => number): [mean: number, deviation: number, kurtosis: number] => {
      const values = Array.from({ length: n }, draw);
      const mean = values.reduce((sum, v) => sum + v, 0) / n;
      const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / n;
      return [mean, Math.sqrt(variance), values.reduce((sum, v) => sum + (v - mean) ** 4, 0) / n / variance ** 2];
    };
    const uniform = moments(() => random.uniform(-1, 3));
    expect(uniform[0]).toBeCloseTo(1, 1);
    expect(uniform[1]).toBeCloseTo(4 / Math.sqrt(12), 2);
    const normal = moments(() => random.normal());
    expect(normal[0]).toBeCloseTo(0, 1);
    expect(normal[1]).toBeCloseTo(1, 2);
    expect(normal[2]).toBeCloseTo(3, 1);
    // A normal truncated at 3 standard deviations has 0.9866 of the deviation.
    const truncated = moments(() => random.truncatedNormal());
    expect(truncated[1] / 0.01).toBeCloseTo(0.9866, 2);
  });

  it('normal: draws follow the normal distribution function', () => {
    const random = new Random(11);
    const n = 100_000;
    const values = Float64Array.from({ length: n }, () => random.normal()).sort();
    const share = (x: number): number => values.filter((v) => v < x).length / n;
    for (const [x, probability] of [[-2, 0.02275], [-1, 0.15866], [0, 0.5], [0.5, 0.69146], [1.5, 0.93319], [3, 0.99865]] as const) {
      expect(Math.abs(share(x) - probability)).toBeLessThan(0.005);
    }
  });

  it('truncated normal stays inside, integers too, shuffles are permutations', () => {
    fc.assert(fc.property(fc.integer(), fc.integer({ min: 1, max: 100 }), (seed, count) => {
      const random = new Random(seed);
      for (let i = 0; i < 20; i++) {
        expect(Math.abs(random.truncatedNormal())).toBeLessThanOrEqual(0.03);
        const k = random.integer(count);
        expect(Number.isInteger(k) && k >= 0 && k < count).toBe(true);
      }
      const items = Array.from({ length: count }, (_, i) => i);
      expect(random.shuffle([...items]).sort((a, b) => a - b)).toEqual(items);
    }));
  });

  it('shuffles every order about equally often', () => {
    const random = new Random(3);
    const counts = new Map<string, number>();
    for (let i = 0; i < 6000; i++) {
      const order = random.shuffle([0, 1, 2]).join('');
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(150);
  });

  it('refuses counts and intervals that have no answer', () => {
    expect(() => new Random(1).integer(0)).toThrow(UsageError);
    expect(() => new Random(1).integer(1.5)).toThrow(UsageError);
    expect(() => new Random(1).truncatedNormal(0.01, 1, 2)).toThrow(UsageError);
  });
});
