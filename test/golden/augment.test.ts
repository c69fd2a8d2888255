/** Golden set: the 22 views that the reference makes of a shot. */
import { expect, test } from 'vitest';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { input } from '../../src/graph/tensor.ts';
import { viewValues } from '../../src/model/image-stage.ts';
import { viewLength, warpImage } from '../../src/ops/warp-image.ts';
import { fewShotViews } from '../../src/train/few-shot.ts';
import { describeGolden, expectClose, float32, goldenJson, goldenTensors } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';

describeGolden('augment', () => {
  test('every view of the normalised crop', async () => {
    const { names, size } = goldenJson<{ names: string[]; size: number }>('augment/index.json');
    const tensors = goldenTensors('augment/augment.safetensors');
    const image = float32(tensors, 'image');
    const identity = { matrix: [1, 0, 0, 1] as const };
    const views = fewShotViews.map(({ view }) => viewValues(view ?? identity, { width: size, height: size }));
    expect(views).toHaveLength(names.length);
    const context = await testContext();
    const executable = await Executable.prepare(context, compile({
      target: context.target, outputs: { y: warpImage(input('image', [1, 3, size, size]), input('views', [names.length, viewLength])) },
    }));
    const { y } = await executable.run({ image, views: Float32Array.from(views.flatMap((v) => [...v])) });
    executable.dispose();
    const expected = float32(tensors, 'augmented');
    const each = image.length;
    names.forEach((name, i) => {
      const actual = y!.subarray(i * each, (i + 1) * each);
      expectClose(actual, expected.subarray(i * each, (i + 1) * each), { maxAbs: name.startsWith('rot') && name.endsWith('0') || name.includes('ccw') ? 1e-4 : 5e-5, name });
      // Every source pixel once, none interpolated.
      if (/^rot\d|hflip|original/.test(name)) expect(Float32Array.from(actual).sort(), name).toEqual(Float32Array.from(image).sort());
    });
  });
});
