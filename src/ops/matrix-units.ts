/**
 * The kernels for matrix units, loaded where an adapter has them: other pages don't ship them. They are Chromium's
 * experimental subgroup matrices, so few have them yet.
 */
type MatrixUnits = typeof import('../../shaders/subgroup-matrix-gemm.wgsl.ts');

let loaded: MatrixUnits | undefined;

/** To be awaited before plans are compiled for a target with `subgroupMatrix`. */
export async function loadMatrixUnits(): Promise<void> {
  loaded ??= await import('../../shaders/subgroup-matrix-gemm.wgsl.ts');
}

/** The kernels, once they are loaded; the plain ones serve until then. */
export function matrixUnits(): MatrixUnits | undefined {
  return loaded;
}
