/**
 * Inspection as a user has it: pixels in, score and map out, one image or eight at a time; the same in parts (bringing the
 * image in, the network, reading the map); and, in a session of its own, the way from nothing to the first result.
 */
import { Engine } from '../../src/engine.ts';
import type { Precision } from '../../src/model/parameters.ts';
import { collect, errorText, timed, type Measurement } from '../measurement.ts';
import type { Variant } from '../peers/peer.ts';
import { idle, readOutputs, timeUntilDone, type Bench, type Platform } from './bench.ts';
import { caseId, tooLarge } from './kernels.ts';
import { caseName, expectInspection, loadEncoder, loadModel, modelInputs, modelCases, type LoadedModel } from './models.ts';
import { prepareInspection } from './plans.ts';

export async function model(bench: Bench): Promise<void> {
  const { platform, settings } = bench;
  for (const modelCase of settings.models) {
    for (const { batchSize, precision } of waysOf(bench)) {
      const what = `${caseName(modelCase)}, ${batchSize === 1 ? 'one image' : `${batchSize} images`}${precision === 'f16' ? ', f16 weights' : ''}`;
      const why = tooLarge(bench, modelCase, batchSize, false);
      if (why) {
        platform.leaveOut({ suite: 'model', what, why });
        continue;
      }
      platform.log(`Inspection: ${what}`);
      const id = `model/${caseId(modelCase)}/batch-${batchSize}${precision === 'f16' ? '-f16' : ''}`;
      const base = { suite: 'model' as const, group: `Inspection, ${what}`, contender: 'ours', images: batchSize };
      try {
        const loaded = await loadModel(platform, modelCase);
        const total = await wholeInspection(bench, loaded, { batchSize, precision });
        platform.report({ ...base, ...total, id: `${id}/total`, title: 'in all', clock: 'wall' });
        for (const { name, title, samples } of await parts(bench, loaded, { batchSize, precision })) {
          platform.report({ ...base, id: `${id}/${name}`, title, clock: 'wall', samples, ...(name === 'network' && { flops: total.flops! }) });
        }
      } catch (error) {
        platform.report({ ...base, id: `${id}/total`, title: 'in all', clock: 'wall', samples: [], failure: errorText(error) });
      }
    }
  }
}

interface Way {
  readonly batchSize: number;
  readonly precision: Precision;
}

function waysOf({ engine, settings }: Bench): Way[] {
  const ways: Way[] = [{ batchSize: 1, precision: 'f32' }];
  if (!settings.quick) ways.push({ batchSize: 8, precision: 'f32' });
  if (engine.context.target.features.has('shader-f16')) ways.push({ batchSize: 1, precision: 'f16' });
  return ways;
}

type Timed = Pick<Measurement, 'samples' | 'values' | 'flops'> & Partial<Measurement>;

/** Through the package's own network: upload, resize, encoder, detector, scoring, readback. */
async function wholeInspection(bench: Bench, model: LoadedModel, { batchSize, precision }: Way): Promise<Timed> {
  const { settings, traffic } = bench;
  const expectation = await expectInspection(bench, model);
  const { images } = model;
  const { network, executable, dispose } = await prepareInspection(bench, model, { batchSize, precision });
  try {
    const run = async (variant: Variant) => {
      const batch = Array.from({ length: batchSize }, () => images[variant]!);
      const before = { ...traffic };
      let results: Awaited<ReturnType<typeof network.run>> = [];
      const seconds = await timed(async () => { results = await network.run(batch); });
      const submits = traffic.submits - before.submits;
      const encode = traffic.encodeSeconds - before.encodeSeconds;
      const failure = results.map(({ map, score }) => expectation.judge(map, score, variant, precision)).find((f) => f !== undefined);
      return { seconds, submits, encode, failure, kernels: traffic.dispatches - before.dispatches };
    };
    let { failure, submits, kernels } = await run(0);
    const encodes: number[] = [];
    let round = 0;
    const samples = await collect(settings.sampling, async () => {
      const result = await run((++round % 2) as Variant);
      failure ??= result.failure;
      ({ submits, kernels } = result);
      encodes.push(result.encode);
      return result.seconds;
    });
    const { flops, peakBytes } = executable.plan.report;
    return { samples, flops, check: expectation.check, values: { kernels, submits, encodeSeconds: Math.min(...encodes), peakBytes }, ...(failure !== undefined && { failure }) };
  } finally {
    dispose();
  }
}

async function parts(bench: Bench, model: LoadedModel, { batchSize, precision }: Way): Promise<{ name: string; title: string; samples: number[] }[]> {
  const { engine, settings: { sampling } } = bench;
  const { executable, stage, dispose } = await prepareInspection(bench, model, { batchSize, precision });
  try {
    const upload = async (): Promise<void> => {
      for (let slot = 0; slot < batchSize; slot++) await stage.load(model.images[0]!, slot);
    };
    const measure = async (run: () => Promise<unknown>): Promise<number[]> => {
      await run();
      return collect(sampling, () => timeUntilDone(engine, run));
    };
    return [
      { name: 'upload', title: 'image upload, resize, normalise', samples: await measure(upload) },
      { name: 'network', title: 'network and scoring', samples: await measure(() => executable.run({}, { read: [] })) },
      { name: 'readback', title: 'map and score readback', samples: await measure(() => readOutputs(engine, executable, ['map', 'score'])) },
    ];
  } finally {
    dispose();
  }
}

export const coldCase = modelCases[0]!;

/** From nothing to the first result; each session gives one sample of each part. */
export async function coldStart(platform: Platform): Promise<void> {
  // What a user has before the start: an image, and the values of a model file.
  const { images: [image], trained, config } = modelInputs(coldCase);
  const started = performance.now();
  let last = started;
  const seconds: [name: string, title: string, seconds: number][] = [];
  const lap = (name: string, title: string): void => {
    const now = performance.now();
    seconds.push([name, title, (now - last) / 1000]);
    last = now;
  };
  const engine = await Engine.create({ gpu: platform.gpu });
  lap('adapter', 'adapter and device');
  const encoder = loadEncoder(platform, coldCase.encoder).then(({ weights }) => weights);
  const { network, dispose } = await prepareInspection({ engine, tune: false }, { case: coldCase, config, encoder, trained }, { batchSize: 1 });
  await idle(engine);
  lap('pipelines', 'weights read and uploaded, plan, pipelines');
  const [result] = await network.run([image!]);
  lap('first-run', 'first run');
  seconds.push(['total', 'to the first result', (last - started) / 1000]);
  const failure = Number.isFinite(result!.score) ? undefined : `The score is ${result!.score}.`;
  for (const [name, title, time] of seconds) {
    platform.report({
      id: `model/cold-start/${name}`, suite: 'model', group: `Cold start, ${caseName(coldCase)}`, title, contender: 'ours', clock: 'wall', samples: [time],
      ...(failure !== undefined && { failure }),
    });
  }
  dispose();
  engine.dispose();
}
