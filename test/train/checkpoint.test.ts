// A checkpoint comes back bit for bit, goes on only with the very settings that it was made with, and is never half read.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { InputError, UsageError } from '../../src/errors.ts';
import { detectorConfig } from '../../src/model/config.ts';
import { readCheckpoint, writeCheckpoint, type Checkpoint, type CheckpointIdentity } from '../../src/train/checkpoint.ts';
import { initialTrainables } from '../../src/train/trainables.ts';
import { readSafetensors, writeSafetensors } from '../../src/weights/safetensors.ts';

const config = detectorConfig({ architecture: { width: 8, depth: 2, numHeads: 2, patchSize: 14, numRegisters: 0, positionGrid: [2, 2], mlpRatio: 4, layerScale: true }, crop: 28, decoderDepth: 2 });
const identity: CheckpointIdentity = {
  encoder: 'abc', images: ['a.png', 'b.png'], resize: 32, crop: 28, framing: 'stretch', tile: 14, seed: 1, steps: 10, warmupSteps: 3, batchSize: 2, stepsPerEpoch: 1,
  learningRate: 1e-3, finalLearningRate: 1e-4, model: { taps: config.taps, numPrototypes: 6 },
};
const random = new Random('checkpoint');
const values = initialTrainables(config, 1);
const drawn = () => new Map([...values].map(([name, v]) => [name, v.map(() => random.normal() * 1e-5)]));
const checkpoint: Checkpoint = { step: 7, firstLoss: 0.123456789, lastLoss: 1 / 3, state: { values, firstMoment: drawn(), secondMoment: drawn(), maxSecondMoment: drawn() } };
const bytes = writeCheckpoint(checkpoint, identity);

describe('a checkpoint', () => {
  it('comes back as it was', () => {
    expect(readCheckpoint(bytes, identity, config)).toEqual(checkpoint);
    expect(writeCheckpoint(readCheckpoint(bytes, identity, config), identity)).toEqual(bytes);
    const early = { ...checkpoint, firstLoss: undefined };
    expect(readCheckpoint(writeCheckpoint(early, identity), identity, config)).toEqual(early);
  });

  const others: CheckpointIdentity = {
    encoder: 'abd', images: ['b.png', 'a.png'], resize: 33, crop: 14, framing: 'tiles', tile: 15, seed: 2, steps: 11, warmupSteps: 4, batchSize: 3, stepsPerEpoch: 2,
    learningRate: 2e-3, finalLearningRate: 2e-4, model: { taps: config.taps, numPrototypes: 5 },
  };
  it.each(Object.keys(identity) as (keyof CheckpointIdentity)[])('is refused with another %s, which is named', (key) => {
    const other = { ...identity, [key]: others[key] };
    expect(() => readCheckpoint(bytes, other, config)).toThrow(UsageError);
    expect(() => readCheckpoint(bytes, other, config)).toThrow(new RegExp(`its ${key} was`));
  });

  it('that is cut short is an InputError', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: bytes.length - 1 }), (end) => {
      expect(() => readCheckpoint(bytes.slice(0, end), identity, config, 'run.checkpoint')).toThrow(InputError);
      expect(() => readCheckpoint(bytes.slice(0, end), identity, config, 'run.checkpoint')).toThrow(/run\.checkpoint/);
    }), { numRuns: 100 });
  });

  it('that lacks a tensor, has one of another size or one that is not finite, is an InputError', () => {
    const { tensors, metadata } = readSafetensors(bytes);
    const rewritten = (change: (entries: Map<string, Float32Array>) => void) => {
      const entries = new Map([...tensors].map(([name, { data }]) => [name, new Float32Array(data.slice().buffer)]));
      change(entries);
      return writeSafetensors([...entries].map(([name, data]) => [name, { dtype: 'F32' as const, shape: [data.length], data }] as const), metadata);
    };
    expect(readCheckpoint(rewritten(() => {}), identity, config)).toEqual(checkpoint);
    const name = 'secondMoment.bottleneck.0.fc1.weight';
    const damaged = [
      rewritten((entries) => entries.delete(name)),
      rewritten((entries) => entries.set(name, new Float32Array(3))),
      rewritten((entries) => { entries.get(name)![5] = NaN; }),
    ];
    for (const file of damaged) expect(() => readCheckpoint(file, identity, config)).toThrow(/secondMoment\.bottleneck\.0\.fc1\.weight is missing/);
  });

  it('of something else is an InputError', () => {
    const { tensors, metadata } = readSafetensors(bytes);
    const entries = [...tensors].map(([name, { dtype, shape, data }]) => [name, { dtype, shape, data }] as const);
    const key = Object.keys(metadata)[0]!;
    const parsed = JSON.parse(metadata[key]!) as object;
    const foreign = [undefined, 'null', '{}', '[', JSON.stringify({ ...parsed, version: 2 }), JSON.stringify({ ...parsed, step: -1 }), JSON.stringify({ ...parsed, identity: null }), JSON.stringify({ ...parsed, lastLoss: null })];
    for (const text of foreign) {
      const file = writeSafetensors(entries, text === undefined ? {} : { [key]: text });
      expect(() => readCheckpoint(file, identity, config), text).toThrow(InputError);
    }
    expect(() => readCheckpoint(new TextEncoder().encode('not a checkpoint at all'), identity, config)).toThrow(InputError);
  });
});
