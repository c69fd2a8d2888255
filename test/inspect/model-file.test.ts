// The model file: what goes in comes out, another encoder is refused, and damage of any kind is an InputError that
// names the file.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EncoderMismatchError, InpFormerError, InputError, UsageError } from '../../src/errors.ts';
import { calibrationFor, configOf, readModel, readModelMetadata, withThreshold, writeModel, type ModelMetadata } from '../../src/inspect/model-file.ts';
import { detectorConfig, remembered } from '../../src/model/config.ts';
import { initialTrainables } from '../../src/train/trainables.ts';
import { readSafetensors, writeSafetensors } from '../../src/weights/safetensors.ts';
import { smallEncoder } from '../support/small-encoder.ts';

const encoder = await smallEncoder();
const config = detectorConfig({ architecture: encoder.architecture, crop: 56, decoderDepth: 2, distance: 'cosine', segmentationHead: false, numPrototypes: 3, taps: [0, 2, 3] });
const metadata: ModelMetadata = {
  version: 1,
  encoder: { name: encoder.name, sha256: encoder.sha256, numHeads: 2, architecture: encoder.architecture },
  resize: 64, crop: 56, mapSize: 256, framing: 'stretch', view: 64, ...remembered(config),
  calibration: { threshold: 0.1234567890123, pixelThreshold: 0.05, scaleLow: 0.01, scaleHigh: 0.09, count: 4, outliers: 0, scoreMean: 0.05, scoreStd: 0.01, scoreMax: 0.06, scores: [0.04, 0.05, 0.05, 0.06], rule: 'a rule with "quotes" and µ' },
  training: { images: 7, steps: 8, batchSize: 3, warmupSteps: 2, learningRate: 1e-3, finalLearningRate: 1e-4, seed: 1, finalLoss: 0.7 },
};
const values = initialTrainables(config, 1);
const bytes = writeModel(values, metadata);
const entries = [...readSafetensors(bytes).tensors].map(([name, { dtype, shape, data }]) => [name, { dtype, shape, data }] as const);
const withMetadata = (text: string | undefined) => writeSafetensors(entries, text === undefined ? {} : { inp_former: text });

describe('a model file', () => {
  it('gives back metadata and tensors as they were, and is the same bytes every time', () => {
    expect(readModelMetadata(bytes)).toEqual(metadata);
    const read = readModel(bytes, encoder);
    expect(read.values).toEqual(values);
    expect(read.config).toEqual(config);
    expect(configOf(read.metadata)).toEqual(config);
    expect(writeModel(read.values, read.metadata)).toEqual(bytes);
  });

  it('takes another threshold, and gives it back for the calibrated one', () => {
    const moved = withThreshold(bytes, 0.5);
    expect(readModelMetadata(moved)).toEqual({ ...metadata, threshold: 0.5 });
    expect(readModel(moved, encoder).values).toEqual(values);
    expect(withThreshold(moved, metadata.calibration.threshold)).toEqual(bytes);
  });

  it('holds the tensors under the reference\'s names and shapes', () => {
    const shapes = new Map(entries.map(([name, { shape }]) => [name, shape]));
    expect(shapes.get('prototype_token')).toEqual([3, 32]);
    expect(shapes.get('aggregation.0.attn.kv.weight')).toEqual([64, 32]);
    expect(shapes.get('bottleneck.0.fc1.weight')).toEqual([128, 32]);
    expect(shapes.get('decoder.1.attn.learn_scale')).toEqual([2, 1, 1]);
  });

  it('knows categories, each with its calibration', () => {
    const [low, high] = [{ ...metadata.calibration, threshold: 0.1 }, { ...metadata.calibration, threshold: 0.9 }];
    const unified = { ...metadata, categories: [{ name: 'screw', images: 3, calibration: low }, { name: 'visa/pcb1', images: 4, calibration: high }] };
    const read = readModelMetadata(writeModel(values, unified));
    expect(read).toEqual(unified);
    expect([calibrationFor(read, undefined), calibrationFor(read, 'screw'), calibrationFor(read, 'visa/pcb1')]).toEqual([metadata.calibration, low, high]);
    expect(() => calibrationFor(read, 'pcb1')).toThrow(UsageError);
    expect(() => calibrationFor(read, 'pcb1')).toThrow(/knows screw, visa\/pcb1, not pcb1/);
    expect(() => calibrationFor(metadata, 'screw')).toThrow(/knows no categories, not screw/);
  });

  it('is refused with another encoder, both named', async () => {
    const other = await smallEncoder('other');
    expect(() => readModel(bytes, other, 'part.safetensors')).toThrow(EncoderMismatchError);
    expect(() => readModel(bytes, other, 'part.safetensors')).toThrow(new RegExp(`part\\.safetensors.*small-encoder.*${encoder.sha256.slice(0, 12)}.*small-other.*${other.sha256.slice(0, 12)}`));
  });
});

describe('damage', () => {
  it('by cutting the file short is an InputError with its name', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: bytes.length - 1 }), (end) => {
      const attempt = () => readModel(bytes.slice(0, end), encoder, 'cut.safetensors');
      expect(attempt).toThrow(InputError);
      expect(attempt).toThrow(/cut\.safetensors/);
    }), { numRuns: 100 });
  });

  it('of any byte of the header is an error of ours, or harmless, but never another', () => {
    const header = 8 + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    fc.assert(fc.property(fc.integer({ min: 0, max: header - 1 }), fc.integer({ min: 0, max: 255 }), (at, value) => {
      const damaged = bytes.slice();
      damaged[at] = value;
      try {
        readModel(damaged, encoder, 'damaged.safetensors');
      } catch (error) {
        expect(error).toBeInstanceOf(InpFormerError);
        expect(error instanceof InputError || error instanceof EncoderMismatchError, String(error)).toBe(true);
      }
    }), { numRuns: 600 });
  });

  it('that makes it another kind of file is told as such', () => {
    for (const foreign of [new Uint8Array(0), new TextEncoder().encode('not a model, not even close'), new Uint8Array(5000).fill(0xff)]) {
      expect(() => readModelMetadata(foreign, 'foreign')).toThrow(InputError);
    }
    expect(() => readModelMetadata(withMetadata(undefined))).toThrow(/not a model of inp-former/);
  });

  const without = (key: keyof ModelMetadata) => JSON.stringify({ ...metadata, [key]: undefined });
  it.each([
    ['no JSON', '{'], ['null', 'null'], ['a list', '[]'], ['another version', JSON.stringify({ ...metadata, version: 2 })],
    ...(['encoder', 'resize', 'crop', 'mapSize', 'framing', 'view', 'taps', 'encoderGroups', 'decoderGroups', 'calibration'] as const).map((key) => [`no ${key}`, without(key)]),
    ['a calibration without threshold', JSON.stringify({ ...metadata, calibration: { ...metadata.calibration, threshold: null } })],
    ['categories that are no list', JSON.stringify({ ...metadata, categories: {} })], ['a category without calibration', JSON.stringify({ ...metadata, categories: [{ name: 'a', images: 1 }] })],
      ['a category that is null', JSON.stringify({ ...metadata, categories: [null] })],
      ['a framing that there is not', JSON.stringify({ ...metadata, framing: 'squeeze' })], ['half a size', JSON.stringify({ ...metadata, mapSize: { width: 20 } })],
    ['a crop that is no multiple', JSON.stringify({ ...metadata, crop: 57 })], ['a crop larger than the image', JSON.stringify({ ...metadata, crop: 70 })],
    ['taps that the encoder has not', JSON.stringify({ ...metadata, taps: [0, 9] })], ['no encoder hash', JSON.stringify({ ...metadata, encoder: { ...metadata.encoder, sha256: '' } })],
  ] as [string, string][])('of the metadata (%s) is an InputError', (_, text) => {
    expect(() => readModelMetadata(withMetadata(text), 'm.safetensors')).toThrow(InputError);
    expect(() => readModelMetadata(withMetadata(text), 'm.safetensors')).toThrow(/m\.safetensors/);
  });

  it('of the tensors is an InputError that names the tensor', () => {
    const name = 'decoder.1.mlp.fc2.weight';
    const rewritten = (change: (v: Map<string, Float32Array>) => void, shape?: number[]) => {
      const copy = new Map([...values].map(([n, v]) => [n, v.slice()]));
      change(copy);
      return writeSafetensors([...copy].map(([n, data]) => [n, { dtype: 'F32' as const, shape: shape && n === name ? shape : [data.length], data }] as const), { inp_former: JSON.stringify(metadata) });
    };
    expect(() => readModel(rewritten((v) => v.delete(name)), encoder)).toThrow(/decoder\.1\.mlp\.fc2\.weight is missing/);
    expect(() => readModel(rewritten((v) => v.set(name, new Float32Array(7))), encoder)).toThrow(/decoder\.1\.mlp\.fc2\.weight has shape \[7\], expected \[32, 128\]/);
    expect(() => readModel(rewritten((v) => { v.get(name)![3] = NaN; }), encoder)).toThrow(/decoder\.1\.mlp\.fc2\.weight holds values that are not finite/);
  });
});
