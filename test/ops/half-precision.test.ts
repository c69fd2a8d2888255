// Weights in f16 are read as the f32 values that they stand for: the results are, to the bit, those of f32 weights with the
// same values. Where the adapter has no f16, that is said.
import { describe, expect, test } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { AdapterError } from '../../src/errors.ts';
import { compile } from '../../src/graph/plan.ts';
import { Executable } from '../../src/graph/executor.ts';
import { DeviceMemory } from '../../src/gpu/memory.ts';
import { input, parameter } from '../../src/graph/tensor.ts';
import { checkPrecision } from '../../src/model/memory.ts';
import { dtypeAt, trainableShapes } from '../../src/model/parameters.ts';
import { detectorConfig } from '../../src/model/config.ts';
import { gelu, gemmVariants, linear, matmul } from '../../src/ops/index.ts';
import { nearestNeighbour } from '../../src/ops/nearest-neighbour.ts';
import { float16ToFloat32, float32ToFloat16 } from '../../src/weights/float16.ts';
import { testContext } from '../support/gpu.ts';

const shapes = [{ m: 1, n: 1, k: 1 }, { m: 5, n: 3, k: 7 }, { m: 37, n: 80, k: 48 }, { m: 65, n: 36, k: 130 }, { m: 34, n: 33, k: 20 }, { m: 70, n: 66, k: 12 }];

describe('a linear layer with weights in f16', () => {
  test.each(shapes)('%o', async ({ m, n, k }) => {
    const context = await testContext();
    if (!context.target.features.has('shader-f16')) {
      expect(() => checkPrecision(context, 'f16')).toThrow(AdapterError);
      expect(() => checkPrecision(context, 'f16')).toThrow(/no shader-f16.*use precision f32/);
      return;
    }
    const random = new Random(`half ${m} ${n} ${k}`);
    const draw = (count: number) => Float32Array.from({ length: count }, () => random.normal());
    const halves = float32ToFloat16(draw(n * k));
    const feeds = { x: draw(m * k), b: draw(n), g: draw(m * n) };
    for (const variant of Object.values(gemmVariants)) {
      const results = [];
      for (const [dtype, data] of [['f16', halves], ['f32', float16ToFloat32(halves)]] as const) {
        const weight = parameter('weight', [n, k], dtype);
        const outputs = {
          y: gelu(linear(input('x', [m, k]), weight, input('b', [n]), { variant })),
          dx: matmul(input('g', [m, n]), weight, { shape: [m, k], variant }),
        };
        const memory = await DeviceMemory.allocate(context, 'weights', [['weight', data.byteLength]]);
        memory.write('weight', data);
        const executable = await Executable.prepare(context, compile({ target: context.target, outputs }), memory.tensors);
        results.push(await executable.run(feeds));
        executable.dispose();
        memory.dispose();
      }
      expect(results[0]).toEqual(results[1]);
    }
  });
});

test.each([{ rows: 37, columns: 80, depth: 48 }, { rows: 5, columns: 33, depth: 7 }])('a memory in f16 is searched to the same distances: %o', async ({ rows, columns, depth }) => {
  const context = await testContext();
  if (!context.target.features.has('shader-f16')) return;
  const random = new Random(`half memory ${rows}`);
  const draw = (count: number) => Float32Array.from({ length: count }, () => random.normal() / Math.sqrt(depth));
  const [x, halves] = [draw(rows * depth), float32ToFloat16(draw(columns * depth))];
  const results = [];
  for (const [dtype, data] of [['f16', halves], ['f32', float16ToFloat32(halves)]] as const) {
    const memory = await DeviceMemory.allocate(context, 'memory', [['memory', data.byteLength]]);
    memory.write('memory', data);
    const outputs = { distance: nearestNeighbour(input('x', [rows, depth]), [parameter('memory', [columns, depth], dtype)]) };
    const executable = await Executable.prepare(context, compile({ target: context.target, outputs }), memory.tensors);
    results.push(await executable.run({ x }));
    executable.dispose();
    memory.dispose();
  }
  expect(results[0]).toEqual(results[1]);
});

test('matrices are stored in f16, all else and what lies in stacks in f32', () => {
  const config = detectorConfig({ architecture: { width: 96, depth: 4, numHeads: 3, patchSize: 14, numRegisters: 0, positionGrid: [4, 4], mlpRatio: 4, layerScale: true }, crop: 56 });
  const names = [...trainableShapes(config)].filter(([name]) => dtypeAt('f16', name) === 'f16');
  expect(names.length).toBe(5 + 2 + 3 * config.decoderDepth);
  expect(names.every(([name, shape]) => name.endsWith('.weight') && shape.length === 2)).toBe(true);
  expect([...trainableShapes(config).keys()].every((name) => dtypeAt('f32', name) === 'f32')).toBe(true);
  for (const [name, dtype] of [['0.qkv.weight', 'f16'], ['0.qkv.bias', 'f32'], ['patch.weight', 'f32'], ['0.norm1.weight', 'f32'], ['3.fc2.weight', 'f16']] as const) expect(dtypeAt('f16', name)).toBe(dtype);
});
