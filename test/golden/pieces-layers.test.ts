/** Layer norm, GELU and the linear layer against the reference implementation: outputs and gradients. */
import { expect, test } from 'vitest';
import * as ops from '../../src/ops/index.ts';
import { describeGolden, goldenJson } from '../support/golden.ts';
import { runPiece, type Shapes } from '../support/piece.ts';

describeGolden('layers', () => {
  test('layer norm, each epsilon of the set', async () => {
    const pieces = Object.keys(goldenJson<Shapes>('pieces/index.json')).filter((name) => name.startsWith('layernorm_'));
    expect(pieces.length).toBeGreaterThan(0);
    for (const piece of pieces) {
      // Rows that hardly vary lose digits in f32 whatever is done: golden/README.md allows them more.
      const forward = piece.includes('lowvar') ? { relL2: 1e-4 } : undefined;
      const epsilon = Number(piece.split('_').at(-1));
      await runPiece(piece, ({ x, weight, bias }) => ({ outputs: { y: ops.layerNorm(x!, weight!, bias!, epsilon) }, from: 'y' }), forward);
    }
  });

  test('gelu', async () => {
    await runPiece('gelu', ({ x }) => ({ outputs: { y: ops.gelu(x!) }, from: 'y' }));
  });

  test('linear', async () => {
    await runPiece('linear', ({ x, weight, bias }) => ({ outputs: { y: ops.linear(x!, weight!, bias!) }, from: 'y' }));
  });
});
