/** The training step as the trainer makes it: features up, one submit, losses back. */
import { collect, errorText, timed } from '../measurement.ts';
import { variants, type Variant } from '../peers/peer.ts';
import type { Bench } from './bench.ts';
import { prepareTraining } from './plans.ts';
import { caseId, judgeLoss, tooLarge } from './kernels.ts';
import { caseName, expectedLoss, loadModel, trainingFeatures, type ModelCase } from './models.ts';
import { withoutCounting } from './traffic.ts';

export async function train(bench: Bench): Promise<void> {
  const { platform, settings, engine } = bench;
  for (const modelCase of settings.models) {
    for (const batchSize of settings.quick ? [1] : engine.adapter.isSoftware ? [8] : [8, 16]) {
      const what = `${caseName(modelCase)}, batch ${batchSize}`;
      const why = tooLarge(bench, modelCase, batchSize, true);
      if (why) {
        platform.leaveOut({ suite: 'train', what, why });
        continue;
      }
      platform.log(`Training step: ${what}`);
      try {
        await step(bench, modelCase, batchSize, what);
      } catch (error) {
        platform.report({ id: `train/${caseId(modelCase)}/batch-${batchSize}/step`, suite: 'train', group: `Training, ${what}`, title: 'step', contender: 'ours', clock: 'wall', samples: [], failure: errorText(error) });
      }
    }
  }
}

async function step(bench: Bench, modelCase: ModelCase, batchSize: number, what: string): Promise<void> {
  const { platform, settings, engine, traffic } = bench;
  const model = await loadModel(platform, modelCase);
  const features = trainingFeatures(model);
  const expected = variants.map((v) => expectedLoss(model, v, engine.context.target));
  const { step: training, dispose } = await prepareTraining(bench, model, batchSize);
  try {
    // With a learning rate of 0 every step starts from the same weights, so each result is known.
    const run = async (variant: Variant) => {
      const batch = Array<Float32Array>(batchSize).fill(features[variant]!);
      const before = { ...traffic };
      let result = { loss: NaN, norm: NaN };
      const seconds = await timed(async () => { result = await training.run(batch, 1, 0); });
      return {
        seconds, failure: judgeLoss(result.loss, result.norm, expected[variant]),
        kernels: traffic.dispatches - before.dispatches, submits: traffic.submits - before.submits, encode: traffic.encodeSeconds - before.encodeSeconds,
      };
    };
    const first = await run(0);
    const { kernels, submits } = first;
    let { failure } = first;
    const encodes: number[] = [];
    let round = 0;
    const samples = await collect(settings.sampling, async () => {
      const result = await withoutCounting(() => run((++round % 2) as Variant));
      failure ??= result.failure;
      encodes.push(result.encode);
      return result.seconds;
    });
    const id = `train/${caseId(modelCase)}/batch-${batchSize}`;
    const base = { suite: 'train' as const, group: `Training, ${what}`, contender: 'ours', ...(failure !== undefined && { failure }) };
    const { flops, peakBytes } = training.plan.report;
    platform.report({
      ...base, id: `${id}/step`, title: 'step: features up, losses back', clock: 'wall', samples, images: batchSize, flops,
      values: { kernels, submits, peakBytes }, check: expected[0] ? 'f64 reference of loss and gradient norm' : 'loss and gradient norm are finite',
    });
    platform.report({ ...base, id: `${id}/encode`, title: 'encoding the command buffer', clock: 'cpu', samples: encodes });
  } finally {
    dispose();
  }
}
