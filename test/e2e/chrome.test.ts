/**
 * The core in a real browser: kernels against the reference, the golden model, a training that must come out as Node's,
 * and the loss of the GPU, in headless Chrome under a strict content-security policy.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Inspector, loadEncoderWeights, type Engine, type EncoderWeights } from '../../src/index.ts';
import { createNodeEngine } from '../../src/node/engine.ts';
import { readSafetensors, tensorToFloat32, writeSafetensors } from '../../src/weights/safetensors.ts';
import { operationCases } from '../ops/cases/index.ts';
import { ChromePage } from '../support/chrome.ts';
import { describeGolden, expectClose, float32, goldenTensors, maxAbsDifference, readGolden, relativeL2 } from '../support/golden.ts';
import { expectGradient, expectUpdate, loadModelCase } from '../support/model.ts';
import { projectRoot } from '../support/modules.ts';
import { defectiveImage, trainSmall } from './small-training.ts';
import type { ErrorRecord, ModelRun, OperationOutcome, TrainingOutcome } from './page.ts';

const encoderBytes = new Uint8Array(readFileSync(join(projectRoot, 'weights/tiny/tiny_vit14.safetensors')));
/** Of the small training: enough for a checkpoint at step 4 and some after it. */
const steps = 6;

let chrome: ChromePage;
let adapter: string;

beforeAll(async () => {
  chrome = await ChromePage.open(fileURLToPath(new URL('page.ts', import.meta.url)));
  chrome.files.set('encoder', encoderBytes);
  adapter = await chrome.call<string>('adapter');
  console.info(`${await chrome.version()}, ${adapter}`);
});

afterAll(() => chrome?.close());

afterEach(() => {
  expect(chrome.problems.splice(0), 'errors in the page').toEqual([]);
});

test('every operation, on its first shape, agrees with its reference', async () => {
  const outcomes = await chrome.call<OperationOutcome[]>('operations');
  expect(new Set(outcomes.map(({ name }) => name))).toEqual(new Set(operationCases.map(({ name }) => name)));
  expect(outcomes.filter(({ error, tolerance }) => !(error <= tolerance))).toEqual([]);
});

test('what autotuning has found is kept in the page\'s storage', async () => {
  expect(await chrome.call<number[]>('tune')).toEqual([1, 0]);
});

describeGolden('in headless Chrome', () => {
  test('tiny: features, prototypes, map and score, every gradient, training steps', async () => {
    const { settings, config, objective, encoder, trainables, forward } = await loadModelCase('tiny');
    const { optim } = settings;
    chrome.files.set('golden-encoder', readGolden('tiny/encoder.safetensors'));
    chrome.files.set('golden-model', readGolden('tiny/model.safetensors'));
    const image = forward.get('image')!;
    chrome.files.set('golden-image', writeSafetensors([['image', { dtype: 'F32', shape: image.shape, data: float32(forward, 'image') }]]));
    const run: ModelRun = {
      detector: {
        crop: settings.image, taps: config.taps, encoderGroups: config.encoderGroups, decoderGroups: config.decoderGroups,
        numPrototypes: config.numPrototypes, extractorDepth: config.extractorDepth, decoderDepth: config.decoderDepth,
      },
      numHeads: encoder.architecture.numHeads, mapSize: settings.map_size, objective, imageShape: image.shape, learningRates: optim.lr,
    };
    const losses = await chrome.call<number[]>('model', run);

    const results = receivedTensors('forward');
    expect([...results.keys()].sort()).toEqual([...forward.keys()].filter((name) => /^(en\d+|P|de\d+|map\.final|score)$/.test(name)).sort());
    for (const [name, values] of results) {
      expectClose(values, float32(forward, name), name === 'score' ? { maxAbs: 5e-6, name } : { relL2: 1e-5, maxOfRms: 1e-4, name });
    }
    const backward = goldenTensors('tiny/backward.safetensors');
    const gradients = receivedTensors('gradients');
    expect([...gradients.keys()].sort()).toEqual([...trainables.keys()].sort());
    for (const [name, values] of gradients) expectGradient(name, values, float32(backward, `param.${name}`), config);
    const stored = goldenTensors('tiny/optim.safetensors');
    expectClose(losses, optim.loss_total, { maxAbs: 1e-5, name: 'losses' });
    for (const i of optim.lr.keys()) {
      const expected = new Map([...trainables.keys()].map((name) => [name, float32(stored, `step${i + 1}.${name}`)]));
      expectUpdate(`step ${i + 1}`, trainables, receivedTensors(`step${i + 1}`), expected, config);
    }
  });
});

describe('the same training in the page and in Node', () => {
  let engine: Engine;
  let encoder: EncoderWeights;
  let page: TrainingOutcome;
  let node: TrainingOutcome;
  let nodeMap: Float32Array;

  beforeAll(async () => {
    engine = await createNodeEngine({ adapter: process.platform === 'linux' && process.arch === 'x64' ? 'swiftshader' : 'auto' });
    encoder = await loadEncoderWeights(encoderBytes, { name: 'tiny' });
    const { inspector, model, record } = await trainSmall(engine, encoder, { steps });
    const { score, map } = await inspector.inspect(defectiveImage());
    inspector.dispose();
    node = { losses: record.losses, score };
    nodeMap = map;
    chrome.files.set('node-model', model);
    page = await chrome.call<TrainingOutcome>('train', steps);
  });

  afterAll(() => engine?.dispose());

  test('gives the same model', () => {
    const [fromPage, fromNode] = [chrome.received('page-model'), chrome.received('node-model')];
    const same = Buffer.compare(fromPage, fromNode) === 0;
    const scoreDifference = Math.abs(page.score - node.score);
    const nodeTensors = tensorsOf(fromNode);
    const errors = [...tensorsOf(fromPage)].map(([name, values]) => relativeL2(values, nodeTensors.get(name)!));
    console.info(`${adapter} in Chrome, ${engine.adapter.name} in Node: model files ${same ? 'bitwise equal' : 'differ'}, largest relative L2 difference of a tensor ${Math.max(...errors).toExponential(1)}, scores differ by ${scoreDifference.toExponential(1)}`);
    expect(page.losses).toHaveLength(steps);
    expectClose(page.losses, node.losses, { maxAbs: 1e-4, name: 'losses' });
    expect(Object.keys(metadataOf(fromPage)).sort()).toEqual(Object.keys(metadataOf(fromNode)).sort());
    expect(scoreDifference).toBeLessThanOrEqual(1e-4);
    // Adam divides noise by its own size where a gradient is nearly zero, so single elements may differ.
    expect(Math.max(...errors)).toBeLessThanOrEqual(5e-2);
  });

  test('and each model file, opened in the other runtime, the same map', async () => {
    const inspector = await Inspector.open(engine, chrome.received('page-model'), encoder);
    const { score, map } = await inspector.inspect(defectiveImage());
    inspector.dispose();
    expect(Math.abs(score - page.score)).toBeLessThanOrEqual(1e-5);
    expect(maxAbsDifference(map, receivedTensors('page-map').get('map')!)).toBeLessThanOrEqual(1e-5);

    const pageScore = await chrome.call<number>('inspect');
    expect(Math.abs(pageScore - node.score)).toBeLessThanOrEqual(1e-5);
    expect(maxAbsDifference(receivedTensors('page-map').get('map')!, nodeMap)).toBeLessThanOrEqual(1e-5);
  });
});

describe('a lost device', () => {
  /** A new engine gives right results. */
  const expectWorking = async (): Promise<void> => {
    const outcomes = await chrome.call<OperationOutcome[]>('operations');
    expect(outcomes.filter(({ error, tolerance }) => !(error <= tolerance))).toEqual([]);
  };

  const expectLost = async (reason: string): Promise<void> => {
    const error = await chrome.call<ErrorRecord>('outcome');
    expect(error, error.message).toMatchObject({ isDeviceLost: true, reason });
  };

  test('destroyed on purpose: running work and later work reject with the reason', async () => {
    const outcomes = await chrome.call<Record<'work' | 'listener' | 'after', ErrorRecord>[]>('destroyWhileRunning');
    expect(outcomes.length).toBeGreaterThan(0);
    for (const error of outcomes.flatMap(({ work, listener, after }) => [work, listener, after])) {
      expect(error, error.message).toMatchObject({ isDeviceLost: true, reason: 'destroyed' });
    }
  });

  test('in a crash of the GPU process: running work rejects, a new engine works', async () => {
    await chrome.call('startRunning');
    await chrome.crashGpu();
    await expectLost('unknown');
    await expectWorking();
  });

  test('in training: it rejects, and going on from the checkpoint gives the model that it would have given', async () => {
    await chrome.call('startTraining', steps);
    await chrome.crashGpu();
    await expectLost('unknown');
    expect(await chrome.call('resume', steps)).toEqual({ firstStep: 4 });
    if (!chrome.files.has('page-model')) await chrome.call('train', steps);
    expect(Buffer.compare(chrome.received('resumed-model'), chrome.received('page-model')), 'bytes of the model files').toBe(0);
  });
});

function tensorsOf(bytes: Uint8Array): Map<string, Float32Array> {
  return new Map([...readSafetensors(bytes).tensors].map(([name, entry]) => [name, tensorToFloat32(entry)]));
}

function receivedTensors(name: string): Map<string, Float32Array> {
  return tensorsOf(chrome.received(name));
}

function metadataOf(bytes: Uint8Array): object {
  return Inspector.readMetadata(bytes);
}
