/**
 * The probe for matrix units. Chromium's subgroup matrices are an experiment whose WGSL still changes, so what an adapter
 * says that it has is believed once a pipeline with it, in one of the known spellings, can be made on the device.
 */
import { subgroupMatrixFeature, type SubgroupMatrix } from './target.ts';

export interface SubgroupMatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/**
 * The configuration to use: one that computes in f32 throughout, else one with inputs in f16 and results in f32, of these the
 * one with the most arithmetic in an instruction.
 * @param info of the device's adapter; `subgroupMatrixConfigs` lists what its units can do
 * @returns undefined where there is none, or where no known spelling makes a pipeline
 */
export async function findSubgroupMatrix(device: GPUDevice, info: GPUAdapterInfo & { readonly subgroupMatrixConfigs?: Iterable<SubgroupMatrixConfig> }): Promise<SubgroupMatrix | undefined> {
  const { subgroupMaxSize: subgroupSize, subgroupMatrixConfigs = [] } = info;
  if (!device.features.has(subgroupMatrixFeature) || subgroupSize === undefined) return undefined;
  const isUsable = ({ componentType, resultComponentType, M, N, K }: SubgroupMatrixConfig): boolean => resultComponentType === 'f32'
    && (componentType === 'f32' || (componentType === 'f16' && device.features.has('shader-f16'))) && [M, N, K].every((n) => n % 8 === 0);
  const preference = ({ componentType, M, N, K }: SubgroupMatrixConfig): number => (componentType === 'f32' ? 1e6 : 0) + M * N * K;
  const candidates = [...subgroupMatrixConfigs].filter(isUsable).sort((a, b) => preference(b) - preference(a));
  for (const { componentType, M, N, K } of candidates) {
    for (const spelling of ['template', 'argument'] as const) {
      const matrix: SubgroupMatrix = { config: { componentType: componentType as 'f32' | 'f16', M, N, K }, subgroupSize, spelling };
      if (await makesPipeline(device, matrix)) return matrix;
    }
  }
  return undefined;
}

async function makesPipeline(device: GPUDevice, { config: { componentType, M, N, K }, subgroupSize, spelling }: SubgroupMatrix): Promise<boolean> {
  const load = (type: string, stride: number): string => (spelling === 'template'
    ? `subgroupMatrixLoad<${type}, row_major>(&inputs, 0u, ${stride}u)` : `subgroupMatrixLoad<${type}>(&inputs, 0u, false, ${stride}u)`);
  const code = `
enable subgroups;
enable chromium_experimental_subgroup_matrix;
${componentType === 'f16' ? 'enable f16;' : ''}
@group(0) @binding(0) var<storage, read_write> results: array<f32>;
var<workgroup> inputs: array<${componentType}, ${K * Math.max(M, N)}>;
@compute @workgroup_size(${subgroupSize})
fn main(@builtin(subgroup_id) owner: u32) {
  results[0] = f32(owner);
  let left = ${load(`subgroup_matrix_left<${componentType}, ${K}, ${M}>`, K)};
  let right = ${load(`subgroup_matrix_right<${componentType}, ${N}, ${K}>`, N)};
  let result = subgroupMatrixMultiplyAccumulate(left, right, subgroup_matrix_result<f32, ${N}, ${M}>());
  ${spelling === 'template' ? `subgroupMatrixStore<row_major>(&results, 0u, result, ${N}u);` : `subgroupMatrixStore(&results, 0u, result, false, ${N}u);`}
}`;
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ label: 'subgroup matrix probe', code });
  const pipeline = device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'main' } }).then(() => true, () => false);
  await device.popErrorScope().catch(() => null);
  return pipeline;
}
