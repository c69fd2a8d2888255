/**
 * The models that the suites run: the catalogue's encoders with an untrained detector on top. Encoders whose file is not at
 * hand get random weights of the same shapes, which takes the same time, because no kernel looks at the values. What comes
 * out is held against another implementation's result.
 */
import { exportOnnx } from '../../src/export/onnx.ts';
import { Random } from '../../src/data/random.ts';
import type { RasterImage } from '../../src/data/image.ts';
import { preprocess } from '../../src/data/preprocess.ts';
import type { Target } from '../../src/gpu/target.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { input, type TensorData } from '../../src/graph/tensor.ts';
import { writeModel, type ModelMetadata } from '../../src/inspect/model-file.ts';
import { detectorConfig, tokenGrid, type DetectorConfig } from '../../src/model/config.ts';
import { encoderParameters, encoderPrefix } from '../../src/model/encoder.ts';
import { featureCount, inspectionGraph, trainingGraph } from '../../src/model/graphs.ts';
import { trainableItems, trainablePrefix, type Precision } from '../../src/model/parameters.ts';
import { defaultMapSize } from '../../src/model/scoring.ts';
import { stableAdamWSchedule } from '../../src/ops/index.ts';
import { planReport } from '../../src/train/plan-report.ts';
import { initialTrainables } from '../../src/train/trainables.ts';
import { findEncoder } from '../../src/weights/catalog.ts';
import { encoderTensorShapes, loadEncoderWeights, type EncoderWeights } from '../../src/weights/encoder.ts';
import { variants, type Variant } from '../peers/peer.ts';
import type { Bench, Platform } from './bench.ts';
import { farthest } from './peaks.ts';

export interface ModelCase {
  /** The encoder's name in the catalogue. */
  readonly encoder: string;
  readonly crop: number;
}

/** As people know them. */
const shortNames: Readonly<Record<string, string>> = { 'dinov2-small': 'S', 'dinov2-base': 'B', 'dinov2-large': 'L' };
export const caseName = ({ encoder, crop }: ModelCase): string => `${shortNames[encoder] ?? encoder} ${crop}`;

export const modelCases: readonly ModelCase[] = [
  { encoder: 'tiny', crop: 112 }, { encoder: 'tiny', crop: 224 }, { encoder: 'tiny', crop: 392 },
  { encoder: 'dinov2-small', crop: 224 }, { encoder: 'dinov2-small', crop: 392 },
  { encoder: 'dinov2-base', crop: 224 }, { encoder: 'dinov2-base', crop: 392 },
];

/** What each suite runs: cold starts and races on what the targets name, the others on what is worth a user's while. */
export const suiteModels: Readonly<Record<'kernels' | 'model' | 'train' | 'peers', readonly ModelCase[]>> = {
  kernels: modelCases.slice(1), model: modelCases, train: modelCases.slice(1),
  peers: modelCases.filter(({ encoder, crop }) => (encoder === 'tiny' && crop <= 224) || (encoder === 'dinov2-small' && crop === 224)),
};
/** The training step that the targets are judged by. */
export const judgedTraining: ModelCase = { encoder: 'tiny', crop: 224 };

export function configFor({ encoder, crop }: ModelCase): DetectorConfig {
  const { architecture, taps, encoderGroups } = findEncoder(encoder);
  return detectorConfig({ architecture, taps, encoderGroups, crop });
}

export interface LoadedModel {
  readonly case: ModelCase;
  readonly config: DetectorConfig;
  readonly encoder: EncoderWeights;
  readonly encoderIsRandom: boolean;
  readonly trained: ReadonlyMap<string, Float32Array>;
  /** One an variant: photographs of nothing, larger than the crop. */
  readonly images: readonly RasterImage[];
  /** The same as the network sees them, [3, crop, crop]. */
  readonly pixels: readonly Float32Array[];
}

export const mapSize = defaultMapSize;

const tinyFile = 'weights/tiny/tiny_vit14.safetensors';
let encoderAtHand: { name: string; weights: EncoderWeights; isRandom: boolean } | undefined;

/** One encoder is kept at a time: a large one takes most of a gigabyte. */
export async function loadModel(platform: Platform, model: ModelCase): Promise<LoadedModel> {
  if (encoderAtHand?.name !== model.encoder) encoderAtHand = { name: model.encoder, ...await loadEncoder(platform, model.encoder) };
  const inputs = modelInputs(model);
  const { images } = inputs;
  return {
    case: model, ...inputs, encoder: encoderAtHand.weights, encoderIsRandom: encoderAtHand.isRandom,
    pixels: images.map((image) => preprocess(image, { resize: model.crop, crop: model.crop })),
  };
}

/** What a run needs beside the encoder. */
export function modelInputs(model: ModelCase): Pick<LoadedModel, 'config' | 'trained' | 'images'> {
  const config = configFor(model);
  return { config, trained: initialTrainables(config, 1), images: variants.map((v) => drawImage(`benchmark image ${v}`, 512)) };
}

export async function loadEncoder(platform: Platform, name: string): Promise<{ weights: EncoderWeights; isRandom: boolean }> {
  const { architecture } = findEncoder(name);
  const bytes = await platform.readFile(name === 'tiny' ? tinyFile : `encoders/${name}.safetensors`);
  if (bytes) return { weights: await loadEncoderWeights(bytes, { name, architecture }), isRandom: false };
  const tensors = new Map([...encoderTensorShapes(architecture)].map(([tensor, shape]) => {
    const random = new Random(tensor);
    const [middle, spread] = /norm\d\.weight$|lambda1$/.test(tensor) ? [1, 0.1] : [0, 0.05];
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => middle + random.uniform(-spread, spread));
    return [tensor, { shape, data }] as const;
  }));
  return { weights: { architecture, sha256: '0'.repeat(64), name, tensors }, isRandom: true };
}

function drawImage(seed: string, side: number): RasterImage {
  const random = new Random(seed);
  const phase = random.uniform(0, 6);
  const data = Uint8Array.from({ length: side * side * 3 }, (_, i) => {
    const [c, x, y] = [i % 3, Math.floor(i / 3) % side, Math.floor(i / 3 / side)];
    return 128 + 60 * Math.sin(x / 17 + phase + c) * Math.cos(y / 23) + random.uniform(-20, 20);
  });
  return { width: side, height: side, channels: 3, data };
}

/** The model as a user has it: a file of untrained weights, and what is exported from it. */
export function onnxOf({ config, encoder, trained, case: { crop } }: LoadedModel): Promise<Uint8Array> {
  const metadata: ModelMetadata = {
    ...config, version: 1, resize: crop, crop, mapSize, framing: 'stretch', view: crop,
    encoder: { name: encoder.name, sha256: encoder.sha256, numHeads: encoder.architecture.numHeads, architecture: encoder.architecture },
    calibration: { threshold: 1, pixelThreshold: 1, scaleLow: 0, scaleHigh: 1, count: 0, outliers: 0, scoreMean: 0, scoreStd: 0, scoreMax: 0, scores: [], rule: 'none: untrained' },
    training: { images: 0, steps: 0, batchSize: 1, warmupSteps: 0, learningRate: 0, finalLearningRate: 0, seed: 1, finalLoss: 0 },
  };
  return exportOnnx({ model: writeModel(trained, metadata), encoder, batchSize: 1 });
}

export interface Expectation {
  /** How it was come by. */
  readonly check: string;
  /** What is wrong with the outputs for an image, or undefined. */
  judge(map: ArrayLike<number>, score: number, variant: Variant, precision?: Precision): string | undefined;
}

/** Of the largest value. f16 weights cost precision. */
const tolerances: Readonly<Record<Precision, number>> = { f32: 5e-4, f16: 2e-2 };
/** What the f64 reference computes in a few seconds, operations. */
const referenceLimit = 6e9;
const expectations = new Map<string, Promise<Expectation>>();

/**
 * Judges maps and scores of a model: by its f64 reference where that is quick, else by onnxruntime's wasm back end on the
 * ONNX export; where there is neither, by what a first run gave.
 */
export function expectInspection(bench: Bench, model: LoadedModel): Promise<Expectation> {
  const key = caseName(model.case);
  let expectation = expectations.get(key);
  if (!expectation) {
    expectation = makeExpectation(bench, model);
    expectations.set(key, expectation);
  }
  return expectation;
}

async function makeExpectation({ platform }: Bench, model: LoadedModel): Promise<Expectation> {
  const { config, encoder, trained, pixels, case: { encoder: name, crop } } = model;
  const { flops } = planReport({ ...findEncoder(name), crop, batchSize: 1, train: false });
  const peer = platform.peers.find((p) => p.name === wasmPeer);
  let expected: { map: ArrayLike<number>; score: number }[];
  let check: string;
  if (flops <= referenceLimit) {
    check = 'f64 reference';
    const image = input('images', [1, 3, crop, crop]);
    const { map, score } = inspectionGraph(image, config).scoring;
    const values = new Map<string, ArrayLike<number>>();
    for (const [tensor, data] of encoderParameters(encoder, config)) values.set(encoderPrefix + tensor, data);
    for (const [leaf, data] of trainableLeafValues(config, trained)) values.set(leaf, data);
    expected = pixels.map((data) => {
      const [m, s] = interpret([map, score], new Map([...values, ['images', data]]));
      return { map: m!, score: s![0]! };
    });
  } else if (peer?.inference && flops < 60e9) {
    check = `${peer.name} on the ONNX export`;
    const racer = await peer.inference({ onnx: await onnxOf(model), images: pixels, size: crop });
    expected = [];
    for (const variant of variants) {
      await racer.run(variant, 1);
      const [m, s] = await racer.read();
      expected.push({ map: m!, score: s![0]! });
    }
    racer.dispose();
  } else {
    check = 'the same in every run';
    expected = [];
  }
  return {
    check,
    judge(map, score, variant, precision = 'f32') {
      const tolerance = tolerances[precision];
      if (!Number.isFinite(score)) return `The score is ${score}.`;
      // Without another implementation the first result stands for the right one.
      expected[variant] ??= { map: Array.from(map), score };
      const { map: right, score: rightScore } = expected[variant];
      if (!(Math.abs(score - rightScore) <= tolerance * Math.abs(rightScore))) return `Wrong result: the score is ${score}, expected ${rightScore.toPrecision(6)}.`;
      return farthest(map, right, tolerance);
    },
  };
}

export const wasmPeer = 'onnxruntime-web wasm';

/** Random features for a training step, one array an image; every image of a batch has the same, so that the batch's loss is one image's. */
export function trainingFeatures({ config }: LoadedModel): Float32Array[] {
  return variants.map((v) => {
    const random = new Random(`features ${v}`);
    return Float32Array.from({ length: featureCount(config) }, () => random.uniform(-1.5, 1.5));
  });
}

export interface ExpectedLoss {
  readonly loss: number;
  readonly norm: number;
}

const losses = new Map<string, ExpectedLoss | undefined>();

/** Loss and gradient norm of a step on one image with a variant's features, in f64; undefined where that takes too long. */
export function expectedLoss(model: LoadedModel, variant: Variant, target: Target): ExpectedLoss | undefined {
  const key = `${caseName(model.case)}, ${variant}`;
  if (!losses.has(key)) losses.set(key, computeLoss(model, trainingFeatures(model)[variant]!, target));
  return losses.get(key);
}

function computeLoss(model: LoadedModel, features: Float32Array, target: Target): ExpectedLoss | undefined {
  const { config, trained } = model;
  const { flops } = planReport({ ...findEncoder(model.case.encoder), crop: model.case.crop, batchSize: 1, train: true });
  if (flops > referenceLimit) return undefined;
  const graph = trainingGraph(config, 1, target);
  const each = tokenGrid(config).count * config.architecture.width;
  const feeds = new Map<string, TensorData>([['schedule', stableAdamWSchedule(1, 0)], ...trainableLeafValues(config, trained)]);
  for (let i = 0; i * each < features.length; i++) feeds.set(`features.${i}.0`, features.subarray(i * each, (i + 1) * each));
  const [loss, norm] = interpret([graph.objective.loss, graph.norm], feeds);
  return { loss: loss![0]!, norm: norm![0]! };
}

/** Trained tensors as the graphs' leaves have them: some lie in stacks, at equal distances. */
function trainableLeafValues(config: DetectorConfig, trained: ReadonlyMap<string, Float32Array>): [string, Float32Array][] {
  const value = (name: string): Float32Array => trained.get(name.slice(trainablePrefix.length))!;
  return trainableItems(config).map(([name, bytes, members]) => {
    if (!members) return [name, value(name)];
    const stack = new Float32Array(bytes / 4);
    members.forEach(([member], i) => stack.set(value(member), (i * stack.length) / members.length));
    return [name, stack];
  });
}
