import { describe, expect, test } from 'vitest';
import { collect, median, minimum, secondsOf, withTimeout } from '../../bench/measurement.ts';
import { measurement } from './fixture.ts';

describe('statistics', () => {
  test('median of odd and even counts, in any order, samples untouched', () => {
    const samples = [5, 1, 3];
    expect(median(samples)).toBe(3);
    expect(samples).toEqual([5, 1, 3]);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([])).toBeNaN();
    expect(minimum([4, 1, 3])).toBe(1);
    expect(minimum([])).toBeNaN();
  });

  test('a failed measurement has no time, however fast it was', () => {
    expect(secondsOf(measurement('peers/x', [1, 2, 4]))).toBe(2);
    expect(secondsOf(measurement('peers/x', [0.001], { failure: 'zeros' }))).toBeUndefined();
    expect(secondsOf(measurement('peers/x', []))).toBeUndefined();
    expect(secondsOf(undefined)).toBeUndefined();
  });
});

describe('sampling', () => {
  const sampling = { minimumSamples: 3, maximumSamples: 6, seconds: 1 };

  test('slow runs: the fewest, fast runs: the most, between them until the time is spent', async () => {
    expect(await collect(sampling, async () => 10)).toEqual([10, 10, 10]);
    expect(await collect(sampling, async () => 0.01)).toHaveLength(6);
    expect(await collect(sampling, async () => 0.25)).toHaveLength(4);
  });
});

describe('time-outs', () => {
  test('what is late rejects and says what it was; what is not, passes', async () => {
    await expect(withTimeout(new Promise(() => undefined), 0.01, 'a peer\'s run')).rejects.toThrow('a peer\'s run took more than 0.01 s');
    await expect(withTimeout(Promise.resolve(7), 10, 'x')).resolves.toBe(7);
    await expect(withTimeout(Promise.reject(new Error('broken')), 10, 'x')).rejects.toThrow('broken');
  });
});
