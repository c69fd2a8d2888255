import { describe, expect, test } from 'vitest';
import { compare, isRegression } from '../../bench/compare.ts';
import { mergeSamples, parseResults, rateOf, reusable } from '../../bench/results.ts';
import { InputError, UsageError } from '../../src/errors.ts';
import { changed, measurement, results } from './fixture.ts';

describe('results files', () => {
  test('come back as they were written', () => {
    expect(parseResults(JSON.stringify(results()), 'a.json')).toEqual(results());
  });

  test.each([['no JSON', 'not json'], ['another file', '{"format":2}'], ['null', 'null'], ['a part', JSON.stringify({ ...results(), measurements: undefined })]])('%s is refused, naming the file', (_, text) => {
    const parse = () => parseResults(text, 'a.json');
    expect(parse).toThrow(InputError);
    expect(parse).toThrow(/^a\.json is not .*--json FILE/);
  });

  test('several sessions\' samples of one thing become one measurement; a failure stays', () => {
    const merged = mergeSamples([measurement('model/a', 1), measurement('model/b', 5), measurement('model/a', 2), measurement('model/a', 3, { failure: 'lost' })]);
    expect(merged.map(({ id, samples, failure }) => ({ id, samples, failure }))).toEqual([
      { id: 'model/a', samples: [1, 2, 3], failure: 'lost' }, { id: 'model/b', samples: [5], failure: undefined },
    ]);
  });
});

describe('rates', () => {
  const peaks = { flops: 10e9, bandwidth: 1e9, loads: 4e9 };

  test('by arithmetic right of the ridge, by memory left of it', () => {
    expect(rateOf(measurement('kernels/x', 2, { flops: 4e9, bytes: 1e8 }), peaks)).toEqual({ value: 2e9, unit: 'FLOP/s', ofPeak: 0.2 });
    expect(rateOf(measurement('kernels/x', 2, { flops: 4e8, bytes: 1e8 }), peaks)).toEqual({ value: 5e7, unit: 'B/s', ofPeak: 0.05 });
    expect(rateOf(measurement('kernels/x', 2, { flops: 0, bytes: 1e9 }), peaks)?.unit).toBe('B/s');
  });

  test('none without work, without time or for a failure', () => {
    expect(rateOf(measurement('kernels/x', 2), peaks)).toBeUndefined();
    expect(rateOf(measurement('kernels/x', 2, { flops: 1, failure: 'wrong' }), peaks)).toBeUndefined();
    expect(rateOf(measurement('kernels/x', 2, { flops: 4 }), undefined)).toEqual({ value: 2, unit: 'FLOP/s', ofPeak: undefined });
  });
});

describe('taking peers over', () => {
  test('slow, right results of the same adapter, runtime and version, marked with their date', () => {
    const ids = reusable(results(), results()).map(({ id }) => id);
    expect(ids).toContain('peers/inference-tiny-112/onnxruntime-web-webgpu');
    expect(ids.filter((id) => /ours|jax-js|gemm/.test(id))).toEqual([]);
    expect(reusable(results(), results())[0]!.reusedFrom).toBe(results().date);
  });

  test('nothing of another adapter, runtime or version', () => {
    expect(reusable(results(), results({ adapter: { ...results().adapter, name: 'Another' } }))).toEqual([]);
    expect(reusable(results(), results({ runtimeVersion: 'Chrome 148.0' }))).toEqual([]);
    expect(reusable(results(), results({ packages: { ...results().packages, 'onnxruntime-web': '1.31.0' } }))).toEqual([]);
  });
});

describe('comparison', () => {
  const before = results({ measurements: [measurement('kernels/a', 1), measurement('kernels/b', 1), measurement('kernels/c', 1), measurement('kernels/d', 1), measurement('kernels/gone', 1), measurement('peers/x', 1, { contender: 'jax-js' })] });
  const after = results({
    measurements: [
      measurement('kernels/a', 1.05), measurement('kernels/b', 1.2), measurement('kernels/c', 0.5), measurement('kernels/d', 1, { failure: 'wrong' }), measurement('kernels/new', 1),
      measurement('peers/x', 5, { contender: 'jax-js' }),
    ],
  });

  test('tells slower, faster, failed, gone and new; a slower peer is no regression', () => {
    const changes = compare(before, after, 0.1);
    expect(Object.fromEntries(changes.map(({ id, verdict }) => [id, verdict]))).toEqual({
      'kernels/a': 'same', 'kernels/b': 'slower', 'kernels/c': 'faster', 'kernels/d': 'failed', 'kernels/gone': 'only before', 'kernels/new': 'only after',
    });
    expect(changes.filter(isRegression).map(({ id }) => id)).toEqual(['kernels/b', 'kernels/d']);
    expect(compare(before, after, 0.3).filter(isRegression).map(({ id }) => id)).toEqual(['kernels/d']);
  });

  test('a run against itself has no regression', () => {
    expect(compare(results(), results({ measurements: changed({}) }), 0.1).filter(isRegression)).toEqual([]);
  });

  test('runs of different devices are refused', () => {
    expect(() => compare(before, results({ adapter: { ...results().adapter, name: 'Another' } }), 0.1)).toThrow(UsageError);
    expect(() => compare(before, results({ runtime: 'node' }), 0.1)).toThrow(/the first is of chrome, the second of node/);
  });
});
