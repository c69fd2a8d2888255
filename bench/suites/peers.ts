/** The races: a matrix product, the decoder block's training step, the whole model. */
import type { Precision } from '../../src/model/parameters.ts';
import { errorText } from '../measurement.ts';
import { plainGemm } from '../peers/plain-gemm.ts';
import type { InferenceProblem, Racer, Variant } from '../peers/peer.ts';
import type { Bench, Platform, Runner } from './bench.ts';
import { blockFlops, blockJudge, blockProblem, blockRacer } from './block.ts';
import { gemmProblem, gemmRacer, judgeProduct, sampleProduct } from './gemm.ts';
import { caseId } from './kernels.ts';
import { coldCase } from './model.ts';
import { caseName, expectInspection, loadModel, onnxOf, type LoadedModel, type ModelCase } from './models.ts';
import { prepareInspection } from './plans.ts';
import { race, slug, type Judge } from './race.ts';
import { planReport } from '../../src/train/plan-report.ts';
import { findEncoder } from '../../src/weights/catalog.ts';

const raceSize = [768, 1536, 384] as const;
const gemmId = `peers/gemm-${raceSize.join('x')}`;
const blockId = 'peers/decoder-block';
const inferenceId = (model: ModelCase): string => `peers/inference-${caseId(model)}`;

export async function peers(bench: Bench): Promise<void> {
  const { platform, settings } = bench;
  const races: [id: string, title: string, run: () => Promise<void>][] = [
    [gemmId, 'matrix product', () => gemmRace(bench)],
    [blockId, 'decoder block', () => blockRace(bench)],
    ...settings.models.map((model): [string, string, () => Promise<void>] => [inferenceId(model), `inspection, ${caseName(model)}`, () => inferenceRace(bench, model)]),
  ];
  for (const [id, title, run] of races) {
    try {
      await run();
    } catch (error) {
      platform.report({ id: `${id}/ours`, suite: 'peers', group: title, title, contender: 'ours', clock: 'wall', samples: [], failure: errorText(error) });
    }
  }
}

async function gemmRace(bench: Bench): Promise<void> {
  const { platform } = bench;
  const problem = gemmProblem(...raceSize);
  const { rows, columns, depth } = problem;
  const sample = sampleProduct(problem);
  await race(bench, {
    id: gemmId, group: 'Matrix product', title: `C = A B, ${rows} x ${columns} x ${depth}`, flops: 2 * rows * columns * depth,
    contenders: [
      { name: 'ours', create: () => gemmRacer(bench, problem) },
      { name: 'plain WGSL kernel', create: () => gemmRacer(bench, problem, undefined, plainGemm) },
      ...platform.peers.flatMap((peer) => (peer.gemm ? [{ name: peer.name, create: () => peer.gemm!(problem) }] : [])),
    ],
    judge: ([c], variant) => judgeProduct(c!, problem, sample, variant), check: 'f64 products of sampled elements',
  });
}

async function blockRace(bench: Bench): Promise<void> {
  const { platform } = bench;
  const problem = blockProblem();
  await race(bench, {
    id: blockId, group: 'Decoder block, forward and backward', title: `${problem.tokens} tokens, width ${problem.width}, ${problem.numPrototypes} prototypes`, flops: blockFlops(problem, bench.engine.context.target),
    contenders: [
      { name: 'ours', create: () => blockRacer(bench, problem) },
      ...platform.peers.flatMap((peer) => (peer.block ? [{ name: peer.name, create: () => peer.block!(problem) }] : [])),
    ],
    judge: blockJudge(problem), check: 'f64 reference of output and every gradient',
  });
}

async function inferenceRace(bench: Bench, modelCase: ModelCase): Promise<void> {
  const { platform } = bench;
  const model = await loadModel(platform, modelCase);
  const raced = platform.peers.filter((peer) => peer.inference);
  const problem: InferenceProblem = { onnx: raced.length > 0 ? await onnxOf(model) : new Uint8Array(), images: model.pixels, size: modelCase.crop };
  const { check, judge } = await expectInspection(bench, model);
  const judgeAt = (precision: Precision): Judge => ([map, score], variant) => judge(map!, score![0]!, variant, precision);
  await race(bench, {
    id: inferenceId(modelCase), group: `Inspection, ${caseName(modelCase)}`, title: `${caseName(modelCase)}, one image`, images: 1,
    flops: planReport({ ...findEncoder(modelCase.encoder), crop: modelCase.crop, batchSize: 1, train: false }).flops,
    contenders: [
      { name: 'ours', create: () => inspectionRacer(bench, model) },
      ...(bench.engine.context.target.features.has('shader-f16')
        ? [{ name: 'ours, f16 weights', create: () => inspectionRacer(bench, model, 'f16'), judge: judgeAt('f16') }]
        : []),
      ...raced.map((peer) => ({ name: peer.name, create: () => peer.inference!(problem) })),
    ],
    judge: judgeAt('f32'), check,
  });
}

/** Ours starts from 8-bit pixels and resizes them on the GPU; the peers are given normalised tensors. */
async function inspectionRacer(runner: Runner, model: LoadedModel, precision: Precision = 'f32'): Promise<Racer> {
  const { network, dispose } = await prepareInspection(runner, model, { batchSize: 1, precision });
  let last: { map: Float32Array; score: number } | undefined;
  return {
    async run(variant: Variant, count) {
      for (let n = 0; n < count; n++) [last] = await network.run([model.images[variant]!]);
    },
    read: async () => [last!.map, Float32Array.of(last!.score)],
    dispose,
  };
}

/** A peer's way to its first result on a page of its own; the ONNX file is there already. */
export async function peerColdStart(platform: Platform, peerName: string): Promise<void> {
  const peer = platform.peers.find(({ name }) => name === peerName);
  const base = { suite: 'peers' as const, group: `Cold start, ${caseName(coldCase)}`, contender: peerName, clock: 'wall' as const };
  const report = (name: string, title: string, samples: number[], failure?: string): void =>
    platform.report({ ...base, id: `peers/cold-start/${slug(peerName)}/${name}`, title, samples, ...(failure !== undefined && { failure }) });
  if (!peer?.inference) return;
  const model = await loadModel(platform, coldCase);
  const onnx = await onnxOf(model);
  try {
    const started = performance.now();
    const racer = await peer.inference({ onnx, images: model.pixels, size: coldCase.crop });
    const made = performance.now();
    await racer.run(0, 1);
    const done = performance.now();
    const [, score] = await racer.read();
    const failure = Number.isFinite(score![0]!) ? undefined : `The score is ${score![0]}.`;
    report('session', 'session', [(made - started) / 1000], failure);
    report('first-run', 'first run', [(done - made) / 1000], failure);
    report('total', 'to the first result', [(done - started) / 1000], failure);
    racer.dispose();
  } catch (error) {
    report('total', 'to the first result', [], errorText(error));
  }
}
