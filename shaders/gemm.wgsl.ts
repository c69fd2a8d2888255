/**
 * C = epilogue(op(A) op(B)), the general matrix product in the three layouts that a linear layer needs: forward
 * X W^T, input gradient G W, weight gradient G^T X. Each invocation keeps a block of C in registers (8 x 8) and runs
 * over K; loads are vec4 where the sizes allow it. Rows and columns past the end are clamped when loading, once and
 * outside the loop, and masked when storing, so nothing inside the loop checks a bound.
 *
 * Two variants: `register` reads A and B directly (CPU adapters, where a barrier costs more than a load), `tiled`
 * stages them through workgroup memory (GPUs). `splits` > 1 cuts K into chunks whose partial products are summed by
 * {@link sumSplitsKernel} in a fixed order: weight gradients have a long K and a small C.
 */
import { UsageError } from '../src/errors.ts';
import { f32, kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import type { Epilogue } from '../src/graph/operation.ts';
import { linearGrid } from './common.wgsl.ts';
import type { Target } from '../src/gpu/target.ts';

export interface GemmVariant {
  readonly kind: 'register' | 'tiled';
  /** Block of C that one invocation computes; multiples of 4. */
  readonly blockRows: number;
  readonly blockColumns: number;
  /** Invocations of a workgroup along the rows and columns of C. */
  readonly groupRows: number;
  readonly groupColumns: number;
  /** `tiled`: how much of K is staged at a time; a multiple of 4. */
  readonly tileDepth: number;
}

export interface GemmShape {
  /** C is [rows, columns], the sum runs over depth. */
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  /** A is stored [depth, rows] instead of [rows, depth]. */
  readonly transposeA: boolean;
  /** B is stored [columns, depth] instead of [depth, columns]. */
  readonly transposeB: boolean;
}

export interface GemmKernel extends GemmShape {
  readonly label: string;
  readonly variant: GemmVariant;
  readonly splits: number;
  /** Pointwise steps on the values before they are stored; operands are bound after A and B. */
  readonly epilogues: readonly Epilogue[];
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);
const component = 'xyzw';

export interface GemmDispatch {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

export function gemmKernel(p: GemmKernel): GemmDispatch {
  const { variant: v, rows, columns } = p;
  const workgroups = [
    Math.ceil(columns / (v.blockColumns * v.groupColumns)), Math.ceil(rows / (v.blockRows * v.groupRows)), p.splits,
  ] as const;
  const body = v.kind === 'register' ? registerBody(p) : tiledBody(p);
  const operands = p.epilogues.filter((e) => e.operand !== 'none');
  const vectorStore = columns % 4 === 0;
  const type = vectorStore ? 'vec4f' : 'f32';
  const operandDeclarations = operands.map((_, n) => `@group(0) @binding(${n + 2}) var<storage, read> operand${n}: array<${type}>;`).join('\n');
  const functions = [...new Set(p.epilogues.map((e) => e.functions ?? ''))].join('\n');
  const source = kernel('gemm.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> A: array<${body.typeA}>;
@group(0) @binding(1) var<storage, read> B: array<${body.typeB}>;
${operandDeclarations}
@group(0) @binding(${2 + operands.length}) var<storage, read_write> C: array<${type}>;
${functions}
${body.declarations}
@compute @workgroup_size(${v.groupColumns}, ${v.groupRows})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_id) lid: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = (wid.y * ${v.groupRows}u + lid.y) * ${v.blockRows}u;
  let column = (wid.x * ${v.groupColumns}u + lid.x) * ${v.blockColumns}u;
  ${accumulators(v)}
  ${body.code}
  ${store(p, vectorStore)}
}
`);
  return { source, workgroups };
}

function accumulators(v: GemmVariant): string {
  return range(v.blockRows).map((i) => range(v.blockColumns).map((j) => `var c${i}_${j} = 0.0f;`).join(' ')).join('\n  ');
}

/** All products of one slice of K: `a(i)` and `b(j)` are expressions for its elements. */
function multiply(v: GemmVariant, a: (i: number) => string, b: (j: number) => string): string {
  return range(v.blockRows)
    .map((i) => range(v.blockColumns).map((j) => `c${i}_${j} = fma(${a(i)}, ${b(j)}, c${i}_${j});`).join(' '))
    .join('\n    ');
}

interface Body {
  readonly typeA: string;
  readonly typeB: string;
  readonly declarations: string;
  readonly code: string;
}

/** The range of K that this workgroup sums: all of it, or its split (a multiple of 4 long, the last one to the end). */
function depthRange(p: GemmKernel): { begin: string; end: string } {
  if (p.splits === 1) return { begin: '0u', end: `${p.depth}u` };
  const chunk = Math.floor(p.depth / 4 / p.splits) * 4;
  return { begin: `wid.z * ${chunk}u`, end: `select((wid.z + 1u) * ${chunk}u, ${p.depth}u, wid.z == ${p.splits - 1}u)` };
}

/**
 * Where an operand is contiguous along K and both load as vectors, K runs in steps of 4 (and depth % 4 is 0);
 * otherwise one slice at a time, which for the weight gradient's layout is as fast and a quarter of the code.
 */
function registerBody(p: GemmKernel): Body {
  const { variant: v } = p;
  const a = operandLoads('A', 'a', p.transposeA, p.rows, p.depth, v.blockRows, 'row');
  const b = operandLoads('B', 'b', !p.transposeB, p.columns, p.depth, v.blockColumns, 'column');
  const { begin, end } = depthRange(p);
  const inFours = a.type === 'vec4f' && b.type === 'vec4f' && (!p.transposeA || p.transposeB);
  const loop = inFours
    ? `for (var k4 = ${begin} / 4u; k4 < end / 4u; k4++) {
    ${a.four}
    ${b.four}
    ${range(4).map((s) => multiply(v, (i) => a.element(i, s), (j) => b.element(j, s))).join('\n    ')}
  }`
    : `for (var k = ${begin}; k < end; k++) {
    ${a.single}
    ${b.single}
    ${multiply(v, (i) => `as${i}`, (j) => `bs${j}`)}
  }`;
  return { typeA: a.type, typeB: b.type, declarations: '', code: `
  ${a.bases}
  ${b.bases}
  let end = ${end};
  ${loop}` };
}

interface OperandLoads {
  readonly type: 'vec4f' | 'f32';
  readonly bases: string;
  /** Loads 4 slices of K at k4 (vectors only). */
  readonly four: string;
  /** Element `n` of the block in slice `s` of those four. */
  element(n: number, s: number): string;
  /** Loads the slice at `k` into `<name>s<n>`. */
  readonly single: string;
}

/**
 * Loads for one operand. `across`: stored [depth, size], a slice of K is contiguous; else [size, depth], each row or
 * column is contiguous along K. Vectors where the contiguous length is a multiple of 4.
 */
function operandLoads(buffer: string, name: string, across: boolean, size: number, depth: number, block: number, start: string): OperandLoads {
  const vector = (across ? size : depth) % 4 === 0;
  const type = vector ? 'vec4f' : 'f32';
  const unpack = (value: (n: number) => string) => range(block).map((n) => `let ${name}s${n} = ${value(n)};`).join(' ');
  if (across && vector) {
    const quads = range(block / 4);
    const load = (target: string, k: string) => quads.map((q) => `let ${target}${q} = ${buffer}[${k} * ${size / 4}u + ${name}q${q}];`).join(' ');
    return {
      type,
      bases: quads.map((q) => `let ${name}q${q} = min(${start} / 4u + ${q}u, ${size / 4 - 1}u);`).join(' '),
      four: range(4).map((s) => load(`${name}${s}_`, `(k4 * 4u + ${s}u)`)).join('\n    '),
      element: (n, s) => `${name}${s}_${n >> 2}.${component[n & 3]}`,
      single: `${load(`${name}v`, 'k')} ${unpack((n) => `${name}v${n >> 2}.${component[n & 3]}`)}`,
    };
  }
  const stride = across ? '' : ` * ${vector ? depth / 4 : depth}u`;
  const bases = range(block).map((n) => `let ${name}i${n} = min(${start} + ${n}u, ${size - 1}u)${stride};`).join(' ');
  if (vector) {
    return {
      type, bases,
      four: range(block).map((n) => `let ${name}${n} = ${buffer}[${name}i${n} + k4];`).join(' '),
      element: (n, s) => `${name}${n}.${component[s]}`,
      single: unpack((n) => `${buffer}[${name}i${n} + k / 4u][k % 4u]`),
    };
  }
  const unavailable = (): never => { throw new UsageError('gemm: scalar operands have no fourfold step.'); };
  return { type, bases, get four(): string { return unavailable(); }, element: unavailable, single: unpack((n) => (across ? `${buffer}[k * ${size}u + ${name}i${n}]` : `${buffer}[${name}i${n} + k]`)) };
}

/** Tiles of A [rows, tileDepth] and B [tileDepth, columns] are staged, zero beyond the end of K, then multiplied. */
function tiledBody(p: GemmKernel): Body {
  const { variant: v } = p;
  const tileRows = v.blockRows * v.groupRows;
  const tileColumns = v.blockColumns * v.groupColumns;
  const threads = v.groupRows * v.groupColumns;
  const { begin, end } = depthRange(p);
  const stage = (buffer: string, tile: string, across: boolean, size: number, width: number, start: string) => `
    for (var e = lane; e < ${(width * v.tileDepth)}u; e += ${threads}u) {
      ${across ? `let n = e % ${width}u; let d = e / ${width}u;` : `let d = e % ${v.tileDepth}u; let n = e / ${v.tileDepth}u;`}
      let k = k0 + d;
      let at = min(${start} + n, ${size - 1}u);
      ${tile}[d * ${width}u + n] = select(0.0f, ${buffer}[${across ? `min(k, ${p.depth - 1}u) * ${size}u + at` : `at * ${p.depth}u + min(k, ${p.depth - 1}u)`}], k < end);
    }`;
  const code = `
  let end = ${end};
  for (var k0 = ${begin}; k0 < end; k0 += ${v.tileDepth}u) {
    ${stage('A', 'tileA', p.transposeA, p.rows, tileRows, `wid.y * ${tileRows}u`)}
    ${stage('B', 'tileB', !p.transposeB, p.columns, tileColumns, `wid.x * ${tileColumns}u`)}
    workgroupBarrier();
    for (var d = 0u; d < ${v.tileDepth}u; d++) {
      ${range(v.blockRows).map((i) => `let a${i} = tileA[d * ${tileRows}u + lid.y * ${v.blockRows}u + ${i}u];`).join(' ')}
      ${range(v.blockColumns).map((j) => `let b${j} = tileB[d * ${tileColumns}u + lid.x * ${v.blockColumns}u + ${j}u];`).join(' ')}
      ${multiply(v, (i) => `a${i}`, (j) => `b${j}`)}
    }
    workgroupBarrier();
  }`;
  const declarations = `var<workgroup> tileA: array<f32, ${tileRows * v.tileDepth}>;
var<workgroup> tileB: array<f32, ${tileColumns * v.tileDepth}>;`;
  return { typeA: 'f32', typeB: 'f32', declarations, code };
}

/** The block goes out in a loop: a long epilogue such as GELU is then compiled once, not once for every vector. */
function store(p: GemmKernel, vector: boolean): string {
  const { variant: v } = p;
  const width = vector ? 4 : 1;
  const perRow = v.blockColumns / width;
  const columns = p.columns / width;
  const values = range(v.blockRows).flatMap((i) => range(perRow).map((q) => (vector
    ? `vec4f(${range(4).map((s) => `c${i}_${q * 4 + s}`).join(', ')})`
    : `c${i}_${q}`)));
  let operand = 0;
  const finished = p.epilogues.reduce((text, e) => {
    const name = e.operand === 'none' ? '' : `operand${operand++}[${e.operand === 'column' ? 'c' : 'at'}]`;
    return `(${e.expression(text, name, vector)})`;
  }, 'value');
  return `var block = array<${vector ? 'vec4f' : 'f32'}, ${values.length}>(${values.join(', ')});
  for (var n = 0u; n < ${values.length}u; n++) {
    let r = row + n / ${perRow}u;
    let c = column / ${width}u + n % ${perRow}u;
    if (r < ${p.rows}u && c < ${columns}u) {
      let value = block[n];
      let at = r * ${columns}u + c;
      C[${p.splits === 1 ? '' : `wid.z * ${p.rows * columns}u + `}at] = ${finished};
    }
  }`;
}

/** C = epilogue(sum over splits of partial), in the splits' order. */
export function sumSplitsKernel(p: { label: string; rows: number; columns: number; splits: number; epilogues: readonly Epilogue[]; target: Target }): GemmDispatch {
  const count = p.rows * p.columns;
  const grid = linearGrid(count, p.target);
  const operands = p.epilogues.filter((e) => e.operand !== 'none');
  let operand = 0;
  const value = p.epilogues.reduce((text, e) => {
    const name = e.operand === 'none' ? '' : `operand${operand++}[${e.operand === 'column' ? `i % ${p.columns}u` : 'i'}]`;
    return `(${e.expression(text, name, false)})`;
  }, 'sum');
  const source = kernel('gemm.wgsl.ts', p.label, wgsl`
@group(0) @binding(0) var<storage, read> parts: array<f32>;
${operands.map((_, n) => `@group(0) @binding(${n + 1}) var<storage, read> operand${n}: array<f32>;`).join('\n')}
@group(0) @binding(${1 + operands.length}) var<storage, read_write> C: array<f32>;
${[...new Set(p.epilogues.map((e) => e.functions ?? ''))].join('\n')}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  var sum = ${f32(0)};
  for (var s = 0u; s < ${p.splits}u; s++) { sum = sum + parts[s * ${count}u + i]; }
  C[i] = ${value};
}
`);
  return { source, workgroups: grid.workgroups };
}
