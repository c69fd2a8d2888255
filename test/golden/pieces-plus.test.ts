/**
 * Golden set, what INP-Former++ adds: soft coherence, both branches of the soft mining, the residual, the segmentation head
 * and the Dice loss. The set has images as NCHW and transposed convolutions as [in, out, k, k], the last layer as a
 * convolution [out, in, 3, 3]; the engine has tokens [B, N, C] and [in, k, k, out].
 */
import { expect, test } from 'vitest';
import { differentiate } from '../../src/graph/autograd.ts';
import { Executable } from '../../src/graph/executor.ts';
import { compile } from '../../src/graph/plan.ts';
import { input, type Tensor } from '../../src/graph/tensor.ts';
import { add, cosineMap, mean, meanOverAll, powerOfRatio, scale } from '../../src/ops/index.ts';
import * as plus from '../../src/ops/plus.ts';
import { segmentationHead } from '../../src/model/segmentation-head.ts';
import { describeGolden, expectClose, float32, goldenJson, goldenTensors, maxAbsDifference } from '../support/golden.ts';
import { testContext } from '../support/gpu.ts';
import { runPiece, type Shapes } from '../support/piece.ts';

const groupsOf = (inputs: Record<string, Tensor>) => Object.keys(inputs).filter((k) => k.startsWith('en')).map((k) => ({ en: inputs[k]!, de: inputs[`de${k.slice(2)}`]! }));

/** A view of the same numbers with the dimensions in another order: `order[i]` is the old place of the new dimension i. */
function permute(data: Float32Array, shape: readonly number[], order: readonly number[]): Float32Array {
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const result = new Float32Array(data.length);
  const newShape = order.map((i) => shape[i]!);
  for (let at = 0; at < data.length; at++) {
    let [rest, from] = [at, 0];
    for (let d = newShape.length - 1; d >= 0; d--) {
      from += (rest % newShape[d]!) * strides[order[d]!]!;
      rest = Math.floor(rest / newShape[d]!);
    }
    result[at] = data[from]!;
  }
  return result;
}

/** A 3x3 kernel turned half around, [.., 9, ..]: the last layer's convolution as a transposed one. */
const turned = (data: Float32Array, channels: number): Float32Array => data.map((_, i) => data[Math.floor(i / 9) * 9 + (8 - (i % 9))]!).subarray(0, channels * 9);

describeGolden('INP-Former++', () => {
  test('coherence_soft', async () => {
    const { results, golden } = await runPiece('coherence_soft', ({ x, P }) => {
      const { weights, mixture } = plus.softCoherence(x!, P!);
      return { outputs: { L: plus.softCoherenceLoss([{ x: x!, prototypes: P! }]), _w: weights, _fhat: mixture }, from: 'L' };
    });
    expect(maxAbsDifference(results['L']!, float32(golden, 'out.L'))).toBeLessThanOrEqual(5e-6);
  });

  test('pp_soft_mining', async () => {
    const { results, golden } = await runPiece('pp_soft_mining', (inputs) => {
      const groups = groupsOf(inputs);
      const branches = groups.map((g) => plus.softMiningLosses([g]));
      const loss = scale(branches.map(({ cosine, squaredError }) => add(cosine, squaredError)).reduce(add), 1 / groups.length);
      const outputs: Record<string, Tensor> = { loss };
      groups.forEach(({ en, de }, g) => {
        const maps = { cos: cosineMap(en, de), mse: plus.tokenSquaredError(en, de) };
        outputs[`_cos${g}`] = branches[g]!.cosine;
        outputs[`_mse${g}`] = branches[g]!.squaredError;
        for (const [name, map] of Object.entries(maps)) {
          outputs[`_map${name}${g}`] = map;
          outputs[`_w${name}${g}`] = powerOfRatio(map, meanOverAll([map]), 3);
        }
      });
      return { outputs, from: 'loss' };
    });
    expect(maxAbsDifference(results['loss']!, float32(golden, 'out.loss'))).toBeLessThanOrEqual(5e-6);
  });

  test('pp_residual', async () => {
    const shapes = goldenJson<Shapes>('pieces/index.json')['pp_residual']!;
    const golden = goldenTensors('pieces/pp_residual.safetensors');
    const inputs = Object.fromEntries(Object.keys(shapes).filter((k) => k.startsWith('in.')).map((k) => [k.slice(3), input(k, shapes[k]!)]));
    const context = await testContext();
    const residual = plus.residual(groupsOf(inputs));
    const executable = await Executable.prepare(context, compile({ target: context.target, outputs: { residual } }));
    const result = await executable.run(Object.fromEntries(Object.keys(inputs).map((name) => [`in.${name}`, float32(golden, `in.${name}`)])));
    executable.dispose();
    expectClose(result['residual']!, float32(golden, 'out._residual'), { relL2: 1e-5, maxOfRms: 1e-4, name: 'pp_residual' });
    expect(() => differentiate([{ tensor: residual, gradient: input('seed', residual.shape) }], [inputs['de0']!], add)).toThrow(/does not depend on in\.de0/);
  });

  test('pp_seg_head', async () => {
    const shapes = goldenJson<Shapes>('pieces/index.json')['pp_seg_head']!;
    const golden = goldenTensors('pieces/pp_seg_head.safetensors');
    const [batch, c, rows, columns] = shapes['in.x']! as [number, number, number, number];
    const [c1, c2] = [shapes['in.b1']![0]!, shapes['in.b2']![0]!];
    const x = input('x', [batch, rows * columns, c]);
    const weights: Record<string, Tensor> = {
      'head.0.weight': input('head.0.weight', [c, 4, 4, c1]), 'head.0.bias': input('head.0.bias', [c1]),
      'head.1.weight': input('head.1.weight', [c1, 4, 4, c2]), 'head.1.bias': input('head.1.bias', [c2]),
      'head.2.weight': input('head.2.weight', [c2, 3, 3, 1]), 'head.2.bias': input('head.2.bias', [1]),
    };
    const head = segmentationHead(x, (name) => weights[name]!, { rows, columns });
    const wanted = { x, ...weights };
    const gradients = differentiate([{ tensor: head.probability, gradient: input('seed', head.probability.shape) }], Object.values(wanted), add);
    const layout = (name: string, prefix: 'in' | 'grad'): Float32Array => {
      const layer = Number(name.split('.')[1]) + 1;
      const stored = name === 'x' ? `${prefix}.x` : `${prefix}.${name.endsWith('bias') ? 'b' : 'w'}${layer}`;
      const data = float32(golden, stored);
      if (name === 'x') return permute(data, [batch, c, rows * columns], [0, 2, 1]);
      if (name.endsWith('bias')) return data;
      if (layer === 3) return permute(turned(data, c2), [1, c2, 9], [1, 2, 0]);
      return permute(data, shapes[`in.w${layer}`]!, [0, 2, 3, 1]);
    };
    const context = await testContext();
    const outputs = { probability: head.probability, h0: head.hidden[0]!, h1: head.hidden[1]!, ...Object.fromEntries(Object.keys(wanted).map((name, i) => [`grad.${name}`, gradients[i]!])) };
    const executable = await Executable.prepare(context, compile({ target: context.target, outputs }));
    const result = await executable.run({ seed: float32(golden, 'gout.prob'), ...Object.fromEntries(Object.keys(wanted).map((name) => [name, layout(name, 'in')])) });
    executable.dispose();
    const forward = { relL2: 1e-5, maxOfRms: 1e-4 };
    expectClose(result['probability']!, float32(golden, 'out.prob'), { ...forward, name: 'prob' });
    expectClose(result['h0']!, permute(float32(golden, 'out._h1'), [batch, c1, 4 * rows * columns], [0, 2, 1]), { ...forward, name: 'h1' });
    expectClose(result['h1']!, permute(float32(golden, 'out._h2'), [batch, c2, 16 * rows * columns], [0, 2, 1]), { ...forward, name: 'h2' });
    for (const name of Object.keys(wanted)) expectClose(result[`grad.${name}`]!, layout(name, 'grad'), { relL2: 1e-4, maxOfRms: 5e-4, name: `gradient of ${name}` });
  });

  test.each([['dice', false], ['dice_squared', true]] as const)('%s', async (piece, squared) => {
    const { results, golden } = await runPiece(piece, ({ p, t }) => ({ outputs: { loss: mean(plus.dice(p!, t!, { squared })) }, from: 'loss' }));
    expect(maxAbsDifference(results['loss']!, float32(golden, 'out.loss'))).toBeLessThanOrEqual(5e-6);
  });
});
