/**
 * How attention kernels read and write the rows of one head inside [B, N, stride] tensors: four channels at a time as
 * vec4f ("chunks"), whatever the head size. Where stride, offset and head size divide by 4 a row is an array of vec4f;
 * else the vectors are put together from scalars, with zeros past the head's end.
 */
import type { Target } from '../src/gpu/target.ts';
import { kernel, wgsl, type KernelSource } from '../src/gpu/wgsl.ts';
import { linearGrid } from './common.wgsl.ts';

/** A run of channels, head after head, in a tensor of `rows` rows of `stride` elements an image. */
export interface RowLayout {
  readonly rows: number;
  readonly stride: number;
  readonly offset: number;
}

/** vec4f that hold one row of a head. */
export function chunksOf(headSize: number): number {
  return Math.ceil(headSize / 4);
}

/** Unrolls: the texts of `body` for 0 .. count-1, a line each. */
export function each(count: number, body: (i: number) => string): string {
  return Array.from({ length: count }, (_, i) => body(i)).join('\n');
}

/** The texts of `body` for 0 .. count-1 with an operator between them. */
export function joined(count: number, operator: string, body: (i: number) => string): string {
  return Array.from({ length: count }, (_, i) => body(i)).join(operator);
}

/**
 * Added to the bound of a loop, keeps CPU adapters' compilers from unrolling it: `wid.z` (the kernel's workgroup_id) is 0,
 * which they can't know. Unrolled, an attention kernel takes lavapipe's compiler half a minute and more, and runs on
 * SwiftShader at half the speed. GPUs unroll, and want to, so that arrays become registers.
 */
export function keepLoop(target: Target): string {
  return target.family === 'gpu' ? '' : ' + wid.z';
}

/** A loop over the chunks of a row; `body` gets the WGSL expression of the chunk. */
export function overChunks(headSize: number, target: Target, body: (chunk: string) => string): string {
  const chunks = chunksOf(headSize);
  if (target.family === 'gpu') return each(chunks, (c) => `{ ${body(`${c}u`)} }`);
  return `for (var c = 0u; c < ${chunks}u${keepLoop(target)}; c++) { ${body('c')} }`;
}

/** A walk of the variable `n` over begin .. end-1 in whole blocks, and one by one over what is left (nothing, where `exact`). */
export function inBlocks(n: string, begin: string, end: string, block: number, exact: boolean, target: Target, body: (count: number) => string): string {
  return `var ${n} = ${begin};
let ${n}End = ${end}${keepLoop(target)};
for (; ${n} + ${block}u <= ${n}End; ${n} += ${block}u) {
${body(block)}
}
${exact || block === 1 ? '' : `for (; ${n} < ${n}End; ${n}++) {\n${body(1)}\n}`}`;
}

/**
 * How many of the rows that an invocation walks over it handles together: 8, or 4 where rows can't be read as vec4f; of
 * few, the number up to that which leaves the fewest over.
 */
export function blockOf(count: number, headSize: number): number {
  const most = headSize % 4 === 0 ? 8 : 4;
  if (count <= most) return count;
  if (count > 8 * most) return most;
  return Array.from({ length: most / 2 }, (_, i) => most - i).reduce((best, b) => (count % b < count % best ? b : best));
}

/** One run of channels in a bound tensor, and the WGSL that reads and writes it. */
export class HeadRows {
  /** The WGSL variable and its element type. */
  readonly variable: string;
  readonly type: 'f32' | 'vec4f';
  private readonly layout: RowLayout;
  private readonly headSize: number;

  /** @param vector whether the variable is an array of vec4f: only where everything that is read of it {@link fits}. */
  constructor(variable: string, layout: RowLayout, headSize: number, vector: boolean) {
    this.variable = variable;
    this.layout = layout;
    this.headSize = headSize;
    this.type = vector ? 'vec4f' : 'f32';
  }

  static fits(layout: RowLayout, headSize: number): boolean {
    return [layout.stride, layout.offset, headSize].every((n) => n % 4 === 0);
  }

  /** The index of the first element of a row of a head. */
  base(batch: string, row: string, head: string): string {
    const unit = this.type === 'vec4f' ? 4 : 1;
    const { rows, stride, offset } = this.layout;
    return `((${batch} * ${rows}u + ${row}) * ${stride / unit}u + ${offset / unit}u + ${head} * ${this.headSize / unit}u)`;
  }

  /** Four channels, as vec4f, of the row that begins at `base`. */
  read(base: string, chunk: string): string {
    if (this.type === 'vec4f') return `${this.variable}[${base} + ${chunk}]`;
    return `vec4f(${joined(4, ', ', (i) => {
      const value = `${this.variable}[${base} + 4u * ${chunk} + ${i}u]`;
      return this.headSize % 4 === 0 ? value : `select(0.0f, ${value}, 4u * ${chunk} + ${i}u < ${this.headSize}u)`;
    })})`;
  }

  /** The statements that write the vec4f variable `value` there. */
  write(base: string, chunk: string, value: string): string {
    if (this.type === 'vec4f') return `${this.variable}[${base} + ${chunk}] = ${value};`;
    return joined(4, ' ', (i) => {
      const store = `${this.variable}[${base} + 4u * ${chunk} + ${i}u] = ${value}[${i}];`;
      return this.headSize % 4 === 0 ? store : `if (4u * ${chunk} + ${i}u < ${this.headSize}u) { ${store} }`;
    });
  }
}

/** Writes 0 to channels start .. end-1 of all rows of `gradient` [rows, stride]: those that no slice covers. */
export function zeroChannelsKernel(rows: number, stride: number, start: number, end: number, target: Target): { source: KernelSource; workgroups: readonly [number, number, number] } {
  const width = end - start;
  const grid = linearGrid(rows * width, target);
  const source = kernel('head-rows.wgsl.ts', `zero channels ${start} to ${end - 1} of [${rows}, ${stride}]`, wgsl`
@group(0) @binding(0) var<storage, read_write> gradient: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3u) {
  ${grid.index}
  gradient[(i / ${width}u) * ${stride}u + ${start}u + i % ${width}u] = 0.0f;
}
`);
  return { source, workgroups: grid.workgroups };
}

/** Declares storage bindings 0, 1, ... in this order. */
export function declareBindings(bindings: readonly { name: string; type: string; access: 'read' | 'read_write' }[]): string {
  return bindings.map(({ name, type, access }, i) => `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<${type}>;`).join('\n');
}
