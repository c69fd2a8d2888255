// Matrix units, which few adapters have: the tiling by arithmetic; the kernels' text by Dawn's null back end, which checks
// subgroup matrices without having them; their numbers on any adapter by a stand-in, and on the units where the adapter has them.
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { Random } from '../../src/data/random.ts';
import { KernelError } from '../../src/errors.ts';
import { GpuContext } from '../../src/gpu/context.ts';
import { DeviceMemory } from '../../src/gpu/memory.ts';
import { findSubgroupMatrix, type SubgroupMatrixConfig } from '../../src/gpu/subgroup-matrix.ts';
import { defaultTarget, type SubgroupMatrix, type Target } from '../../src/gpu/target.ts';
import type { KernelSource } from '../../src/gpu/wgsl.ts';
import { Executable } from '../../src/graph/executor.ts';
import { interpret } from '../../src/graph/interpreter.ts';
import { compile } from '../../src/graph/plan.ts';
import { apply, input, parameter, type Tensor, type TensorData } from '../../src/graph/tensor.ts';
import { add, gelu, gemmVariants, layerScale, linear, matmul, matmulOperation } from '../../src/ops/index.ts';
import { float16ToFloat32, float32ToFloat16 } from '../../src/weights/float16.ts';
import { loadMatrixUnits } from '../../src/ops/matrix-units.ts';
import { tiling, usesSubgroupMatrix } from '../../shaders/subgroup-matrix-gemm.wgsl.ts';
import { nullGpu, testContext } from '../support/gpu.ts';
import { relativeError } from '../support/operation-run.ts';

/** What GPUs have: Apple's units, those of NVIDIA and AMD, Intel's. */
const configs = {
  apple: { componentType: 'f32', M: 8, N: 8, K: 8 },
  nvidia: { componentType: 'f16', M: 16, N: 16, K: 16 },
  intel: { componentType: 'f16', M: 8, N: 16, K: 16 },
} as const satisfies Record<string, SubgroupMatrix['config']>;
const units = (name: keyof typeof configs, subgroupSize: number, spelling: SubgroupMatrix['spelling'] = 'template'): SubgroupMatrix => ({ config: configs[name], subgroupSize, spelling });
const names = Object.keys(configs) as (keyof typeof configs)[];

const layouts = [[false, true], [false, false], [true, false]] as const;
const sizes = [{ m: 1, n: 1, k: 1 }, { m: 5, n: 3, k: 7 }, { m: 65, n: 36, k: 130 }, { m: 70, n: 66, k: 12 }, { m: 128, n: 64, k: 64 }, { m: 33, n: 130, k: 260 }];

beforeAll(loadMatrixUnits);

describe('the tiling', () => {
  const products = fc.record({
    rows: fc.integer({ min: 1, max: 300 }), columns: fc.integer({ min: 1, max: 300 }), splits: fc.integer({ min: 1, max: 3 }), transposeA: fc.boolean(), transposeB: fc.boolean(),
  });
  const devices = fc.record({
    name: fc.constantFrom(...names), subgroupSize: fc.constantFrom(8, 16, 32, 64, 128),
    maxComputeInvocationsPerWorkgroup: fc.constantFrom(128, 256, 1024), maxComputeWorkgroupStorageSize: fc.constantFrom(16384, 32768, 49152),
  });

  test('keeps to the device\'s limits, whatever the product', () => {
    fc.assert(fc.property(products, devices, (product, { name, subgroupSize, ...limits }) => {
      const { M, N, K } = configs[name];
      const t = tiling(units(name, subgroupSize), product, limits)!;
      expect(t.bytes).toBeLessThanOrEqual(limits.maxComputeWorkgroupStorageSize);
      expect(t.invocations).toBeLessThanOrEqual(limits.maxComputeInvocationsPerWorkgroup);
      expect(t.invocations).toBe(t.groupRows * t.groupColumns * subgroupSize);
      expect([t.tileRows, t.tileColumns]).toEqual([t.groupRows * t.matrixRows * M, t.groupColumns * t.matrixColumns * N]);
      expect(t.tileDepth % K).toBe(0);
      const elementBytes = configs[name].componentType === 'f16' ? 2 : 4;
      for (const { lines, length, stride } of [t.tileA, t.tileB]) {
        expect(stride * elementBytes % 16).toBe(0);
        expect(stride).toBeGreaterThan(length);
        expect(lines * length % t.tileDepth).toBe(0);
      }
    }));
  });

  test('covers every element of C once', () => {
    fc.assert(fc.property(products, devices, (product, { name, subgroupSize, ...limits }) => {
      const { M, N } = configs[name];
      const t = tiling(units(name, subgroupSize), product, limits)!;
      // How often each row, each column is met: by a workgroup's tile, a subgroup's block in it, a matrix in that, its element.
      const met = (size: number, tiles: number, tile: number, groups: number, matrices: number, side: number): Set<number> => {
        const counts = Array.from({ length: size }, () => 0);
        for (let w = 0; w < tiles; w++) for (let g = 0; g < groups; g++) for (let i = 0; i < matrices; i++) for (let e = 0; e < side; e++) {
          const at = w * tile + (g * matrices + i) * side + e;
          if (at < size) counts[at]!++;
        }
        return new Set(counts);
      };
      expect(met(product.rows, t.workgroups[1], t.tileRows, t.groupRows, t.matrixRows, M)).toEqual(new Set([1]));
      expect(met(product.columns, t.workgroups[0], t.tileColumns, t.groupColumns, t.matrixColumns, N)).toEqual(new Set([1]));
      // None of the workgroups is outside of C.
      expect((t.workgroups[1] - 1) * t.tileRows).toBeLessThan(product.rows);
      expect((t.workgroups[0] - 1) * t.tileColumns).toBeLessThan(product.columns);
      expect(t.workgroups[2]).toBe(product.splits);
    }));
  });

  test('takes large blocks where there are enough of them, and small ones before the device idles', () => {
    const product = { transposeA: false, transposeB: true, splits: 1 };
    const limits = { maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupStorageSize: 32768 };
    expect(tiling(units('nvidia', 32), { ...product, rows: 2048, columns: 1536 }, limits)).toMatchObject({ matrixRows: 4, matrixColumns: 2, tileRows: 128, tileColumns: 64, tileDepth: 32, workgroups: [24, 16, 1] });
    expect(tiling(units('nvidia', 32), { ...product, rows: 256, columns: 384 }, limits)).toMatchObject({ tileRows: 32, tileColumns: 32, workgroups: [12, 8, 1] });
    // Less memory: K in smaller steps.
    expect(tiling(units('apple', 32), { ...product, rows: 2048, columns: 1536 }, { ...limits, maxComputeWorkgroupStorageSize: 12288 })).toMatchObject({ tileRows: 64, tileDepth: 16 });
    expect(tiling(units('nvidia', 32), { ...product, rows: 8, columns: 8 }, { ...limits, maxComputeWorkgroupStorageSize: 1024 })).toBeUndefined();
    expect(tiling(units('nvidia', 512), { ...product, rows: 8, columns: 8 }, limits)).toBeUndefined();
  });
});

test('the units do what was asked for: all in f32, or the forward layout of weights in f16', () => {
  const product = { rows: 64, columns: 64, batch: 1, splits: 1 };
  const uses = (name: keyof typeof configs, transposeA: boolean, transposeB: boolean, halfB: boolean, change: Partial<Target> = {}) =>
    usesSubgroupMatrix({ ...product, transposeA, transposeB, halfB }, { ...defaultTarget, subgroupMatrix: units(name, 32), ...change });
  for (const [transposeA, transposeB] of layouts) for (const halfB of [false, true]) {
    expect(uses('apple', transposeA, transposeB, halfB)).toBe(true);
    expect(uses('nvidia', transposeA, transposeB, halfB)).toBe(halfB && transposeB);
    expect(uses('apple', transposeA, transposeB, halfB, { family: 'lavapipe' })).toBe(false);
    expect(uses('apple', transposeA, transposeB, halfB, { subgroupMatrix: undefined })).toBe(false);
  }
  expect(usesSubgroupMatrix({ ...product, batch: 2, transposeA: false, transposeB: true }, { ...defaultTarget, subgroupMatrix: units('apple', 32) })).toBe(false);
});

test('a product on the units is not tuned, and one whose variant is given is not on them', () => {
  const target = { ...defaultTarget, subgroupMatrix: units('apple', 32) };
  const build = (tuning = {}) => compile({ target, outputs: { y: linear(input('x', [70, 40]), input('w', [50, 40]), undefined, tuning) } }).dispatches[0]!;
  expect(build().kernel.file).toBe('subgroup-matrix-gemm.wgsl.ts');
  expect(build().tuning).toBeUndefined();
  expect(build({ variant: gemmVariants.tiled }).kernel.file).toBe('gemm.wgsl.ts');
});

/** Every form that the kernel takes in a layout: epilogues with and without operands, a kept value, splits, row sums. */
function productsOf({ m, n, k }: { m: number; n: number; k: number }, [transposeA, transposeB]: readonly [boolean, boolean], dtype: 'f32' | 'f16'): Record<string, Tensor> {
  const a = input('a', transposeA ? [k, m] : [m, k]);
  const b = parameter('b', transposeB ? [n, k] : [k, n], dtype);
  const bias = input('bias', [n]);
  const attributes = { transposeA, transposeB, shape: [m, n], rows: m, columns: n, bias: false, epilogues: [] };
  const withBias = (): Tensor => apply(matmulOperation, [a, b, bias], { ...attributes, bias: true })[0]!;
  const before = withBias();
  const outputs: Record<string, Tensor> = {
    plain: matmul(a, b, { shape: [m, n], transposeA, transposeB }),
    kept: before, activated: gelu(before),
    scaled: add(layerScale(withBias(), input('scale', [n])), input('residual', [m, n])),
  };
  if (transposeA) {
    [outputs['gradient'], outputs['sums']] = apply(matmulOperation, [a, b], { ...attributes, rowSums: [m] }) as [Tensor, Tensor];
    if (k >= 12) [outputs['splitGradient'], outputs['splitSums']] = apply(matmulOperation, [a, b], { ...attributes, rowSums: [m], splits: 3 }) as [Tensor, Tensor];
  }
  return outputs;
}

/** A context on Dawn's null back end whose adapter says that it has the configurations. */
async function nullContext(subgroupMatrixConfigs: readonly SubgroupMatrixConfig[]): Promise<GpuContext> {
  const adapter = (await (await nullGpu()).requestAdapter())!;
  const { info: { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize }, limits, features } = adapter;
  const info = { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize, subgroupMatrixConfigs };
  const posing = { info, limits, features, requestDevice: (descriptor: GPUDeviceDescriptor) => adapter.requestDevice(descriptor) };
  return GpuContext.acquire({ gpu: { requestAdapter: async () => posing } as unknown as GPU });
}

describe('on the null back end', () => {
  const offered = (name: keyof typeof configs): SubgroupMatrixConfig => ({ ...configs[name], resultComponentType: 'f32' });

  test('the probe finds the configuration that it prefers, and none where none can be used', async () => {
    const context = await nullContext([{ ...offered('intel'), componentType: 'u8', resultComponentType: 'u32' }, { ...offered('nvidia'), resultComponentType: 'f16' }, offered('intel'), offered('nvidia')]);
    const subgroupSize = context.target.subgroupMatrix!.subgroupSize;
    expect(context.target.subgroupMatrix).toEqual(units('nvidia', subgroupSize));
    const { device } = context;
    const find = (...subgroupMatrixConfigs: SubgroupMatrixConfig[]) => findSubgroupMatrix(device, { subgroupMaxSize: subgroupSize, subgroupMatrixConfigs } as unknown as GPUAdapterInfo);
    expect(await find(offered('nvidia'), offered('apple'))).toEqual(units('apple', subgroupSize));
    expect(await find()).toBeUndefined();
    expect(await find({ ...offered('nvidia'), resultComponentType: 'f16' })).toBeUndefined();
    // A subgroup of which no workgroup is a multiple is one that the pipeline refuses.
    expect(await findSubgroupMatrix(device, { subgroupMaxSize: 100, subgroupMatrixConfigs: [offered('apple')] } as unknown as GPUAdapterInfo)).toBeUndefined();
    context.check();
    context.dispose();
  });

  test.each(names)('%s\'s kernels become pipelines', async (name) => {
    const context = await nullContext([offered(name)]);
    const { subgroupSize } = context.target.subgroupMatrix!;
    const compiled = new Set<string>();
    for (const size of sizes) for (const layout of layouts) for (const dtype of ['f32', 'f16'] as const) for (const smaller of [1, 4]) {
      // Pipelines are made for workgroups of one subgroup of the adapter's, or of several smaller ones.
      const target: Target = { ...context.target, subgroupMatrix: units(name, subgroupSize / smaller) };
      const { dispatches } = compile({ target, outputs: productsOf(size, layout, dtype) });
      const products = dispatches.filter(({ kernel }) => kernel.file === 'subgroup-matrix-gemm.wgsl.ts');
      expect(products.length > 0).toBe(name === 'apple' || (layout[1] && dtype === 'f16'));
      for (const { kernel, bindings } of products) {
        await context.pipelines.get(kernel, bindings.map((b) => b.access));
        compiled.add(kernel.code);
        expect(workgroupBytes(kernel)).toBeLessThanOrEqual(target.maxComputeWorkgroupStorageSize);
      }
    }
    expect(compiled.size).toBeGreaterThan(20);
    // The older spelling, which this Dawn complains about at length: once.
    const older: Target = { ...context.target, subgroupMatrix: units(name, subgroupSize, 'argument') };
    const { kernel, bindings } = compile({ target: older, outputs: { y: matmul(input('a', [70, 50]), parameter('b', [36, 50], 'f16'), { shape: [70, 36], transposeB: true }) } }).dispatches[0]!;
    expect(kernel.code).toMatch(/subgroupMatrixLoad<Left>\(.*, false, \d+u\)/);
    await context.pipelines.get(kernel, bindings.map((b) => b.access));
    context.check();
    context.dispose();
  });

  test('a wrong module is refused, with its line', async () => {
    const context = await nullContext([offered('apple')]);
    const { kernel, bindings } = compile({ target: context.target, outputs: { y: linear(input('x', [40, 24]), input('w', [16, 24])) } }).dispatches[0]!;
    const access = bindings.map((b) => b.access);
    const wrong = (from: string, to: string) => context.pipelines.get({ ...kernel, code: kernel.code.replace(from, to) }, access);
    await expect(wrong('alias Left = subgroup_matrix_left<f32, 8, 8>', 'alias Left = subgroup_matrix_right<f32, 8, 8>')).rejects.toThrow(/subgroup-matrix-gemm\.wgsl\.ts, template line \d+: no matching call to 'subgroupMatrixMultiplyAccumulate/);
    await expect(wrong('alias Right = subgroup_matrix_right<f32, 8, 8>', 'alias Right = subgroup_matrix_right<f32, 8, 16>')).rejects.toThrow(KernelError);
    await expect(wrong('array<f32, ', 'array<u32, ')).rejects.toThrow(KernelError);
    await expect(wrong('@workgroup_size(', '@workgroup_size(1 + ')).rejects.toThrow(/workgroup_size/);
    await context.pipelines.get(kernel, access);
    context.dispose();
  });
});

/** Of the variables that a kernel declares. */
function workgroupBytes({ code }: KernelSource): number {
  return [...code.matchAll(/var<workgroup> \w+: array<(f16|f32), (\d+)>/g)].reduce((sum, [, type, length]) => sum + (type === 'f16' ? 2 : 4) * Number(length), 0);
}

test('a tiling\'s bytes are those that its kernel declares', () => {
  for (const name of names) for (const layout of layouts) for (const size of sizes) {
    const matrix = units(name, 32);
    const { dispatches } = compile({ target: { ...defaultTarget, subgroupMatrix: matrix }, outputs: { y: matmul(input('a', layout[0] ? [size.k, size.m] : [size.m, size.k]), parameter('b', layout[1] ? [size.n, size.k] : [size.k, size.n], 'f16'), { shape: [size.m, size.n], transposeA: layout[0], transposeB: layout[1], splits: 1 }) } });
    const { kernel, workgroups } = dispatches[0]!;
    if (kernel.file === 'gemm.wgsl.ts') continue;
    const t = tiling(matrix, { rows: size.m, columns: size.n, transposeA: layout[0], transposeB: layout[1], splits: 1 }, defaultTarget)!;
    expect(workgroupBytes(kernel)).toBe(t.bytes);
    expect(workgroups).toEqual(t.workgroups);
  }
});

/**
 * The kernel for adapters without units: a subgroup is one invocation, Left and Right are places in the staged tiles, and
 * Result numbers an array of the invocation's own, so that all but the units themselves is what runs on a GPU.
 */
function standIn(kernel: KernelSource, { M, N, K }: SubgroupMatrix['config']): KernelSource {
  if (kernel.file !== 'subgroup-matrix-gemm.wgsl.ts') return kernel;
  const accumulators = [...kernel.code.matchAll(/var c\d+_\d+: Result;/g)].length;
  let count = 0;
  const code = `${kernel.code
    .replace(/^diagnostic.*$|^enable (subgroups|chromium_experimental_subgroup_matrix);$/gm, '')
    .replace(/alias \w+ = subgroup_matrix_.*;/g, '')
    .replace(', @builtin(subgroup_id) owner: u32) {', ') { let owner = lane;')
    .replace(/(var c\d+_\d+: Result);/g, (_, variable: string) => `${variable} = ${count++}u;`)
    .replace(/subgroupMatrixLoad<\w+, row_major>\(&\w+, (.*?), (\d+)u\)/g, 'Place($1, $2u, 1u)')
    .replace(/subgroupMatrixLoad<\w+, col_major>\(&\w+, (.*?), (\d+)u\)/g, 'Place($1, 1u, $2u)')
    // In a loop, since some CPU adapters' compilers take long over eight copies.
    .replace(/(c\d+_\d+ = subgroupMatrixMultiplyAccumulate\(.*\);)+/, (statements) => {
      const terms = [...statements.matchAll(/(c\d+_\d+) = \w+\((a\d+), (b\d+), \1\);/g)];
      const list = (type: string, n: number): string => `array<${type}, ${terms.length}>(${terms.map((term) => term[n]!).join(', ')})`;
      return `var results = ${list('Result', 1)}; var lefts = ${list('Place', 2)}; var rights = ${list('Place', 3)};
        for (var n = 0u; n < ${terms.length}u; n++) { multiplyAccumulate(lefts[n], rights[n], results[n]); }`;
    })
    .replaceAll('subgroupMatrixStore<row_major>(&results, ', 'storeResult(')}
struct Place { offset: u32, ofRow: u32, ofColumn: u32 }
alias Result = u32;
var<private> accumulated: array<f32, ${accumulators * M * N}>;
fn multiplyAccumulate(a: Place, b: Place, c: Result) {
  for (var e = 0u; e < ${M * N}u; e++) {
    var sum = accumulated[c * ${M * N}u + e];
    for (var k = 0u; k < ${K}u; k++) { sum += f32(tileA[a.offset + e / ${N}u * a.ofRow + k * a.ofColumn]) * f32(tileB[b.offset + k * b.ofRow + e % ${N}u * b.ofColumn]); }
    accumulated[c * ${M * N}u + e] = sum;
  }
}
fn storeResult(offset: u32, c: Result, stride: u32) {
  for (var e = 0u; e < ${M * N}u; e++) { results[offset + e / ${N}u * stride + e % ${N}u] = accumulated[c * ${M * N}u + e]; }
}`;
  return { ...kernel, code, lines: code.split('\n').map((_, i) => i + 1) };
}

/** Runs the products on the adapter, planned for `target`, and gives each output's error by the f64 reference, with A and B as the units take them. */
async function errorsOf(context: GpuContext, target: Target, outputs: Record<string, Tensor>, size: { m: number; n: number; k: number }, dtype: 'f32' | 'f16', change = (kernel: KernelSource) => kernel): Promise<{ errors: Record<string, number>; onUnits: number }> {
  const random = new Random(JSON.stringify([size, dtype]));
  // Exact in f16, so that only the sums are compared and not the rounding that the reference does not do.
  const draw = (count: number) => float16ToFloat32(float32ToFloat16(Float32Array.from({ length: count }, () => random.normal())));
  const feeds: Record<string, TensorData> = { a: draw(size.m * size.k), bias: draw(size.n), scale: draw(size.n), residual: draw(size.m * size.n) };
  const b = draw(size.k * size.n);
  const plan = compile({ target, outputs });
  const dispatches = plan.dispatches.map((dispatch) => ({ ...dispatch, kernel: change(dispatch.kernel) }));
  const weights = dtype === 'f16' ? float32ToFloat16(b) : b;
  const memory = await DeviceMemory.allocate(context, 'weights', [['b', weights.byteLength]]);
  memory.write('b', weights);
  const executable = await Executable.prepare(context, { ...plan, dispatches }, memory.tensors);
  const actual = await executable.run(Object.fromEntries([...plan.inputs.keys()].map((name) => [name, feeds[name]!])));
  executable.dispose();
  memory.dispose();
  const expected = interpret(Object.values(outputs), new Map(Object.entries({ ...feeds, b })));
  return {
    errors: Object.fromEntries(Object.keys(outputs).map((name, i) => [name, relativeError(actual[name]!, expected[i]!)])),
    onUnits: dispatches.filter(({ kernel }) => kernel.file === 'subgroup-matrix-gemm.wgsl.ts').length,
  };
}

describe('with a stand-in for the units, the kernels give what the reference gives', () => {
  // Workgroups of four subgroups with one result matrix each and, where C is large, of two with eight. With inputs in f16 in
  // the only layout that they take then.
  const cases = [
    ...layouts.map((layout) => ['apple', layout, 4, { m: 65, n: 36, k: 130 }] as const), ['nvidia', layouts[0], 4, { m: 33, n: 66, k: 50 }],
    ['apple', layouts[2], 2, { m: 490, n: 130, k: 15 }], ['intel', layouts[0], 2, { m: 490, n: 280, k: 20 }],
  ] as const;
  test.each(cases)('%s, transposed %o, %i subgroups, %o', async (name, layout, subgroups, size) => {
    const context = await testContext();
    const dtype = name === 'apple' ? 'f32' : 'f16';
    const target: Target = { ...context.target, family: 'gpu', maxComputeInvocationsPerWorkgroup: subgroups, subgroupMatrix: units(name, 1) };
    expect(tiling(target.subgroupMatrix!, { rows: size.m, columns: size.n, transposeA: layout[0], transposeB: layout[1], splits: 1 }, target)).toMatchObject(subgroups === 4
      ? { groupRows: 2, groupColumns: 2, matrixRows: 1, matrixColumns: 1 } : { groupRows: 2, groupColumns: 1, matrixRows: 4, matrixColumns: 2 });
    const { kept, activated, scaled, gradient, sums, splitGradient, splitSums } = productsOf(size, layout, dtype) as Record<string, Tensor>;
    const outputs = (layout[0] ? subgroups === 4 ? { gradient, sums } : { splitGradient, splitSums } : layout[1] ? { kept, activated } : { scaled }) as Record<string, Tensor>;
    const run = errorsOf(context, target, outputs, size, dtype, (kernel) => standIn(kernel, configs[name]));
    // An adapter that can't hold weights in f16 says so.
    if (dtype === 'f16' && !target.features.has('shader-f16')) return expect(run).rejects.toThrow(/f16/);
    const { errors, onUnits } = await run;
    expect(onUnits).toBeGreaterThan(0);
    for (const [output, error] of Object.entries(errors)) expect(error, output).toBeLessThan(2e-6);
  });
});

test('on the units of the adapter at hand, where it has any', async () => {
  const context = await testContext();
  const { target } = context;
  if (!target.subgroupMatrix) {
    expect(await findSubgroupMatrix(context.device, context.device.adapterInfo)).toBeUndefined();
    return;
  }
  const dtype = target.subgroupMatrix.config.componentType;
  for (const layout of layouts) for (const size of sizes) {
    const { errors, onUnits } = await errorsOf(context, { ...target, family: 'gpu' }, productsOf(size, layout, dtype), size, dtype);
    expect(onUnits > 0).toBe(dtype === 'f32' || layout[1]);
    for (const [output, error] of Object.entries(errors)) expect(error, `${output} ${JSON.stringify(size)}`).toBeLessThan(1e-5);
  }
});
