/** The suites at work in Node: peaks, races with contenders that are right, wrong, late or broken, and the tasks as wholes. */
import { describe, expect, test } from 'vitest';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Engine } from '../../src/engine.ts';
import type { LeftOut, Measurement } from '../../bench/measurement.ts';
import { plainGemm } from '../../bench/peers/plain-gemm.ts';
import type { Racer } from '../../bench/peers/peer.ts';
import type { Bench, Platform, Settings } from '../../bench/suites/bench.ts';
import { blockJudge, blockProblem, blockRacer } from '../../bench/suites/block.ts';
import { gemmProblem, gemmRacer, judgeProduct, layouts, sampleProduct } from '../../bench/suites/gemm.ts';
import { kernels } from '../../bench/suites/kernels.ts';
import { coldStart, model } from '../../bench/suites/model.ts';
import { measurePeaks } from '../../bench/suites/peaks.ts';
import { race, type Contender } from '../../bench/suites/race.ts';
import { train } from '../../bench/suites/train.ts';
import { watchTraffic } from '../../bench/suites/traffic.ts';
import { testGpu } from '../support/gpu.ts';
import { projectRoot } from '../support/modules.ts';

const settings: Settings = {
  sampling: { minimumSamples: 2, maximumSamples: 2, seconds: 0 }, quick: true, models: [{ encoder: 'tiny', crop: 28 }], runLimit: 60, peerTimeout: 2, reused: [],
};

interface Run {
  readonly bench: Bench;
  readonly measurements: Measurement[];
  readonly leftOut: LeftOut[];
}

async function openBench(): Promise<Run> {
  const measurements: Measurement[] = [];
  const leftOut: LeftOut[] = [];
  const platform: Platform = {
    runtime: 'node', gpu: await testGpu(), readFile: async (path) => new Uint8Array(readFileSync(join(projectRoot, path))),
    log: () => undefined, report: (m) => measurements.push(m), leaveOut: (l) => leftOut.push(l), peers: [],
  };
  const engine = await Engine.create({ gpu: platform.gpu });
  return { bench: { platform, engine, tune: false, traffic: watchTraffic(engine.context.device), settings, peaks: { flops: 1e12, bandwidth: 1e10, loads: 1e11 } }, measurements, leftOut };
}

test('peaks: every chain, load and copy gives the right result and a rate above 0', async () => {
  const { bench, measurements } = await openBench();
  const peaks = await measurePeaks(bench.engine, bench.platform, settings);
  expect(measurements.filter(({ failure }) => failure !== undefined)).toEqual([]);
  expect(measurements.map(({ id }) => id)).toEqual(['peaks/fma/scalar/4', 'peaks/fma/vec4/4', 'peaks/mul-add/scalar/4', 'peaks/mul-add/vec4/4', 'peaks/load/scalar', 'peaks/load/vec4', 'peaks/copy/1', 'peaks/copy/4']);
  expect(peaks.flops).toBeGreaterThan(0);
  expect(peaks.bandwidth).toBeGreaterThan(0);
  expect(peaks.loads).toBeGreaterThan(0);
});

describe('a race', () => {
  const problem = gemmProblem(64, 96, 32);
  const sample = sampleProduct(problem);

  async function raced(contenders: (bench: Bench) => Contender[]): Promise<Map<string, Measurement>> {
    const { bench, measurements } = await openBench();
    await race(bench, {
      id: 'peers/product', group: 'g', title: 't', flops: 1, contenders: contenders(bench), check: 'f64',
      judge: ([c], variant) => judgeProduct(c!, problem, sample, variant),
    });
    return new Map(measurements.map((m) => [m.contender, m]));
  }

  /** A product computed elsewhere, right at first. */
  const elsewhere = (change: Partial<Racer>): Racer => {
    let variant = 0;
    const product = Float32Array.from({ length: 64 * 96 }, (_, at) => {
      let sum = 0;
      for (let k = 0; k < 32; k++) sum += problem.a[0]![Math.floor(at / 96) * 32 + k]! * problem.b[k * 96 + (at % 96)]!;
      return sum;
    });
    return { run: async (v) => { variant = v; }, read: async () => [variant === 0 ? product : product.map((x) => -x)], dispose: () => undefined, ...change };
  };

  test('gives times to those that are right and reasons to all others', async () => {
    let runs = 0;
    const result = await raced((bench) => [
      { name: 'ours', create: () => gemmRacer(bench, problem) },
      { name: 'plain', create: () => gemmRacer(bench, problem, undefined, plainGemm) },
      { name: 'right', create: async () => elsewhere({}) },
      { name: 'zeros', create: async () => elsewhere({ read: async () => [new Float32Array(64 * 96)] }) },
      { name: 'stale', create: async () => ({ ...elsewhere({}), run: async () => undefined }) },
      { name: 'broken', create: async () => { throw new Error('no device'); } },
      { name: 'breaking', create: async () => elsewhere({ run: async () => { if (runs++ > 1) throw new Error('lost'); } }) },
      { name: 'late', create: async () => elsewhere({ run: () => new Promise(() => undefined) }) },
    ]);
    expect([...result.keys()]).toEqual(['ours', 'plain', 'right', 'zeros', 'stale', 'broken', 'breaking', 'late']);
    for (const name of ['ours', 'plain', 'right']) {
      expect(result.get(name), name).toMatchObject({ samples: [expect.any(Number), expect.any(Number)] });
      expect(result.get(name)!.failure, name).toBeUndefined();
    }
    expect(result.get('ours')!.values).toMatchObject({ dispatches: 1, submits: 1 });
    const reasons = Object.fromEntries(['zeros', 'stale', 'broken', 'breaking', 'late'].map((name) => [name, result.get(name)!.failure]));
    expect(reasons).toMatchObject({
      zeros: expect.stringMatching(/^Wrong result: element 0 is 0/), stale: expect.stringMatching(/^Wrong result/), broken: 'no device', breaking: expect.stringMatching(/lost|Wrong/), late: expect.stringMatching(/took more than 2 s/),
    });
  });
});

test('products in every layout, and the decoder block, are right in both variants', async () => {
  const { bench } = await openBench();
  for (const layout of Object.values(layouts)) {
    const problem = gemmProblem(40, 24, 56);
    const sample = sampleProduct(problem, layout, 100);
    const racer = await gemmRacer(bench, problem, layout);
    for (const variant of [0, 1] as const) {
      await racer.run(variant, 1);
      expect(judgeProduct((await racer.read())[0]!, problem, sample, variant)).toBeUndefined();
    }
    racer.dispose();
  }
  const problem = blockProblem({ tokens: 20, width: 32, numHeads: 2, numPrototypes: 3 });
  const judge = blockJudge(problem);
  const racer = await blockRacer(bench, problem);
  await racer.run(1, 1);
  const outputs = await racer.read();
  expect(judge(outputs, 1)).toBeUndefined();
  expect(judge(outputs, 0)).toMatch(/Wrong result/);
  racer.dispose();
});

test('the suites on a model of four tokens: every result is right, one submit an image', async () => {
  const { bench, measurements, leftOut } = await openBench();
  for (const suite of [kernels, model, train]) await suite(bench);
  await coldStart(bench.platform);
  expect(measurements.filter(({ failure }) => failure !== undefined)).toEqual([]);
  expect(leftOut.filter(({ what }) => !what.startsWith('every kernel'))).toEqual([]);
  const at = (id: string): Measurement => measurements.find((m) => m.id === id)!;
  expect(at('model/tiny-28/batch-1/total').values).toMatchObject({ submits: 1 });
  expect(at('train/tiny-28/batch-1/step').values).toMatchObject({ submits: 1 });
  expect(at('kernels/gemm/NT-768x1536x384').samples).toHaveLength(2);
  expect(at('model/cold-start/total').samples).toHaveLength(1);
});
