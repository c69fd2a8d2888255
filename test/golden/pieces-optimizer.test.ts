/** StableAdamW against the reference implementation: every step from the stored state before it, and all steps in a row. */
import { expect, test } from 'vitest';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { input, parameter, sizeOf } from '../../src/graph/tensor.ts';
import { DeviceMemory } from '../../src/gpu/memory.ts';
import * as ops from '../../src/ops/index.ts';
import { describeGolden, expectClose, float32, goldenJson, goldenTensors } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';

interface Case {
  lr: number[];
  grad_norm: number[];
  grad_clip: number;
  weight_decay: number;
  betas: [number, number];
  eps: number;
  clip_threshold: number;
  parameters: string[];
}

describeGolden('stable_adamw', () => {
  test.each([['each step from the stored state', false], ['all steps in a row', true]])('%s', async (_, freeRunning) => {
    const c = goldenJson<{ stable_adamw: Case }>('pieces/index.json').stable_adamw;
    const golden = goldenTensors('pieces/stable_adamw.safetensors');
    const shapes = c.parameters.map((name) => golden.get(`init.${name}`)!.shape);
    const { segments, total } = ops.flatSegments(shapes.map(sizeOf));
    const options = {
      beta1: c.betas[0], beta2: c.betas[1], epsilon: c.eps, weightDecay: c.weight_decay, clipNorm: c.grad_clip, clipThreshold: c.clip_threshold,
    };

    const gradients = ops.pack(c.parameters.map((name, i) => input(name, shapes[i]!)), segments.map((s) => s.offset), total);
    const norm = ops.gradientNorm([{ gradients, segments }]);
    const names = ['values', 'firstMoment', 'secondMoment', 'maxSecondMoment'] as const;
    const [values, firstMoment, secondMoment, maxSecondMoment] = names.map((name) => parameter(name, [total]));
    const schedule = input('schedule', [4]);
    const limits = ops.stableAdamW(
      { values: values!, firstMoment: firstMoment!, secondMoment: secondMoment!, maxSecondMoment: maxSecondMoment!, gradients, norm, schedule },
      { segments, ...options },
    );
    const context = await testContext();
    const memory = await DeviceMemory.allocate(context, 'state', names.map((name) => [name, 4 * total] as const));
    const executable = await Executable.prepare(context, compile({ target: context.target, outputs: { norm }, effects: [limits] }), memory.tensors);

    const goldenNames = { values: '', firstMoment: '.exp_avg', secondMoment: '.exp_avg_sq', maxSecondMoment: '.max_exp_avg_sq' };
    const store = (prefix: string) => {
      for (const name of names) {
        const flat = new Float32Array(total);
        if (prefix !== 'init' || name === 'values') {
          c.parameters.forEach((p, i) => flat.set(float32(golden, `${prefix}${goldenNames[name]}.${p}`), segments[i]!.offset));
        }
        memory.write(name, flat);
      }
    };
    store('init');
    for (let t = 1; t <= c.lr.length; t++) {
      if (!freeRunning && t > 1) store(`step${t - 1}`);
      const feeds = Object.fromEntries(c.parameters.map((p) => [p, float32(golden, `grad${t}.${p}`)]));
      const result = await executable.run({ ...feeds, schedule: ops.stableAdamWSchedule(t, c.lr[t - 1]!, options) });
      expect(Math.abs(result['norm']![0]! / c.grad_norm[t - 1]! - 1)).toBeLessThanOrEqual(5e-5);
      const state = await memory.read(names);
      for (const name of names) {
        c.parameters.forEach((p, i) => {
          const expected = float32(golden, `step${t}${goldenNames[name]}.${p}`);
          const actual = state.get(name)!.subarray(segments[i]!.offset, segments[i]!.offset + segments[i]!.length);
          const largest = expected.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
          expectClose(actual, expected, { ...(name === 'values' ? { maxAbs: 5e-7 * largest } : { relL2: 1e-5 }), name: `step ${t} ${name} ${p}` });
        });
      }
    }
    executable.dispose();
    memory.dispose();
  });
});
