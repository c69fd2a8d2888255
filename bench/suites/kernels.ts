/**
 * Every kernel that the model runs, timed by the GPU inside the very plans that run it, so the suite follows the model as
 * its kernels change; and matrix products of the model's sizes alone, in the three layouts of forward, input gradient and
 * weight gradient, with the memory's search beside them.
 */
import type { DispatchTiming } from '../../src/graph/profile.ts';
import type { Executable } from '../../src/graph/executor.ts';
import type { TensorData } from '../../src/graph/tensor.ts';
import { planReport } from '../../src/train/plan-report.ts';
import { findEncoder } from '../../src/weights/catalog.ts';
import { collect, errorText, type Measurement } from '../measurement.ts';
import type { Variant } from '../peers/peer.ts';
import { idle, type Bench } from './bench.ts';
import { gemmProblem, gemmRacer, judgeProduct, layouts, sampleProduct } from './gemm.ts';
import { caseName, configFor, expectedLoss, expectInspection, loadModel, trainingFeatures, type ExpectedLoss, type LoadedModel, type ModelCase } from './models.ts';
import { nearest } from './nearest.ts';
import { timeDispatch } from './peaks.ts';
import { prepareInspection, prepareTraining } from './plans.ts';
import { tokenGrid } from '../../src/model/config.ts';

/** Share of the peak that is expected at worst, to tell beforehand what would take too long. */
const expectedShare = 0.1;

/** Why a plan is not run here, or undefined. */
export function tooLarge({ engine, settings, peaks }: Bench, { encoder, crop }: ModelCase, batchSize: number, train: boolean): string | undefined {
  const { flops, peakBytes } = planReport({ ...findEncoder(encoder), crop, batchSize, train, target: engine.context.target });
  const seconds = flops / (peaks.flops * expectedShare);
  if (seconds > settings.runLimit) return `one run is estimated at ${seconds.toFixed(0)} s, the limit is ${settings.runLimit} s (--run-limit)`;
  // A software adapter's memory is the machine's, which the page shares.
  if (engine.adapter.isSoftware && peakBytes > 2e9) return `the plan needs ${(peakBytes / 1e9).toFixed(1)} GB`;
  return undefined;
}

export async function kernels(bench: Bench): Promise<void> {
  const { platform, settings } = bench;
  await products(bench);
  await nearest(bench);
  if (!bench.engine.context.device.features.has('timestamp-query')) {
    platform.leaveOut({ suite: 'kernels', what: 'every kernel inside its plan', why: 'this adapter has no timestamp-query; the model suite times the plans as wholes' });
    return;
  }
  for (const model of settings.models) {
    for (const train of [false, true]) {
      const what = `${caseName(model)}, ${train ? 'training step' : 'inspection'}`;
      const batchSize = train && !settings.quick && !tooLarge(bench, model, 8, true) ? 8 : 1;
      const why = tooLarge(bench, model, batchSize, train);
      if (why) {
        platform.leaveOut({ suite: 'kernels', what, why });
        continue;
      }
      platform.log(`Kernels of ${what}, batch ${batchSize}`);
      const group = `${what}, batch ${batchSize}`;
      try {
        await (train ? trainingKernels : inspectionKernels)(bench, await loadModel(platform, model), batchSize, group);
      } catch (error) {
        platform.report({ id: `kernels/${caseId(model)}/${train ? 'training' : 'inspection'}`, suite: 'kernels', group, title: 'plan', contender: 'ours', clock: 'gpu', samples: [], failure: errorText(error) });
      }
    }
  }
}

async function inspectionKernels(bench: Bench, model: LoadedModel, batchSize: number, group: string): Promise<void> {
  const expectation = await expectInspection(bench, model);
  const plan = await prepareInspection(bench, model, { batchSize });
  try {
    for (let slot = 0; slot < batchSize; slot++) await plan.stage.load(model.images[0]!, slot);
    const { map, score } = await plan.executable.run();
    const failure = expectation.judge(map!.slice(0, map!.length / batchSize), score![0]!, 0);
    await profile(bench, plan.executable, {}, `kernels/${caseId(model.case)}/inspection`, group, expectation.check, failure);
  } finally {
    plan.dispose();
  }
}

async function trainingKernels(bench: Bench, model: LoadedModel, batchSize: number, group: string): Promise<void> {
  const [features] = trainingFeatures(model);
  const expected = expectedLoss(model, 0, bench.engine.context.target);
  const plan = await prepareTraining(bench, model, batchSize);
  try {
    const inputs = plan.inputs(features!);
    const { loss, norm } = await plan.executable.run(inputs);
    const failure = judgeLoss(loss![0]!, norm![0]!, expected);
    await profile(bench, plan.executable, inputs, `kernels/${caseId(model.case)}/training`, group, expected ? 'f64 reference of loss and gradient norm' : 'loss and gradient norm are finite', failure);
  } finally {
    plan.dispose();
  }
}

/** What is wrong with a step's loss and gradient norm, or undefined. */
export function judgeLoss(loss: number, norm: number, expected: ExpectedLoss | undefined): string | undefined {
  if (!Number.isFinite(loss) || !Number.isFinite(norm)) return `The loss is ${loss}, the gradient's norm ${norm}.`;
  if (!expected) return undefined;
  const off = Math.max(Math.abs(loss / expected.loss - 1), Math.abs(norm / expected.norm - 1));
  return off <= 1e-3 ? undefined : `Wrong result: loss ${loss}, gradient norm ${norm}; expected ${expected.loss.toPrecision(6)}, ${expected.norm.toPrecision(6)}.`;
}

export const caseId = ({ encoder, crop }: ModelCase): string => `${encoder}-${crop}`;

/** One measurement for each distinct kernel of a plan: the mean time of its dispatches in each run. */
async function profile(
  { platform, settings }: Bench, executable: Executable, inputs: Readonly<Record<string, TensorData>>, id: string, group: string, check: string, failure: string | undefined,
): Promise<void> {
  const rounds: DispatchTiming[][] = [];
  await executable.profile(inputs);
  await collect(settings.sampling, async () => {
    rounds.push(await executable.profile(inputs));
    return rounds.at(-1)!.reduce((sum, d) => sum + d.seconds, 0);
  });
  const byKernel = new Map<string, number[]>();
  rounds[0]!.forEach(({ kernel }, i) => byKernel.set(kernel, [...byKernel.get(kernel) ?? [], i]));
  for (const [kernel, places] of byKernel) {
    const mean = (of: (i: number) => number): number => places.reduce((sum, i) => sum + of(i), 0) / places.length;
    const measurement: Measurement = {
      id: `${id}/${kernel}`, suite: 'kernels', group, title: kernel, contender: 'ours', clock: 'gpu',
      samples: rounds.map((round) => mean((i) => round[i]!.seconds)),
      flops: mean((i) => rounds[0]![i]!.flops), bytes: mean((i) => rounds[0]![i]!.bytes),
      values: { count: places.length }, check, ...(failure !== undefined && { failure }),
    };
    platform.report(measurement);
  }
}

interface Product {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly layout: keyof typeof layouts;
}

/** The products of a model's linear layers on one image: forward, by the input, by the weight. */
function productsOf(model: ModelCase): Product[] {
  const config = configFor(model);
  const tokens = tokenGrid(config).count;
  const { width } = config.architecture;
  return [[3 * width, width], [width, width], [4 * width, width], [width, 4 * width]].flatMap(([out, into]) => [
    { rows: tokens, columns: out!, depth: into!, layout: 'NT' as const },
    { rows: tokens, columns: into!, depth: out!, layout: 'NN' as const },
    { rows: out!, columns: into!, depth: tokens, layout: 'TN' as const },
  ]);
}

async function products(bench: Bench): Promise<void> {
  const { platform, settings, engine, peaks } = bench;
  const race: Product[] = (['NN', 'NT', 'TN'] as const).map((layout) => ({ rows: 768, columns: 1536, depth: 384, layout }));
  const large: Product[] = engine.adapter.isSoftware ? [] : (['NN', 'NT', 'TN'] as const).map((layout) => ({ rows: 4096, columns: 4096, depth: 4096, layout }));
  const seen = new Set<string>();
  for (const product of [...race, ...large, ...(settings.quick ? [] : settings.models.flatMap(productsOf))]) {
    const { rows, columns, depth, layout } = product;
    const title = `gemm ${layout} ${rows}x${columns}x${depth}`;
    const flops = 2 * rows * columns * depth;
    if (seen.has(title)) continue;
    seen.add(title);
    if (flops / (peaks.flops * expectedShare) > Math.min(2, settings.runLimit)) {
      platform.leaveOut({ suite: 'kernels', what: title, why: `one run is estimated at ${(flops / (peaks.flops * expectedShare)).toFixed(1)} s` });
      continue;
    }
    const measurement = { id: `kernels/gemm/${layout}-${rows}x${columns}x${depth}`, suite: 'kernels' as const, group: 'Matrix products', title, contender: 'ours', flops, check: 'f64 products of sampled elements' };
    try {
      await time(bench, product, measurement);
    } catch (error) {
      platform.report({ ...measurement, clock: 'wall', samples: [], failure: errorText(error) });
    }
  }
}

async function time(bench: Bench, { rows, columns, depth, layout }: Product, measurement: Omit<Measurement, 'samples' | 'clock'>): Promise<void> {
  const { platform, settings, engine } = bench;
  const problem = gemmProblem(rows, columns, depth);
  const sample = sampleProduct(problem, layouts[layout], 1024);
  const racer = await gemmRacer(bench, problem, layouts[layout]);
  try {
    const hasTimestamps = engine.context.device.features.has('timestamp-query');
    await racer.run(0, 1);
    let failure: string | undefined;
    let round = 0;
    const samples = await collect(settings.sampling, async () => {
      const variant = (round++ % 2) as Variant;
      racer.load(variant);
      await idle(engine);
      const seconds = await timeDispatch(engine, racer.executable, {});
      failure ??= judgeProduct((await racer.read())[0]!, problem, sample, variant);
      return seconds;
    });
    platform.report({ ...measurement, clock: hasTimestamps ? 'gpu' : 'wall', samples, bytes: racer.executable.plan.report.bytes, ...(failure !== undefined && { failure }) });
  } finally {
    racer.dispose();
  }
}
