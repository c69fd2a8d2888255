import { expect, test } from 'vitest';
import { learningRateAt } from '../../src/train/schedule.ts';
import { describeGolden, goldenJson } from '../support/golden.ts';

const reference = { base: 1e-3, final: 1e-4 };

test('rises from 0 to base in the warm-up, then falls to final, and stays there', () => {
  const schedule = { ...reference, warmupSteps: 10, totalSteps: 50 };
  const rates = Array.from({ length: 60 }, (_, i) => learningRateAt(i, schedule));
  expect(rates[0]).toBe(0);
  expect(rates[9]).toBe(reference.base);
  expect(rates[10]).toBe(reference.base);
  for (let i = 11; i < 50; i++) expect(rates[i]!).toBeLessThan(rates[i - 1]!);
  expect(rates.slice(50)).toEqual(Array.from({ length: 10 }, () => reference.final));
});

test('no warm-up, or one of a single step', () => {
  expect(learningRateAt(0, { ...reference, warmupSteps: 0, totalSteps: 5 })).toBe(reference.base);
  expect(learningRateAt(0, { ...reference, warmupSteps: 1, totalSteps: 5 })).toBe(0);
});

describeGolden('learning-rate schedules', () => {
  const { schedules } = goldenJson<{ schedules: Record<string, number[]> }>('pieces/lr_schedule.json');
  test.each(Object.entries(schedules))('%s', (name, rates) => {
    const [, totalSteps, warmupSteps] = /^total(\d+)_warm(\d+)$/.exec(name)!.map(Number);
    rates.forEach((rate, i) => {
      expect(learningRateAt(i, { ...reference, warmupSteps: warmupSteps!, totalSteps: totalSteps! })).toBeCloseTo(rate, 15);
    });
  });
});
