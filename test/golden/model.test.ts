/**
 * Golden set, the whole synthetic models: every forward tensor from the image on, every gradient, and training steps as
 * production runs them, against the reference implementation.
 */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { DeviceMemory } from '../../src/gpu/memory.ts';
import { Executable } from '../../src/graph/executor.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { compile } from '../../src/graph/plan.ts';
import { constant, input, parameter, sizeOf, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import { groupOutputs } from '../../src/inspect/group-maps.ts';
import { tokenGrid } from '../../src/model/config.ts';
import { reconstruct } from '../../src/model/detector.ts';
import { encode, encoderParameters } from '../../src/model/encoder.ts';
import { cachedFeatures, featureCount, flatGroups, inspectionGraph, sliceBatch, trainingGraph, trainingObjective, zeroShotScoring } from '../../src/model/graphs.ts';
import { uploadEncoder, uploadTrainables } from '../../src/model/memory.ts';
import { trainableItems, trainableLeaves, trainableShapes, type ParameterLeaves } from '../../src/model/parameters.ts';
import { scoreReconstruction, tokensToMap } from '../../src/model/scoring.ts';
import {
  add, channels, coherence, gradientNorm, hardMiningFactor, mean, pack, prototypeAttentionWeights, resampleBy, reshape, scale, scaleTokenGradient, stableAdamW,
  stableAdamWSchedule, vectorCosineLoss,
} from '../../src/ops/index.ts';
import { learningRateAt } from '../../src/train/schedule.ts';
import { TrainingStep } from '../../src/train/step.ts';
import { describeGolden, expectClose, float32, goldenTensors, maxAbsDifference, rms } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';
import {
  expectGradient, expectUpdate, featuresPerImage, modelGradients, gradientTolerance, keyBiasLength, loadModelCase, modelCases, narrowTarget, runGraph,
  sliceInputs, type ModelCase,
} from '../support/model.ts';

/** Lavapipe compiles a backward plan's hundred kernels for minutes where the machine is busy. */
const patience = 600_000;
const forwardTolerance = { relL2: 1e-5, maxOfRms: 1e-4 };
const lossTolerance = 5e-6;

describeGolden('whole model', () => {
  describe.each(modelCases())('%s', { timeout: patience }, (name) => {
    let model: ModelCase;
    let encoderMemory: DeviceMemory;
    let trainableMemory: DeviceMemory;
    /** Per image, what training takes: the encoder's own features. */
    let imageFeatures: Float32Array[];

    const imageInput = (): Tensor => input('image', model.forward.get('image')!.shape);
    const image = (): Record<string, TensorData> => ({ image: float32(model.forward, 'image') });
    const leaves = (): ParameterLeaves => trainableLeaves(model.config);
    const run = (outputs: Record<string, Tensor>) => runGraph(outputs, image(), [encoderMemory, trainableMemory]);

    beforeAll(async () => {
      model = await loadModelCase(name);
      const context = await testContext();
      encoderMemory = await uploadEncoder(context, model.encoder, model.config);
      trainableMemory = await uploadTrainables(context, model.trainables, model.config);
      const cached = cachedFeatures(encode(imageInput(), model.config), model.config);
      const values = await run(Object.fromEntries(cached.map((t, i) => [String(i), t])));
      imageFeatures = featuresPerImage(cached.map((_, i) => values[i]!), model.settings.batch);
    }, patience);

    afterAll(() => {
      encoderMemory?.dispose();
      trainableMemory?.dispose();
    });

    test('every forward tensor, from the image on', async () => {
      const { config, settings, forward, objective: options } = model;
      const features = encode(imageInput(), config);
      const { tokens, blocks, groups, fused } = features;
      const p = leaves();
      const objective = trainingObjective([features], p, config, options);
      const reconstruction = objective.reconstructions[0]!;
      const scoring = scoreReconstruction(groups, reconstruction.groups, config, settings.map_size);
      const near = coherence(fused, reconstruction.prototypes!);
      const zeroShot = zeroShotScoring({ features, reconstruction }, config, settings.map_size);
      const c = config.architecture.width;
      const outputs: Record<string, Tensor> = {
        tokens, x: fused, P: reconstruction.prototypes!, 'bottleneck.out': reconstruction.bottleneck,
        'coherence.all': near.all, 'coherence.distance': near.distance, 'coherence.index': near.index,
        'loss.cos': objective.cosine, 'loss.Lc': objective.coherence!, 'loss.total': objective.loss,
        'map.up': scoring.upsampled, 'map.resized': scoring.resized, 'map.final': scoring.map, score: scoring.score,
        'zeroshot.map': zeroShot.map, 'zeroshot.score': zeroShot.score,
      };
      blocks.forEach((block, i) => { outputs[`enc.${i}.out`] = block; });
      groups.forEach((en, g) => { outputs[`en${g}`] = en; });
      reconstruction.groups.forEach((de, g) => { outputs[`de${g}`] = de; });
      scoring.tokenMaps.forEach((map, g) => { outputs[`cosmap${g}`] = map; });
      objective.groupLosses.forEach((loss, g) => { outputs[`loss.cos${g}`] = loss; });
      reconstruction.decoder.forEach(({ query, keyValue, attended, output }, i) => {
        outputs[`dec.${i}.A`] = prototypeAttentionWeights({
          query: channels(query), key: channels(keyValue, 0, c), learnScale: p.get(`decoder.${i}.attn.learn_scale`), numHeads: settings.heads,
        });
        outputs[`dec.${i}.attn_out`] = attended;
        outputs[`dec.${i}.out`] = output;
      });
      const results = await run(outputs);
      results.pos_embed = encoderParameters(model.encoder, config).get('position')!;
      const margins = rowMargins(results['coherence.all']!, settings.INP_num);
      results['coherence.margin'] = margins;
      results.image = float32(forward, 'image');
      expect(Object.keys(results).sort()).toEqual([...forward.keys()].sort());

      const goldenMargins = float32(forward, 'coherence.margin');
      for (const [tensor, values] of Object.entries(results)) {
        if (tensor === 'coherence.index') {
          const expected = forward.get(tensor)!.data;
          const clear = [...expected.keys()].filter((i) => goldenMargins[i]! > 1e-5);
          expect(clear.map((i) => values[i])).toEqual(clear.map((i) => expected[i]));
        } else if (/^loss\.|score$/.test(tensor)) {
          expectClose(values, float32(forward, tensor), { maxAbs: lossTolerance, name: tensor });
        } else {
          expectClose(values, float32(forward, tensor), { ...forwardTolerance, name: tensor });
        }
      }
    });

    test('map and score from the plan that inspection runs, where nothing between is kept', async () => {
      const { config, settings, forward } = model;
      const { scoring } = inspectionGraph(imageInput(), config, settings.map_size);
      const { map, score } = await run({ map: scoring.map, score: scoring.score });
      expectClose(map!, float32(forward, 'map.final'), { ...forwardTolerance, name: 'map.final' });
      expectClose(score!, float32(forward, 'score'), { maxAbs: lossTolerance, name: 'score' });
    });

    test('the map by group: each as its errors\' own way through the reference gives it, their mean the map', async () => {
      const { config, settings, forward } = model;
      const maps = await run(groupOutputs(inspectionGraph(imageInput(), config, settings.map_size), config, settings.map_size));
      const { rows, columns } = tokenGrid(config);
      const side = settings.map_size;
      const [vertical, horizontal] = [[rows, config.crop.height], [columns, config.crop.width]].map(([tokens, crop]) => tokensToMap(tokens!, crop!, side));
      const ofGroups = config.encoderGroups.map((_, g) => {
        const errors = constant('errors', [settings.batch, rows, columns], float32(forward, `cosmap${g}`));
        const [expected] = interpret([resampleBy(errors, { vertical: vertical!, horizontal: horizontal! })], new Map());
        expectClose(maps[`groupMap.${g}`]!, Float32Array.from(expected!), { ...forwardTolerance, name: `groupMap.${g}` });
        return maps[`groupMap.${g}`]!;
      });
      const mean = Float32Array.from(ofGroups[0]!, (_, i) => ofGroups.reduce((sum, values) => sum + values[i]!, 0) / ofGroups.length);
      expectClose(mean, float32(forward, 'map.final'), { ...forwardTolerance, name: 'map.final' });
    });

    test('every gradient of the training objective, from the image on', async () => {
      const { config, objective: options } = model;
      const golden = goldenTensors(`${name}/backward.safetensors`);
      const p = leaves();
      const { loss, reconstructions: [reconstruction] } = trainingObjective([encode(imageInput(), config)], p, config, options);
      const { byTensor: gradients, ofLeaf } = modelGradients(loss, p, {
        'act.P': reconstruction!.prototypes!, 'act.bottleneck.out': reconstruction!.bottleneck,
        ...Object.fromEntries(reconstruction!.decoder.map(({ output }, i) => [`act.dec.${i}.out`, output])),
      });
      const groups = flatGroups(trainableItems(config), (await testContext()).target);
      const norm = gradientNorm(groups.map(({ leaves: own, segments, total }) => ({
        segments, gradients: pack(own.map(({ name: leaf }) => ofLeaf(leaf)), own.map(({ offset }) => offset), total),
      })));
      const results = await run({ ...gradients, norm });
      expectNorm(results.norm!, float32(golden, 'grad_norm')[0]!);
      const stored = [...golden.keys()].filter((key) => /^(param|act)\./.test(key)).sort();
      expect(Object.keys(gradients).sort()).toEqual(stored);
      for (const key of stored) {
        if (key.startsWith('param.')) expectGradient(key.slice(6), results[key]!, float32(golden, key), config);
        else expectClose(results[key]!, float32(golden, key), { ...gradientTolerance, name: key });
      }
    });

    test('soft mining as a hook on the decoder\'s features gives the same: before, after, its weights, and the gradients behind it', async () => {
      const { config, settings } = model;
      const golden = goldenTensors(`${name}/backward.safetensors`);
      const p = leaves();
      const { groups, fused } = encode(imageInput(), config);
      const reconstruction = reconstruct(fused, p, config);
      const factors: Record<string, Tensor> = {};
      const wanted: Record<string, Tensor> = {};
      const losses = groups.map((en, g) => {
        const de = reconstruction.groups[g]!;
        // A tensor of its own, so that its gradient is the hook's and not that of all uses of a decoder block.
        const own = reshape(reshape(de, [sizeOf(de.shape)]), de.shape);
        const factor = hardMiningFactor(en, own, { power: settings.hook_power });
        const hooked = scaleTokenGradient(own, factor);
        factors[`factor${g}`] = factor;
        wanted[`de${g}`] = own;
        wanted[`de${g}.before_hook`] = hooked;
        return vectorCosineLoss(en, hooked);
      });
      const loss = add(scale(losses.reduce(add), 1 / losses.length), scale(mean(coherence(fused, reconstruction.prototypes!).distance), settings.lambda_Lc));
      const results = await run({ ...factors, ...modelGradients(loss, p, wanted).byTensor });
      expect(Object.keys(results).sort()).toEqual([...golden.keys()].filter((key) => /^(de\d|factor|param)/.test(key)).sort());
      for (const [key, values] of Object.entries(results)) {
        if (key.startsWith('param.')) expectGradient(key.slice(6), values, float32(golden, key), config);
        else expectClose(values, float32(golden, key), { ...gradientTolerance, name: key });
      }
    });

    test('losses and gradients of the training graph, the batch whole and in slices', async () => {
      const { config, settings, objective: options } = model;
      const golden = goldenTensors(`${name}/backward.safetensors`);
      const { target } = await testContext();
      const narrow = narrowTarget(config, target);
      // The model is so small that a batch may fit into one slice whatever the target: an image repeated changes no mean.
      let repeats = 1;
      while (sliceBatch(config, settings.batch * repeats, narrow).length < 2) repeats++;
      for (const { on, images } of [{ on: target, images: imageFeatures }, { on: narrow, images: imageFeatures.flatMap((f) => Array<Float32Array>(repeats).fill(f)) }]) {
        const graph = trainingGraph(config, images.length, on, options);
        expect(graph.slices.length > 1).toBe(on === narrow);
        const { loss, cosine, coherence: Lc, groupLosses } = graph.objective;
        const outputs: Record<string, Tensor> = { 'loss.total': loss, 'loss.cos': cosine, 'loss.Lc': Lc! };
        groupLosses.forEach((t, g) => { outputs[`loss.cos${g}`] = t; });
        const gradients = Object.fromEntries([...graph.gradients].map(([tensor, t]) => [`param.${tensor}`, t]));
        const results = await runGraph(
          { ...outputs, ...gradients, norm: graph.norm }, sliceInputs(images, graph.slices, cachedTensors(model)), [trainableMemory], on,
        );
        for (const key of Object.keys(outputs)) expectClose(results[key]!, float32(model.forward, key), { maxAbs: lossTolerance, name: key });
        expectNorm(results.norm!, float32(golden, 'grad_norm')[0]!);
        for (const key of Object.keys(gradients)) expectGradient(key.slice(6), results[key]!, float32(golden, key), config);
      }
    });

    test('training steps as production runs them, one submit each', async () => {
      const { config, settings: { optim, batch }, trainables } = model;
      const golden = goldenTensors(`${name}/optim.safetensors`);
      const stored = (prefix: string) => new Map([...trainables.keys()].map((tensor) => [tensor, float32(golden, `${prefix}.${tensor}`)]));
      const context = await testContext();
      const step = await TrainingStep.create(context, config, batch, { values: new Map(trainables) });
      const submit = vi.spyOn(context.device.queue, 'submit');
      try {
        for (const [i, lr] of optim.lr.entries()) {
          const scheduled = learningRateAt(i, { base: optim.base_lr, final: optim.final_lr, warmupSteps: optim.warmup_iters, totalSteps: optim.total_iters });
          expect(Math.abs(scheduled - lr)).toBeLessThanOrEqual(1e-12);
          submit.mockClear();
          const { loss, cosine, coherence: Lc, norm } = await step.run(imageFeatures, i + 1, scheduled);
          expect(submit).toHaveBeenCalledTimes(1);
          expect(step.submits).toBe(i + 1);
          expectClose([loss, cosine, Lc!], [optim.loss_total[i]!, optim.loss_cos[i]!, optim.loss_Lc[i]!], { maxAbs: 1e-5, name: `losses of step ${i + 1}` });
          expectNorm([norm], optim.grad_norm[i]!);
          expectUpdate(`step ${i + 1}`, trainables, (await step.readState()).values, stored(`step${i + 1}`), config);
        }
        const state = await step.readState();
        for (const [kind, key] of Object.entries(momentNames)) {
          // The same measure as for the parameters: the error of all tensors together.
          const expected = stored(`state.${key}`);
          const errors: number[] = [];
          const sizes: number[] = [];
          for (const [tensor, values] of state[kind as keyof typeof momentNames]) {
            for (let j = keyBiasLength(tensor, config); j < values.length; j++) {
              errors.push(values[j]! - expected.get(tensor)![j]!);
              sizes.push(expected.get(tensor)![j]!);
            }
          }
          expect(rms(errors), kind).toBeLessThanOrEqual(1e-3 * rms(sizes));
        }
      } finally {
        submit.mockRestore();
        step.dispose();
      }
    });

    test('the optimiser, given the stored gradients', async () => {
      const { config, settings: { optim }, trainables } = model;
      const golden = goldenTensors(`${name}/optim.safetensors`);
      const stored = goldenTensors(`${name}/optim_grads.safetensors`);
      const context = await testContext();
      const groups = flatGroups(trainableItems(config), context.target);
      const shapes = trainableShapes(config);
      const kinds = ['values', ...Object.keys(momentNames)] as const;
      const places = (kind: string) => groups.map((group, g) => [`${kind}.${g}`, group.total * 4] as const);
      const flat = groups.map(({ names, segments, total }) => pack(names.map((tensor) => input(tensor, shapes.get(tensor)!)), segments.map((s) => s.offset), total));
      const norm = gradientNorm(groups.map(({ segments }, g) => ({ gradients: flat[g]!, segments })));
      const schedule = input('schedule', [4]);
      const effects = groups.map(({ segments, total }, g) => {
        const [values, firstMoment, secondMoment, maxSecondMoment] = kinds.map((kind) => parameter(`${kind}.${g}`, [total])) as [Tensor, Tensor, Tensor, Tensor];
        return stableAdamW({ values, firstMoment, secondMoment, maxSecondMoment, gradients: flat[g]!, norm, schedule }, { segments });
      });
      const memory = await DeviceMemory.allocate(context, 'optimiser', kinds.flatMap(places));
      const executable = await Executable.prepare(context, compile({ target: context.target, outputs: { norm }, effects }), memory.tensors);
      groups.forEach(({ names, segments, total }, g) => {
        const values = new Float32Array(total);
        names.forEach((tensor, i) => values.set(trainables.get(tensor)!, segments[i]!.offset));
        memory.write(`values.${g}`, values);
      });
      const read = async (kind: string): Promise<Map<string, Float32Array>> => {
        const whole = await memory.read(places(kind).map(([key]) => key));
        return new Map(groups.flatMap(({ names, segments }, g) => names.map((tensor, i) => {
          const { offset, length } = segments[i]!;
          return [tensor, whole.get(`${kind}.${g}`)!.subarray(offset, offset + length)] as const;
        })));
      };

      for (const [i, lr] of optim.lr.entries()) {
        const gradients = Object.fromEntries([...shapes.keys()].map((tensor) => [tensor, float32(stored, `step${i + 1}.${tensor}`)]));
        const results = await executable.run({ ...gradients, schedule: stableAdamWSchedule(i + 1, lr) });
        expectNorm(results.norm!, optim.grad_norm[i]!);
        for (const [tensor, values] of await read('values')) {
          const zeros = keyBiasLength(tensor, config);
          const expected = float32(golden, `step${i + 1}.${tensor}`).subarray(zeros);
          const largest = maxAbsDifference(expected, new Float32Array(expected.length));
          expectClose(values.subarray(zeros), expected, { maxAbs: 5e-7 * largest, name: `step ${i + 1} ${tensor}` });
        }
      }
      for (const [kind, key] of Object.entries(momentNames)) {
        for (const [tensor, values] of await read(kind)) {
          const zeros = keyBiasLength(tensor, config);
          expectClose(values.subarray(zeros), float32(golden, `state.${key}.${tensor}`).subarray(zeros), { relL2: 1e-5, name: `${kind} of ${tensor}` });
        }
      }
      executable.dispose();
      memory.dispose();
    });
  });
});

/** What the optimiser's moments are called in the golden set. */
const momentNames = { firstMoment: 'exp_avg', secondMoment: 'exp_avg_sq', maxSecondMoment: 'max_exp_avg_sq' } as const;

function cachedTensors({ config }: ModelCase): number {
  return featureCount(config) / (tokenGrid(config).count * config.architecture.width);
}

function expectNorm([norm]: ArrayLike<number> & Iterable<number>, expected: number): void {
  expect(Math.abs(norm! / expected - 1), `gradient norm ${norm}, expected ${expected}`).toBeLessThanOrEqual(5e-5);
}

/** Second smallest minus smallest of each row. */
function rowMargins(rows: TensorData, columns: number): Float32Array {
  return Float32Array.from({ length: rows.length / columns }, (_, r) => {
    const [best, second] = [...rows.subarray(r * columns, (r + 1) * columns)].sort((a, b) => a - b);
    return second! - best!;
  });
}
