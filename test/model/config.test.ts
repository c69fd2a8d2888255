// What fixes a detector's shape: the reference's defaults, and what does not fit together.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/errors.ts';
import { defaultTarget } from '../../src/gpu/target.ts';
import { defaultTaps, detectorConfig, groupsPartitionTaps, tokenGrid, type DetectorOptions } from '../../src/model/config.ts';
import { featureCount, flatGroups, sliceBatch } from '../../src/model/graphs.ts';
import { decoderRuns, trainableItems, trainableShapes } from '../../src/model/parameters.ts';
import { sizeOf } from '../../src/graph/tensor.ts';
import { findEncoder } from '../../src/weights/catalog.ts';

const { architecture } = findEncoder('dinov2-base');
const base = (options: Partial<DetectorOptions> = {}) => detectorConfig({ architecture, crop: 392, ...options });

describe('defaults', () => {
  it('are the reference\'s taps, groups and sizes', () => {
    expect(base()).toMatchObject({
      taps: [2, 3, 4, 5, 6, 7, 8, 9], encoderGroups: [[0, 1, 2, 3], [4, 5, 6, 7]], decoderGroups: [[0, 1, 2, 3], [4, 5, 6, 7]],
      numPrototypes: 6, extractorDepth: 1, decoderDepth: 8, mlpRatio: 4, crop: { width: 392, height: 392 },
    });
    expect(defaultTaps(findEncoder('dinov2-small').architecture)).toEqual([2, 3, 4, 5, 6, 7, 8, 9]);
    expect(defaultTaps(findEncoder('dinov2-large').architecture)).toEqual([4, 6, 8, 10, 12, 14, 16, 18]);
    expect(defaultTaps({ ...architecture, depth: 5 })).toEqual([0, 1, 2, 3, 4]);
    expect(tokenGrid(base())).toEqual({ rows: 28, columns: 28, count: 784 });
    expect(tokenGrid(base({ crop: { height: 70, width: 126 } }))).toEqual({ rows: 5, columns: 9, count: 45 });
  });

  it('for the reference\'s ViT-B hold as many trained values as its checkpoint', () => {
    const elements = [...trainableShapes(base()).values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
    const c = 768;
    const mlp = 8 * c * c + 5 * c;
    const block = 2 * 2 * c + (c * c + c) + (2 * c * c + 2 * c) + (c * c + c) + mlp;
    expect(elements).toBe(6 * c + block + mlp + 8 * (block + 12));
    expect(trainableShapes(base()).size).toBe(1 + 14 + 4 + 8 * 15);
  });
});

describe('what does not fit is a UsageError that says why', () => {
  it.each([
    [{ crop: 391 }, /multiples of the encoder's patch size, 14 \(e\.g\. 392\)/], [{ crop: { height: 392, width: 0 } }, /multiples of/], [{ crop: NaN }, /multiples of/],
    [{ taps: [] }, /Taps/], [{ taps: [3, 2] }, /ascending/], [{ taps: [2, 12] }, /from 0 to 11/], [{ taps: [1.5] }, /Taps/],
    [{ encoderGroups: [] }, /Encoder groups/], [{ encoderGroups: [[]], decoderGroups: [[0]] }, /Encoder groups/], [{ encoderGroups: [[8]], decoderGroups: [[0]] }, /positions from 0 to 7/],
    [{ decoderGroups: [[0, 9], [1]] }, /Decoder groups/], [{ encoderGroups: [[0], [1], [2]], decoderGroups: [[0], [1]] }, /3 encoder groups and 2 decoder groups/],
    [{ decoderDepth: 0 }, /Decoder groups|decoderDepth/], [{ extractorDepth: 0 }, /extractorDepth/], [{ numPrototypes: 1.5 }, /numPrototypes/],
    [{ architecture: { ...architecture, numHeads: 7 } }, /768 channels can't be split into 7 heads/],
  ] satisfies [Partial<DetectorOptions>, RegExp][])('%o', (options, message) => {
    expect(() => base(options)).toThrow(UsageError);
    expect(() => base(options)).toThrow(message);
  });
});

describe('what is cached', () => {
  it('is the groups alone where they partition the taps, else the fused feature too', () => {
    expect(groupsPartitionTaps(base())).toBe(true);
    expect(featureCount(base())).toBe(2 * 784 * 768);
    const uneven = base({ encoderGroups: [[0, 5], [1, 2, 3, 4, 6, 7]] });
    expect(groupsPartitionTaps(uneven)).toBe(true);
    for (const encoderGroups of [[[0, 1, 2], [2, 3, 4, 5, 6, 7]], [[0, 1], [2, 3]]]) {
      const config = base({ encoderGroups });
      expect(groupsPartitionTaps(config)).toBe(false);
      expect(featureCount(config)).toBe(3 * 784 * 768);
    }
  });
});

describe('slices of a batch', () => {
  it('add up to it, differ by one at most, and fit', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 1, max: 64 }), (batch, MiB) => {
      const target = { ...defaultTarget, maxStorageBufferBindingSize: MiB * 10 * 1024 * 1024 };
      const slices = sliceBatch(base(), batch, target);
      expect(slices.reduce((a, b) => a + b, 0)).toBe(batch);
      expect(Math.max(...slices) - Math.min(...slices)).toBeLessThanOrEqual(1);
      expect(Math.max(...slices) * 784 * 4 * 768 * 4).toBeLessThanOrEqual(target.maxStorageBufferBindingSize);
    }));
  });

  it('are one where the batch fits, and refused where one image does not', () => {
    expect(sliceBatch(base(), 8, defaultTarget)).toEqual([8]);
    expect(() => sliceBatch(base(), 1, { ...defaultTarget, maxStorageBufferBindingSize: 1024 * 1024 })).toThrow(UsageError);
  });
});

it('trained tensors lie in flat groups within the binding limit, each once, those of a stack at equal distances', () => {
  const config = base();
  const groups = flatGroups(trainableItems(config), defaultTarget);
  expect(groups.length).toBeGreaterThan(1);
  const shapes = trainableShapes(config);
  expect(groups.flatMap((g) => g.names).sort()).toEqual([...shapes.keys()].sort());
  const offsets = new Map<string, number>();
  for (const { names, segments, leaves, total } of groups) {
    expect(total * 4).toBeLessThanOrEqual(defaultTarget.maxStorageBufferBindingSize);
    segments.forEach((s, i) => {
      offsets.set(names[i]!, s.offset);
      expect(s.length).toBe(sizeOf(shapes.get(names[i]!)!));
      expect(s.offset % 64).toBe(0);
      expect(s.offset).toBeGreaterThanOrEqual(i === 0 ? 0 : segments[i - 1]!.offset + segments[i - 1]!.length);
      expect(s.offset + s.length).toBeLessThanOrEqual(total);
    });
    for (const { name, offset } of leaves) offsets.set(name, offset);
  }
  for (const { stacks } of decoderRuns(config)) {
    for (const { name, members, stride } of Object.values(stacks)) {
      const start = offsets.get(`trainable.${name}`)!;
      expect(members.map((member) => offsets.get(member)! - start)).toEqual(members.map((_, i) => i * stride));
    }
  }
});

it('decoder blocks are computed in one run, and in several where a stack would exceed every adapter\'s binding', () => {
  expect(decoderRuns(base()).map(({ blocks }) => blocks)).toEqual([[0, 1, 2, 3, 4, 5, 6, 7]]);
  const wide = base();
  const runs = decoderRuns({ ...wide, architecture: { ...wide.architecture, width: 1536 } });
  expect(runs.flatMap(({ blocks }) => blocks)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(runs.length).toBe(2);
  for (const { stacks } of runs) for (const { members, stride } of Object.values(stacks)) expect(members.length * stride * 4).toBeLessThanOrEqual(128 * 1024 * 1024);
});
