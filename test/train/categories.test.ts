import { expect, test } from 'vitest';
import { InputError } from '../../src/errors.ts';
import { calibrate } from '../../src/inspect/calibration.ts';
import { calibrateCategories } from '../../src/train/categories.ts';

const image = (name: string, category: string) => ({ name, category, load: () => Promise.reject(new Error('not read here')) });
const result = (category: string, score: number) => ({ ...image('r', category), score, map: Float32Array.of(score / 2, score) });

test('each category is calibrated on its own images alone', () => {
  const results = [result('a', 0.1), result('b', 0.8), result('a', 0.12), result('b', 0.9)];
  const used = [image('1', 'a'), image('2', 'a'), image('3', 'b')];
  const [a, b] = calibrateCategories(results, used, { heldOut: true });
  expect(a).toEqual({ name: 'a', images: 2, calibration: calibrate({ scores: [0.1, 0.12], maps: [results[0]!.map, results[2]!.map] }) });
  expect(b).toMatchObject({ name: 'b', images: 1, calibration: { count: 2 } });
  expect(b!.calibration.threshold).toBeGreaterThan(0.9);
});

test('a category without a calibration image is an error that names it', () => {
  expect(() => calibrateCategories([result('a', 0.1)], [image('1', 'a'), image('2', 'b')], { heldOut: true })).toThrow(InputError);
  expect(() => calibrateCategories([result('a', 0.1)], [image('1', 'a'), image('2', 'b')], { heldOut: true })).toThrow(/of b/);
});
