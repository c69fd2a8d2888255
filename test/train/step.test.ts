// One training step on the adapter at hand: one submit, right sizes, state that can be read and put back.
import { describe, expect, it, vi } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { UsageError } from '../../src/errors.ts';
import { detectorConfig } from '../../src/model/config.ts';
import { featureCount } from '../../src/model/graphs.ts';
import { planTrainingStep, TrainingStep } from '../../src/train/step.ts';
import { initialTrainables } from '../../src/train/trainables.ts';
import { testContext } from '../support/gpu.ts';
import { smallArchitecture } from '../support/small-encoder.ts';

const options = { architecture: smallArchitecture, crop: 70, decoderDepth: 2, numPrototypes: 3 };
const config = detectorConfig(options);
const featuresFor = (c: typeof config, count: number) => {
  const random = new Random('features');
  return Array.from({ length: count }, () => Float32Array.from({ length: featureCount(c) }, () => random.normal()));
};

describe('a training step', () => {
  it('is one submit, lowers the loss, and can be taken up where it stood', async () => {
    const context = await testContext();
    const before = context.allocatedBytes;
    const features = featuresFor(config, 2);
    const step = await TrainingStep.create(context, config, 2, { values: initialTrainables(config, 1) });
    const submit = vi.spyOn(context.device.queue, 'submit');
    const first = await step.run(features, 1, 0);
    expect(submit).toHaveBeenCalledTimes(1);
    submit.mockRestore();
    expect(first.loss).toBeCloseTo(first.cosine + 0.2 * first.coherence!, 5);
    expect(first.norm).toBeGreaterThan(0);
    expect((await step.readState()).values).toEqual(initialTrainables(config, 1)); // rate 0 changes moments alone
    for (let t = 2; t <= 12; t++) await step.run(features, t, 1e-3);
    const state = await step.readState();
    const next = await step.run(features, 13, 1e-3);
    expect(next.loss).toBeLessThan(first.loss);
    expect(step.submits).toBe(13);
    const again = await TrainingStep.create(context, config, 2, state);
    expect(await again.run(features, 13, 1e-3)).toEqual(next);
    expect(await again.readState()).toEqual(await step.readState());
    step.dispose();
    again.dispose();
    expect(context.allocatedBytes).toBe(before);
  });

  it('in slices does what the whole batch does', async () => {
    const context = await testContext();
    const batch = 2; // as in the other tests, which share the pipelines
    const features = featuresFor(config, batch);
    const perImage = 4 * 25 * 4 * config.architecture.width;
    const narrow = { ...context.target, maxStorageBufferBindingSize: 17_000, maxBufferSize: 17_000 };
    expect(perImage * batch).toBeGreaterThan(17_000);
    const { slices, plan } = planTrainingStep(config, batch, narrow);
    expect(slices).toEqual([1, 1]);
    expect(plan.report.largestBinding).toBeLessThanOrEqual(17_000);
    const narrowContext = Object.assign(Object.create(context) as typeof context, { target: narrow });
    const results = [];
    for (const c of [context, narrowContext]) {
      const step = await TrainingStep.create(c, config, batch, { values: initialTrainables(config, 1) });
      const losses = [];
      for (let t = 1; t <= 3; t++) losses.push(await step.run(features, t, 1e-3));
      results.push(losses);
      step.dispose();
    }
    const [whole, sliced] = results as [typeof results[0], typeof results[0]];
    whole.forEach((expected, t) => {
      expect(sliced[t]!.loss).toBeCloseTo(expected.loss, 5);
      expect(Math.abs(sliced[t]!.norm / expected.norm - 1)).toBeLessThan(1e-3);
    });
  });

  it('short of memory computes cheap tensors twice, and gives the same bits', async () => {
    const context = await testContext();
    const features = featuresFor(config, 2);
    const [roomy, tight] = [{}, { memoryBudget: 0 }].map((options) => planTrainingStep(config, 2, context.target, options).plan.report);
    expect(tight!.kernels).toBeGreaterThan(roomy!.kernels);
    expect(tight!.peakBytes).toBeLessThan(roomy!.peakBytes);
    const results = [];
    for (const options of [{}, { memoryBudget: 0 }]) {
      const step = await TrainingStep.create(context, config, 2, { values: initialTrainables(config, 1) }, options);
      for (let t = 1; t <= 2; t++) await step.run(features, t, 1e-3);
      results.push(await step.readState());
      step.dispose();
    }
    expect(results[1]).toEqual(results[0]);
  });

  it('takes the fused feature too where a tap is in two groups', async () => {
    const overlapping = detectorConfig({ ...options, encoderGroups: [[0, 1, 2], [2, 3]], decoderGroups: [[0], [1]] });
    const count = featureCount(overlapping);
    expect(count).toBe(3 * 25 * 32);
    const step = await TrainingStep.create(await testContext(), overlapping, 2, { values: initialTrainables(overlapping, 1) });
    const { loss } = await step.run(featuresFor(overlapping, 2), 1, 1e-3);
    expect(loss).toBeGreaterThan(0);
    step.dispose();
  });

  it('refuses another number of images, and frees its memory where it can\'t be made', async () => {
    const context = await testContext();
    const before = context.allocatedBytes;
    const step = await TrainingStep.create(context, config, 2, { values: initialTrainables(config, 1) });
    await expect(step.run(featuresFor(config, 3), 1, 0)).rejects.toThrow(/takes 2 images, got 3/);
    step.dispose();
    const wrong = new Map([['prototype_token', new Float32Array(5)]]);
    await expect(TrainingStep.create(context, config, 2, { values: wrong })).rejects.toThrow(UsageError);
    expect(context.allocatedBytes).toBe(before);
  });
});
