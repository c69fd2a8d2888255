/** Golden set: Pillow's resize to the byte on the GPU, and the chain from pixels to the encoder's input. */
import { describe, expect, test } from 'vitest';
import type { RasterImage } from '../../src/data/image.ts';
import { preprocess } from '../../src/data/preprocess.ts';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { normalizeCrop, resizeAntialiased, resizeCapacity, resizeInputs, resizeInputTensors } from '../../src/ops/index.ts';
import { describeGolden, expectClose, float32, goldenJson, goldenTensors } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';

/** One compiled plan for all sources of a capacity. */
async function makeResizer(sources: readonly RasterImage[], output: { width: number; height: number }, crop?: { cropWidth: number; cropHeight: number; mean: [number, number, number]; std: [number, number, number] }) {
  const context = await testContext();
  const capacity = resizeCapacity({ width: Math.max(...sources.map((s) => s.width)), height: Math.max(...sources.map((s) => s.height)) }, output);
  const resized = resizeAntialiased(resizeInputTensors(capacity, output), { ...output, rows: capacity.rows });
  const outputs = { resized, ...(crop ? { normalised: normalizeCrop(resized, { ...output, ...crop }) } : {}) };
  const executable = await Executable.prepare(context, compile({ target: context.target, outputs }));
  return {
    dispose: () => executable.dispose(),
    run: (source: RasterImage) => executable.run(resizeInputs(source, capacity, output)),
  };
}

describeGolden('image input', () => {
  const index = goldenJson('resample/index.json');
  const tensors = goldenTensors('resample/resample.safetensors');
  const raster = (name: string): RasterImage => {
    const { shape, data } = tensors.get(name)!;
    return { width: shape[1]!, height: shape[0]!, channels: (shape[2] ?? 1) as 1 | 3, data: data as Uint8Array };
  };
  const channel = (packed: ArrayLike<number>, c: number): number[] => Array.from(packed, (pixel) => (pixel >>> (8 * c)) & 255);

  interface Case { name: string; dst_w: number; dst_h: number }
  const bySize = new Map<string, Case[]>();
  for (const c of index.cases as Case[]) {
    const size = `${c.dst_w} x ${c.dst_h}`;
    bySize.set(size, [...(bySize.get(size) ?? []), c]);
  }
  describe.each([...bySize])('resize to %s, one plan for all sources', (_, cases) => {
    test(cases.map((c) => c.name).join(', '), async () => {
      const output = { width: cases[0]!.dst_w, height: cases[0]!.dst_h };
      const resizer = await makeResizer(cases.map((c) => raster(`${c.name}.src`)), output);
      for (const { name } of cases) {
        const { resized } = await resizer.run(raster(`${name}.src`));
        const expected = raster(`${name}.dst`);
        for (const c of [0, 1, 2]) {
          const from = expected.channels === 1 ? 0 : c;
          const plane = Array.from({ length: output.width * output.height }, (_, i) => expected.data[i * expected.channels + from]!);
          expect(channel(resized!, c), `${name}, channel ${c}`).toEqual(plane);
        }
        expect(channel(resized!, 3).every((alpha) => alpha === 255)).toBe(true);
      }
      resizer.dispose();
    });
  });

  test.each([['chain', 'chain'], ['chain64', 'chain64']])('%s: pixels to the encoder\'s input, the bits of the CPU path', async (_, name) => {
    const { mean, std } = index.chain;
    const { resize, crop } = index[name];
    const source = raster('chain.src');
    const resizer = await makeResizer([source], { width: resize, height: resize }, { cropWidth: crop, cropHeight: crop, mean, std });
    const { normalised } = await resizer.run(source);
    resizer.dispose();
    const [, rows, columns] = tensors.get(`${name}.input`)!.shape as [number, number, number];
    const step = Math.ceil(crop / rows);
    const sampled = Float32Array.from({ length: 3 * rows * columns }, (_, i) => {
      const [c, y, x] = [Math.floor(i / (rows * columns)), Math.floor(i / columns) % rows, i % columns];
      return normalised![(c * crop + y * step) * crop + x * step]!;
    });
    expectClose(sampled, float32(tensors, `${name}.input`), { maxAbs: 1e-6, name });
    expect(Buffer.from(normalised!.buffer, normalised!.byteOffset, normalised!.byteLength).equals(
      Buffer.from(preprocess(source, { resize, crop, mean, std }).buffer),
    )).toBe(true);
  });

  test('a source above the capacity is refused', () => {
    const output = { width: 64, height: 64 };
    const capacity = resizeCapacity({ width: 100, height: 60 }, output);
    const image = (width: number, height: number): RasterImage => ({ width, height, channels: 1, data: new Uint8Array(width * height) });
    for (const [width, height] of [[128, 64], [90, 64]]) expect(resizeInputs(image(width!, height!), capacity, output)['image.pixels']).toHaveLength(capacity.pixels);
    for (const [width, height] of [[200, 20], [20, 200], [128, 65]]) {
      expect(() => resizeInputs(image(width!, height!), capacity, output)).toThrow(/above the capacity/);
    }
  });
});
