/**
 * C = epilogue(op(A) op(B)), the general matrix product in the three layouts that a linear layer needs: forward
 * X W^T, input gradient G W, weight gradient G^T X. Each invocation keeps a block of C in registers (8 x 8) and runs
 * over K; loads are vec4 where the sizes allow it. Rows and columns past the end are clamped when loading, once and
 * outside the loop, and masked when storing, so nothing inside the loop checks a bound.
 *
 * Three kinds: `register` reads A and B directly; `exchange` as well, but the lanes of a subgroup read each element of
 * their common tile once and pass it on in registers (CPU adapters, where a load costs as much as a dozen multiply-adds, see
 * {@link multiplyExchanged}); `tiled` stages them through workgroup memory (GPUs). `splits` > 1 cuts K into chunks whose partial products are summed by
 * {@link sumSplitsKernel} in a fixed order: weight gradients have a long K and a small C. `batch` > 1 does several
 * products of one shape in a dispatch. A weight gradient's kernel also gives the bias gradient, the row sums of op(A).
 */
import { UsageError } from '../src/errors.ts';
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import type { Epilogue } from '../src/graph/operation.ts';
import { linearGrid } from './common.wgsl.ts';
import { declareOperands, finish, functionsOf, operandsOf } from './epilogue.wgsl.ts';
import type { Target } from '../src/gpu/target.ts';

export interface GemmVariant {
  readonly kind: 'register' | 'exchange' | 'tiled';
  /** Rows of A and columns of B that one invocation loads; multiples of 4. Their products are its block of C, and in `exchange` those with the other lanes' columns too. */
  readonly blockRows: number;
  readonly blockColumns: number;
  /** Invocations of a workgroup along the rows and columns of C; in `exchange` 1: its lanes lie along both. */
  readonly groupRows: number;
  readonly groupColumns: number;
  /** `tiled`: how much of K is staged at a time; a multiple of 4. */
  readonly tileDepth: number;
}

/** Everything that is given as a shape here is of one product; a batch of them lies at the strides. */
export interface GemmShape {
  /** C is [rows, columns], the sum runs over depth. */
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  /** A is stored [depth, rows] instead of [rows, depth]. */
  readonly transposeA: boolean;
  /** B is stored [columns, depth] instead of [depth, columns]. */
  readonly transposeB: boolean;
  readonly batch: number;
  /** Elements from one product's A, B, bias, C and row sums to the next one's; what lies between is written as 0. */
  readonly strides: { readonly a: number; readonly b: number; readonly bias: number; readonly c: number; readonly rowSums: number };
}

export interface GemmKernel extends GemmShape {
  readonly label: string;
  readonly variant: GemmVariant;
  /** `exchange`: the invocations of a workgroup, 4 or 8; no more than a subgroup has. */
  readonly lanes?: number | undefined;
  readonly splits: number;
  /** Pointwise steps on the values before they are stored; operands are bound after A and B. */
  readonly epilogues: readonly Epilogue[];
  /** B is stored in f16. */
  readonly halfB?: boolean;
  /** Also stores the values as they are before this epilogue, bound last. */
  readonly keptBefore?: number | undefined;
  /** Also stores the sums of op(A) along K, bound after C. Only where A is transposed. */
  readonly rowSums?: boolean;
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);
const component = 'xyzw';

export interface GemmDispatch {
  readonly source: KernelSource;
  readonly workgroups: readonly [number, number, number];
}

/** Rows and columns of C that a workgroup computes, and its invocations along both. */
export function tileOf(v: GemmVariant, lanes = 1): { rows: number; columns: number; invocations: readonly [number, number] } {
  if (v.kind === 'exchange') return { rows: v.blockRows * lanes, columns: v.blockColumns * lanes, invocations: [lanes, 1] };
  return { rows: v.blockRows * v.groupRows, columns: v.blockColumns * v.groupColumns, invocations: [v.groupColumns, v.groupRows] };
}

export function gemmKernel(p: GemmKernel): GemmDispatch {
  const { variant: v, rows, columns, strides } = p;
  const exchange = v.kind === 'exchange';
  if (exchange && p.lanes !== 4 && p.lanes !== 8) throw new UsageError(`${p.label}: its variant passes elements between 4 or 8 lanes, found ${p.lanes ?? 'no subgroups'}. Use another variant on this adapter.`);
  const tile = tileOf(v, p.lanes);
  const workgroups = [Math.ceil(columns / tile.columns), Math.ceil(rows / tile.rows), p.splits * p.batch] as const;
  const body = v.kind === 'tiled' ? tiledBody(p) : registerBody(p);
  const [x, y] = exchange ? ['lane', 'lane'] : ['lid.x', 'lid.y'];
  const vector = columns % 4 === 0 && strides.c % 4 === 0 && strides.bias % 4 === 0;
  const type = vector ? 'vec4f' : 'f32';
  const outputs = [`C: array<${type}>`, ...(p.rowSums ? ['rowSums: array<f32>'] : []), ...(p.keptBefore === undefined ? [] : [`kept: array<${type}>`])];
  const firstOutput = 2 + operandsOf(p.epilogues).length;
  const source = kernel('gemm.wgsl.ts', p.label, wgsl`${enables(p, body)}
@group(0) @binding(0) var<storage, read> A: ${arrayOf(body.typeA, p.batch * strides.a)};
@group(0) @binding(1) var<storage, read> B: ${arrayOf(body.typeB, p.batch * strides.b)};
${declareOperands(p.epilogues, 2, type)}
${outputs.map((declaration, n) => `@group(0) @binding(${firstOutput + n}) var<storage, read_write> ${declaration};`).join('\n')}
${functionsOf(p.epilogues)}
${body.declarations}
${unpacking(body)}
@compute @workgroup_size(${tile.invocations.join(', ')})
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_id) lid: vec3u, @builtin(${exchange ? 'subgroup_invocation_id' : 'local_invocation_index'}) lane: u32) {
  let row = wid.y * ${tile.rows}u + ${y} * ${v.blockRows}u;
  let column = wid.x * ${tile.columns}u + ${x} * ${v.blockColumns}u;
  ${accumulators(p)}
  ${body.code}
  ${store(p, vector)}
  ${p.rowSums ? rowSums(p) : ''}
  ${zeroGaps(p, vector)}
}
`);
  return { source, workgroups };
}

/**
 * The product alone, for kernels that do something else with the block: its accumulators c<i>_<j> and their number of columns, the
 * statements that add it up, and which row of C accumulator i belongs to, given the workgroup's number along the rows.
 */
export function productBlock(p: GemmKernel): { enables: string; arrayA: string; arrayB: string; declarations: string; accumulators: string; columns: number; code: string; rowOf(i: number, group: string): string } {
  const body = p.variant.kind === 'tiled' ? tiledBody(p) : registerBody(p);
  return {
    enables: enables(p, body), arrayA: arrayOf(body.typeA, p.strides.a), arrayB: arrayOf(body.typeB, p.strides.b),
    declarations: `${body.declarations}\n${unpacking(body)}`, accumulators: accumulators(p), columns: columnsOf(p), code: body.code,
    rowOf: (i, group) => {
      const { kind, groupRows } = p.variant;
      return kind === 'tiled' ? `${group} * ${tileOf(p.variant).rows}u + ${(i >> 2) * 4 * groupRows + (i & 3)}u + lid.y * 4u` : `row + ${i}u`;
    },
  };
}

const enables = ({ variant: { kind } }: GemmKernel, { typeB }: Body): string => `${typeB === 'f16' ? 'enable f16;' : ''}${kind === 'exchange' ? 'enable subgroups;' : ''}`;

const unpacking = ({ typeB }: Body): string => (typeB === 'vec2u' ? 'fn unpackHalves(words: vec2u) -> vec4f { return vec4f(unpack2x16float(words.x), unpack2x16float(words.y)); }' : '');

/** The element that the z-th product of a batch begins at, added to an index: nothing, where there is one product. */
const offsetOf = (p: GemmKernel, stride: number, unit = 1): string => (p.batch > 1 ? ` + wid.z * ${stride / unit}u` : '');

/** With a fixed size, and loops whose bounds are constants, the compiler sees that no index leaves the array, and clamps none. */
const arrayOf = (type: string, elements: number): string => `array<${type}, ${type.startsWith('vec') ? elements / 4 : elements}>`;

/** Columns of C that an invocation computes: its own, and in `exchange` those of every lane, the lane with index (own ^ x) at x. */
const columnsOf = ({ variant: v, lanes }: GemmKernel): number => v.blockColumns * (v.kind === 'exchange' ? lanes! : 1);

function accumulators(p: GemmKernel): string {
  return range(p.variant.blockRows).map((i) => range(columnsOf(p)).map((j) => `var c${i}_${j} = 0.0f;`).join(' ')).join('\n  ');
}

/** All products of one slice of K: `a(i)` and `b(j)` are expressions for its elements. */
function multiply(v: GemmVariant, a: (i: number) => string, b: (j: number) => string): string {
  return range(v.blockRows)
    .map((i) => range(v.blockColumns).map((j) => `c${i}_${j} = fma(${a(i)}, ${b(j)}, c${i}_${j});`).join(' '))
    .join('\n    ');
}

/**
 * All products of `steps` slices of K between the rows of a lane and the columns of all lanes: in step x of as many steps
 * as there are lanes, with the columns of lane ^ x. So a tile of (blockRows lanes) x (blockColumns lanes) needs but
 * blockRows + blockColumns loads a lane. On CPU adapters a load is one branch and one scalar load for each lane, 12 to 20
 * multiply-adds' time, and a swap one instruction. Several slices go into one expression, in K's order: what a loop
 * carries on is blended with the mask of the active lanes each time that it is assigned.
 */
function multiplyExchanged({ variant: v, lanes }: GemmKernel, steps: number, a: (i: number, s: number) => string, b: (j: number, s: number) => string): string {
  const swap = (value: string, x: number): string => {
    if (x === 0) return value;
    return lanes === 4 ? `${['quadSwapX', 'quadSwapY', 'quadSwapDiagonal'][x - 1]}(${value})` : `subgroupShuffleXor(${value}, ${x}u)`;
  };
  return range(lanes!).flatMap((x) => range(v.blockColumns).map((j) => {
    const sums = range(v.blockRows).map((i) => {
      const sum = `c${i}_${x * v.blockColumns + j}`;
      return `${sum} = ${range(steps).reduce((text, s) => `fma(${a(i, s)}, y${s}, ${text})`, sum)};`;
    });
    return `{ ${range(steps).map((s) => `let y${s} = ${swap(b(j, s), x)};`).join(' ')} ${sums.join(' ')} }`;
  })).join('\n    ');
}

interface Body {
  readonly typeA: string;
  readonly typeB: string;
  readonly declarations: string;
  readonly code: string;
}

/** The range of K that this workgroup sums, as `begin` and `end`: all of it, or its split (a multiple of 4 long, the last one to the end). */
function depthRange(p: GemmKernel): string {
  if (p.splits === 1) return `const begin = 0u; const end = ${p.depth}u;`;
  const chunk = Math.floor(p.depth / 4 / p.splits) * 4;
  return `let begin = wid.z * ${chunk}u; let end = select(begin + ${chunk}u, ${p.depth}u, wid.z == ${p.splits - 1}u);`;
}

/**
 * Where both operands load as vectors, K runs in steps of 4 (and depth % 4 is 0); otherwise one slice at a time, which
 * for the weight gradient's layout is as fast and a quarter of the code unless lanes exchange elements.
 */
function registerBody(p: GemmKernel): Body {
  const { variant: v } = p;
  const exchange = v.kind === 'exchange';
  const [a, b] = [loadsOfA(p), operandLoads(p, 'B', 'b', !p.transposeB, p.columns, p.strides.b, v.blockColumns, 'column')];
  const inFours = a.type === 'vec4f' && b.type === 'vec4f' && p.depth % 4 === 0 && (exchange || !p.transposeA || p.transposeB);
  const loop = inFours
    ? `for (var k4 = begin / 4u; k4 < end / 4u; k4++) {
    ${a.four}
    ${b.four}
    ${exchange ? multiplyExchanged(p, 4, a.element, b.element) : range(4).map((s) => multiply(v, (i) => a.element(i, s), (j) => b.element(j, s))).join('\n    ')}
  }`
    : `for (var k = begin; k < end; k++) {
    ${a.single}
    ${b.single}
    ${exchange ? multiplyExchanged(p, 1, (i) => `as${i}`, (j) => `bs${j}`) : multiply(v, (i) => `as${i}`, (j) => `bs${j}`)}
  }`;
  return { typeA: a.stored, typeB: b.stored, declarations: '', code: `
  ${a.bases}
  ${b.bases}
  ${depthRange(p)}
  ${loop}` };
}

interface OperandLoads {
  /** As it is computed with, and as the buffer holds it. */
  readonly type: 'vec4f' | 'f32';
  readonly stored: string;
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
function operandLoads(p: GemmKernel, buffer: string, name: string, across: boolean, size: number, batchStride: number, block: number, start: string): OperandLoads {
  const { depth } = p;
  const vector = (across ? size : depth) % 4 === 0 && batchStride % 4 === 0;
  const offset = offsetOf(p, batchStride, vector ? 4 : 1);
  const half = buffer === 'B' && p.halfB;
  // Four f16 as two words: CPU adapters load them one by one, and so but half as many.
  const read = (index: string): string => (half ? `${vector ? 'unpackHalves' : 'f32'}(${buffer}[${index}])` : `${buffer}[${index}]`);
  const type = vector ? 'vec4f' : 'f32';
  const stored = half ? vector ? 'vec2u' : 'f16' : type;
  const unpack = (value: (n: number) => string) => range(block).map((n) => `let ${name}s${n} = ${value(n)};`).join(' ');
  if (across && vector) {
    const quads = range(block / 4);
    const load = (target: string, k: string) => quads.map((q) => `let ${target}${q} = ${read(`${k} * ${size / 4}u + ${name}q${q}`)};`).join(' ');
    return {
      type, stored,
      bases: quads.map((q) => `let ${name}q${q} = min(${start} / 4u + ${q}u, ${size / 4 - 1}u)${offset};`).join(' '),
      four: range(4).map((s) => load(`${name}${s}_`, `(k4 * 4u + ${s}u)`)).join('\n    '),
      element: (n, s) => `${name}${s}_${n >> 2}.${component[n & 3]}`,
      single: `${load(`${name}v`, 'k')} ${unpack((n) => `${name}v${n >> 2}.${component[n & 3]}`)}`,
    };
  }
  const stride = across ? '' : ` * ${vector ? depth / 4 : depth}u`;
  const bases = range(block).map((n) => `let ${name}i${n} = min(${start} + ${n}u, ${size - 1}u)${stride}${offset};`).join(' ');
  if (vector) {
    return {
      type, stored, bases,
      four: range(block).map((n) => `let ${name}${n} = ${read(`${name}i${n} + k4`)};`).join(' '),
      element: (n, s) => `${name}${n}.${component[s]}`,
      single: unpack((n) => `${read(`${name}i${n} + k / 4u`)}[k % 4u]`),
    };
  }
  const unavailable = (): never => { throw new UsageError('gemm: scalar operands have no fourfold step.'); };
  return { type, stored, bases, get four(): string { return unavailable(); }, element: unavailable, single: unpack((n) => read(across ? `k * ${size}u + ${name}i${n}` : `${name}i${n} + k`)) };
}

function loadsOfA(p: GemmKernel): OperandLoads {
  return operandLoads(p, 'A', 'a', p.transposeA, p.rows, p.strides.a, p.variant.blockRows, 'row');
}

/**
 * Tiles of A [rows, tileDepth] and B [tileDepth, columns] are staged as vectors along rows and columns, zero beyond the end
 * of K, then multiplied. An invocation's block is made of quads that lie a whole row of invocations apart, so that
 * neighbours read neighbouring vectors. What is stored along K is turned on its way, four rows by four slices at a time.
 */
function tiledBody(p: GemmKernel): Body {
  const { variant: v } = p;
  const { rows: tileRows, columns: tileColumns } = tileOf(v);
  const threads = v.groupRows * v.groupColumns;
  const operands = {
    a: { buffer: 'A', tile: 'tileA', across: p.transposeA, size: p.rows, stride: p.strides.a, width: tileRows, start: 'wid.y' },
    b: { buffer: 'B', tile: 'tileB', across: !p.transposeB, size: p.columns, stride: p.strides.b, width: tileColumns, start: 'wid.x' },
  };
  type Staged = (typeof operands)['a'];
  // One vector more, so that slices that are written together lie in different banks.
  const pitch = ({ width, across }: Staged): number => width / 4 + (across ? 0 : 1);
  const whole = p.depth % v.tileDepth === 0 && p.splits === 1;
  const stage = (o: Staged): { stored: string; code: string } => {
    const { depth } = p;
    const half = o.buffer === 'B' && p.halfB;
    const vector = (o.across ? o.size : depth) % 4 === 0 && o.stride % 4 === 0;
    const offset = offsetOf(p, o.stride, vector ? 4 : 1);
    const read = (index: string): string => `${half ? vector ? 'unpackHalves' : 'f32' : ''}(${o.buffer}[${index}])`;
    const quads = o.width / 4;
    const from = `${o.start} * ${o.width}u`;
    const put = (d: string, value: string): string => `${o.tile}[(${d}) * ${pitch(o)}u + q] = ${whole ? value : `select(vec4f(), ${value}, k0 + ${d} < end)`};`;
    const each = (count: number, body: string): string => `for (var e = lane; e < ${count}u; e += ${threads}u) { ${body} }`;
    const code = vector && o.across
      ? each(v.tileDepth * quads, `let q = e % ${quads}u; let d = e / ${quads}u; ${put('d', read(`min(k0 + d, ${depth - 1}u) * ${o.size / 4}u + min((${from}) / 4u + q, ${o.size / 4 - 1}u)${offset}`))}`)
      : vector
        ? each((v.tileDepth / 4) * quads, `let d = e % ${v.tileDepth / 4}u; let q = e / ${v.tileDepth / 4}u; let k = min(k0 / 4u + d, ${depth / 4 - 1}u);
      ${range(4).map((n) => `let r${n} = ${read(`min(${from} + q * 4u + ${n}u, ${o.size - 1}u) * ${depth / 4}u + k${offset}`)};`).join(' ')}
      ${range(4).map((n) => put(`d * 4u + ${n}u`, `vec4f(${range(4).map((r) => `r${r}.${component[n]}`).join(', ')})`)).join(' ')}`)
        : each(v.tileDepth * quads, `let q = e % ${quads}u; let d = e / ${quads}u; let k = min(k0 + d, ${depth - 1}u);
      ${range(4).map((n) => `let n${n} = min(${from} + q * 4u + ${n}u, ${o.size - 1}u);`).join(' ')}
      ${put('d', `vec4f(${range(4).map((n) => read(`${o.across ? `k * ${o.size}u + n${n}` : `n${n} * ${depth}u + k`}${offset}`)).join(', ')})`)}`);
    return { stored: vector ? half ? 'vec2u' : 'vec4f' : half ? 'f16' : 'f32', code };
  };
  const [a, b] = [stage(operands.a), stage(operands.b)];
  const code = `
  ${depthRange(p)}
  for (var k0 = begin; k0 < end; k0 += ${v.tileDepth}u) {
    ${a.code}
    ${b.code}
    workgroupBarrier();
    for (var d = 0u; d < ${v.tileDepth}u; d++) {
      ${range(v.blockRows / 4).map((q) => `let a${q} = tileA[d * ${pitch(operands.a)}u + ${q * v.groupRows}u + lid.y];`).join(' ')}
      ${range(v.blockColumns / 4).map((q) => `let b${q} = tileB[d * ${pitch(operands.b)}u + ${q * v.groupColumns}u + lid.x];`).join(' ')}
      ${multiply(v, (i) => `a${i >> 2}.${component[i & 3]}`, (j) => `b${j >> 2}.${component[j & 3]}`)}
    }
    workgroupBarrier();
  }`;
  const declarations = Object.values(operands).map((o) => `var<workgroup> ${o.tile}: array<vec4f, ${pitch(o) * v.tileDepth}>;`).join('\n');
  return { typeA: a.stored, typeB: b.stored, declarations, code };
}

/**
 * The block goes out in a loop: a long epilogue such as GELU is then compiled once, not once for every vector. A bound that
 * is no constant keeps CPU adapters' compilers from unrolling it after all, for which lavapipe's takes seconds.
 */
function store(p: GemmKernel, vector: boolean): string {
  const { variant: v } = p;
  const width = vector ? 4 : 1;
  const perRow = columnsOf(p) / width;
  const perLane = v.blockColumns / width;
  const columns = p.columns / width;
  const tiled = v.kind === 'tiled';
  const tileRow = `wid.y * ${v.blockRows * v.groupRows}u + n / ${perRow}u / 4u * ${4 * v.groupRows}u + lid.y * 4u + n / ${perRow}u % 4u`;
  const tileColumn = vector
    ? `wid.x * ${(v.blockColumns / 4) * v.groupColumns}u + n % ${perRow}u * ${v.groupColumns}u + lid.x`
    : `wid.x * ${v.blockColumns * v.groupColumns}u + n % ${perRow}u / 4u * ${4 * v.groupColumns}u + lid.x * 4u + n % 4u`;
  const column = tiled ? tileColumn : v.kind === 'exchange' ? `(wid.x * ${p.lanes!}u + (lane ^ (n % ${perRow}u / ${perLane}u))) * ${perLane}u + n % ${perLane}u` : `column / ${width}u + n % ${perRow}u`;
  const values = range(v.blockRows).flatMap((i) => range(perRow).map((q) => (vector
    ? `vec4f(${range(4).map((s) => `c${i}_${q * 4 + s}`).join(', ')})`
    : `c${i}_${q}`)));
  const { text, result } = finish(p.epilogues, vector, (operand) => (operand === 'column' ? `c${offsetOf(p, p.strides.bias, width)}` : 'at'));
  const to = p.splits > 1 ? `wid.z * ${(p.rows * p.columns) / width}u + at` : `at${offsetOf(p, p.strides.c, width)}`;
  return `var block = array<${vector ? 'vec4f' : 'f32'}, ${values.length}>(${values.join(', ')});
  for (var n = 0u; n < ${tiled ? `${values.length}u` : `select(0u, ${values.length}u, row < ${p.rows}u)`}; n++) {
    let r = ${tiled ? tileRow : `row + n / ${perRow}u`};
    let c = ${column};
    if (r < ${p.rows}u && c < ${columns}u) {
      let at = r * ${columns}u + c;
      let v0 = block[n];
      ${text}
      C[${to}] = ${result};
      ${p.keptBefore === undefined ? '' : `kept[${to}] = v${p.keptBefore};`}
    }
  }`;
}

/** The invocations of the first block column sum their rows of op(A) along K once more: few of many do. */
function rowSums(p: GemmKernel): string {
  const a = loadsOfA(p);
  const rows = range(p.variant.blockRows);
  const to = p.splits > 1 ? ` + wid.z * ${p.rows}u` : offsetOf(p, p.strides.rowSums);
  return `if (${p.variant.kind === 'exchange' ? 'wid.x' : 'column'} == 0u) {
    ${a.bases}
    ${rows.map((i) => `var sum${i} = 0.0f;`).join(' ')}
    ${depthRange(p)}
    for (var k = begin; k < end; k++) {
      ${a.single}
      ${rows.map((i) => `sum${i} += as${i};`).join(' ')}
    }
    ${rows.map((i) => `if (row + ${i}u < ${p.rows}u) { rowSums[row + ${i}u${to}] = sum${i}; }`).join('\n    ')}
  }`;
}

/** What lies between the products of a batch is 0, not whatever the memory held. */
function zeroGaps(p: GemmKernel, vector: boolean): string {
  const [across, down] = tileOf(p.variant, p.lanes).invocations;
  const threads = across * down;
  const zero = (name: string, length: number, stride: number, unit: number, value: string) => (stride === length ? '' : `
    for (var i = ${length / unit}u + lane; i < ${stride / unit}u; i += ${threads}u) { ${name}[i${offsetOf(p, stride, unit)}] = ${value}; }`);
  const gaps = [
    vector ? zero('C', p.rows * p.columns, p.strides.c, 4, 'vec4f()') : zero('C', p.rows * p.columns, p.strides.c, 1, '0.0f'),
    p.rowSums ? zero('rowSums', p.rows, p.strides.rowSums, 1, '0.0f') : '',
  ].join('');
  return gaps && `if (wid.x == 0u && wid.y == 0u) {${gaps}
  }`;
}

/** C = epilogue(sum over splits of partial), and the row sums likewise, in the splits' order. Bindings: parts, parts of row sums, operands, C, row sums, kept. */
export function sumSplitsKernel(p: {
  label: string; rows: number; columns: number; splits: number; epilogues: readonly Epilogue[]; keptBefore?: number | undefined; rowSums?: boolean; target: Target;
}): GemmDispatch {
  const count = p.rows * p.columns;
  const grid = linearGrid(count + (p.rowSums ? p.rows : 0), p.target);
  const { text, result } = finish(p.epilogues, false, (operand) => (operand === 'column' ? `i % ${p.columns}u` : 'i'));
  const bindings = [
    'var<storage, read> parts', ...(p.rowSums ? ['var<storage, read> partialRowSums'] : []),
    ...operandsOf(p.epilogues).map((_, n) => `var<storage, read> operand${n}`),
    'var<storage, read_write> C', ...(p.rowSums ? ['var<storage, read_write> rowSums'] : []), ...(p.keptBefore === undefined ? [] : ['var<storage, read_write> kept']),
  ];
  const source = kernel('gemm.wgsl.ts', p.label, wgsl`
${bindings.map((binding, n) => `@group(0) @binding(${n}) ${binding}: array<f32>;`).join('\n')}
${functionsOf(p.epilogues)}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  ${p.rowSums ? `if (i >= ${count}u) {
    var total = 0.0f;
    for (var s = 0u; s < ${p.splits}u; s++) { total = total + partialRowSums[s * ${p.rows}u + i - ${count}u]; }
    rowSums[i - ${count}u] = total;
    return;
  }` : ''}
  var v0 = 0.0f;
  for (var s = 0u; s < ${p.splits}u; s++) { v0 = v0 + parts[s * ${count}u + i]; }
  ${text}
  C[i] = ${result};
  ${p.keptBefore === undefined ? '' : `kept[i] = v${p.keptBefore};`}
}
`);
  return { source, workgroups: grid.workgroups };
}
