/** The kernel variants of the patch embedding, all on the adapter at hand: a plan picks one by the adapter's family. */
import { expect, test } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { UsageError } from '../../src/errors.ts';
import type { Target } from '../../src/gpu/target.ts';
import { Executable } from '../../src/graph/executor.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { compile } from '../../src/graph/plan.ts';
import { input, sizeOf } from '../../src/graph/tensor.ts';
import { patchEmbedding } from '../../src/ops/index.ts';
import { expectClose } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';

const families: Target['family'][] = ['gpu', 'swiftshader'];
const shapes = [
  { image: [1, 3, 14, 14], channels: 5 }, { image: [2, 3, 126, 112], channels: 48 }, { image: [1, 3, 55, 25], channels: 67, patch: 5 },
];

test.each(families.flatMap((family) => shapes.map((s) => [family, JSON.stringify(s), s] as const)))('%s %s', async (family, _, { image, channels, patch = 14 }) => {
  const leaves = [input('image', image), input('weight', [channels, 3, patch, patch]), input('bias', [channels])] as const;
  const random = new Random('patch embedding');
  const feeds = Object.fromEntries(leaves.map((t) => [t.node.name, Float32Array.from({ length: sizeOf(t.shape) }, () => random.normal())]));
  const y = patchEmbedding(...leaves);
  const context = await testContext();
  const executable = await Executable.prepare(context, compile({ target: { ...context.target, family }, outputs: { y } }));
  const result = await executable.run(feeds);
  executable.dispose();
  expectClose(result.y!, interpret([y], new Map(Object.entries(feeds)))[0]!, { relL2: 2e-6, name: `patchEmbedding ${family}` });
});

test('an image that is not made of whole patches is refused', () => {
  const leaf = (name: string, shape: number[]) => input(name, shape);
  expect(() => patchEmbedding(leaf('image', [1, 3, 30, 28]), leaf('weight', [8, 3, 14, 14]), leaf('bias', [8]))).toThrow(UsageError);
  expect(() => patchEmbedding(leaf('image', [1, 1, 28, 28]), leaf('weight', [8, 3, 14, 14]), leaf('bias', [8]))).toThrow(/do not fit/);
});
