/** Golden set: resampling, blur and score of single maps, and the whole way from cosine maps to scores. */
import { expect, test } from 'vitest';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { input, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import { gaussianBlur, gaussianWeights, meanOf, resample2d, reshape, topMean } from '../../src/ops/index.ts';
import type { ResampleKind } from '../../src/ops/resample-taps.ts';
import { describeGolden, expectClose, float32, goldenJson, goldenTensors } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';

async function run(outputs: Record<string, Tensor>, feeds: Record<string, TensorData>): Promise<Record<string, TensorData>> {
  const context = await testContext();
  const executable = await Executable.prepare(context, compile({ target: context.target, outputs }));
  try {
    return await executable.run(feeds);
  } finally {
    executable.dispose();
  }
}

describeGolden('maps', () => {
  const index = goldenJson<Record<string, Record<string, number[]>>>('pieces/index.json');
  const configs = ['tiny', 'odd'].map((name) => ({ name, config: goldenJson(`${name}/config.json`) }));
  const { gaussian, interpolate_offset: offset } = configs[0]!.config;

  const kinds: [pattern: RegExp, kind: ResampleKind][] = [
    [/^posembed_bicubic_/, 'bicubic'],
    [/^bilinear_align_true_/, 'bilinear-align-corners'],
    [/^bilinear_align_false_/, 'bilinear'],
    [/^nearest_/, 'nearest'],
  ];
  const cases = Object.keys(index).flatMap((name) => kinds.filter(([pattern]) => pattern.test(name)).map(([, kind]) => [name, kind] as const));
  test('holds every kind', () => expect(new Set(cases.map(([, kind]) => kind)).size).toBe(kinds.length));

  test.each(cases)('%s', async (name, kind) => {
    const tensors = goldenTensors(`pieces/${name}.safetensors`);
    const isGrid = kind === 'bicubic';
    const source = isGrid ? 'in.grid' : 'in.x';
    const shape = index[name]![source]!;
    const [outHeight, outWidth] = index[name]!['out.y']! as [number, number];
    const x = input('x', isGrid ? [1, ...shape] : shape);
    const y = resample2d(x, { outHeight, outWidth, kind, channelsLast: isGrid, ...(isGrid ? { offset } : {}) });
    const result = await run({ y }, { x: float32(tensors, source) });
    expectClose(result.y!, float32(tensors, 'out.y'), { relL2: 1e-5, maxAbs: 2e-5, name });
  });

  test('gaussian5', async () => {
    const tensors = goldenTensors('pieces/gaussian5.safetensors');
    const size = index.gaussian5!['out.kernel']![0]!;
    const weights = gaussianWeights({ size, sigma: gaussian.sigma });
    const kernel = Array.from({ length: size * size }, (_, i) => weights[Math.floor(i / size)]! * weights[i % size]!);
    expectClose(kernel, float32(tensors, 'out.kernel'), { maxAbs: 1e-8, name: 'kernel' });
    const result = await run({ y: gaussianBlur(input('x', index.gaussian5!['in.x']!), { size, sigma: gaussian.sigma }) }, { x: float32(tensors, 'in.x') });
    expectClose(result.y!, float32(tensors, 'out.y'), { relL2: 1e-5, maxOfRms: 1e-4, name: 'gaussian5' });
  });

  test('top1percent', async () => {
    const tensors = goldenTensors('pieces/top1percent.safetensors');
    const [batch, ...map] = index.top1percent!['in.x']! as [number, number, number];
    const pixels = map.reduce((a, b) => a * b);
    const result = await run({ score: topMean(reshape(input('x', [batch, ...map]), [batch, pixels]), { fraction: 0.01 }) }, { x: float32(tensors, 'in.x') });
    expectClose(result.score!, float32(tensors, 'out.score'), { maxAbs: 5e-6, name: 'top1percent' });
  });

  test.each(configs)('$name: from cosine maps to scores', async ({ name, config }) => {
    const tensors = goldenTensors(`${name}/forward.safetensors`);
    const { image, map_size: mapSize, tokens_side: side, batch } = config as Record<string, number>;
    const groups: number = config.fuse_layer_encoder.length;
    const upsampled = Array.from({ length: groups }, (_, g) =>
      resample2d(reshape(input(`cosmap${g}`, [batch!, side! * side!]), [batch!, side!, side!]), { outHeight: image!, outWidth: image!, kind: 'bilinear-align-corners' }));
    const up = meanOf(upsampled);
    const resized = resample2d(up, { outHeight: mapSize!, outWidth: mapSize!, kind: 'bilinear' });
    const final = gaussianBlur(resized, { size: config.gaussian.kernel, sigma: config.gaussian.sigma });
    const score = topMean(reshape(final, [batch!, mapSize! ** 2]));
    const feeds = Object.fromEntries(Array.from({ length: groups }, (_, g) => [`cosmap${g}`, float32(tensors, `cosmap${g}`)]));
    const result = await run({ up, resized, final, score }, feeds);
    for (const output of ['up', 'resized', 'final']) {
      expectClose(result[output]!, float32(tensors, `map.${output}`), { relL2: 1e-5, maxOfRms: 1e-4, name: `${name} map.${output}` });
    }
    expectClose(result.score!, float32(tensors, 'score'), { maxAbs: 5e-6, name: `${name} score` });
  });
});
