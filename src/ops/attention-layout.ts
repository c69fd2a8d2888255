/**
 * What the two kinds of attention share: where queries, keys and values lie among a node's inputs and how kernels and
 * references reach the rows of a head there. Slices of one tensor are one input of the node, and its gradient is one
 * tensor, into which the backward kernels write each part.
 */
import { declareBindings, HeadRows, zeroChannelsKernel } from '../../shaders/head-rows.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Binding, Dispatch, KernelContext, ReferenceArray } from '../graph/operation.ts';
import type { Tensor, TensorSpec } from '../graph/tensor.ts';
import type { ChannelSlice } from './channel-slice.ts';

/** Where a slice lies among a node's inputs. */
export interface SlicePlace {
  readonly input: number;
  readonly offset: number;
}

export interface AttentionAttributes {
  readonly numHeads: number;
  /** Channels of each slice, C. */
  readonly count: number;
  readonly query: SlicePlace;
  readonly key: SlicePlace;
  readonly value: SlicePlace;
  /** Number of tensors that the slices lie in: the node's first inputs. */
  readonly sources: number;
}

/** The distinct tensors of the slices (the node's first inputs), and the attributes that say where each slice lies; without values, their place is the keys'. */
export function packSlices(operation: string, slices: { query: ChannelSlice; key: ChannelSlice; value?: ChannelSlice }, numHeads: number): { inputs: Tensor[]; attributes: AttentionAttributes } {
  const { query, key, value } = slices;
  const given = [query, key, ...(value ? [value] : [])];
  if (given.some((slice) => slice.count !== query.count)) {
    throw new UsageError(`${operation}: the slices have ${given.map((slice) => slice.count).join(', ')} channels, expected the same number.`);
  }
  const inputs: Tensor[] = [];
  const placed: (ChannelSlice & { input: number })[] = [];
  for (const slice of given) {
    // Overlapping slices can't share an input: their tensor is an input twice, and differentiation sums the gradients.
    const overlaps = (input: number): boolean => placed.some((p) => p.input === input && p.offset < slice.offset + slice.count && slice.offset < p.offset + p.count);
    let input = inputs.findIndex((t, i) => t === slice.tensor && !overlaps(i));
    if (input < 0) input = inputs.push(slice.tensor) - 1;
    placed.push({ ...slice, input });
  }
  const [q, k, v] = placed.map(({ input, offset }): SlicePlace => ({ input, offset }));
  return { inputs, attributes: { numHeads, count: query.count, query: q!, key: k!, value: v ?? k!, sources: inputs.length } };
}

/** A slice with the shape of its tensor: channel c of head h in row n of image b is element (b rows + n) stride + offset + h d + c. */
export interface HeadSlice {
  /** Which of the node's inputs. */
  readonly input: number;
  readonly rows: number;
  readonly stride: number;
  readonly offset: number;
}

export interface AttentionLayout {
  readonly batch: number;
  readonly heads: number;
  /** Channels of a head, d. */
  readonly headSize: number;
  readonly queries: number;
  readonly keys: number;
  readonly query: HeadSlice;
  readonly key: HeadSlice;
  readonly value: HeadSlice;
}

export const roles = ['query', 'key', 'value'] as const;

/** The shape rule. @throws UsageError where the slices don't fit together */
export function layoutOf(operation: string, inputs: readonly TensorSpec[], a: AttentionAttributes): AttentionLayout {
  const batch = inputs[a.query.input]!.shape[0]!;
  const [query, key, value] = roles.map((role): HeadSlice => {
    const { input, offset } = a[role];
    const { shape } = inputs[input]!;
    const [b, rows, stride] = shape;
    if (shape.length !== 3 || b !== batch || offset + a.count > stride!) {
      throw new UsageError(`${operation}: ${role} must be ${a.count} channels from ${offset} of a tensor [${batch}, N, channels], got one of [${shape.join(', ')}].`);
    }
    return { input, rows: rows!, stride: stride!, offset };
  }) as [HeadSlice, HeadSlice, HeadSlice];
  if (a.count % a.numHeads !== 0) throw new UsageError(`${operation}: ${a.count} channels do not divide into ${a.numHeads} heads.`);
  if (key.rows !== value.rows) throw new UsageError(`${operation}: there are ${key.rows} keys, but ${value.rows} values.`);
  return { batch, heads: a.numHeads, headSize: a.count / a.numHeads, queries: query.rows, keys: key.rows, query, key, value };
}

/** A variable of a kernel and what is bound to it. */
export interface Bound {
  readonly name: string;
  readonly type: string;
  readonly binding: Binding;
}

/** WGSL declarations and bindings in one order; a variable that is named twice is bound once. */
export function bind(bound: readonly Bound[]): { declarations: string; bindings: Binding[] } {
  const unique = bound.filter((x, i) => bound.findIndex((y) => y.name === x.name) === i);
  return {
    declarations: declareBindings(unique.map(({ name, type, binding }) => ({ name, type, access: binding.access }))),
    bindings: unique.map((x) => x.binding),
  };
}

export function boundRows(rows: HeadRows, binding: Binding): Bound {
  return { name: rows.variable, type: rows.type, binding };
}

export interface AttentionViews {
  readonly query: HeadRows;
  readonly key: HeadRows;
  readonly value: HeadRows;
}

/** The slices in variables `prefix` + the input's number, as vec4f where all slices of that input allow it. */
export function viewsOf(prefix: string, layout: AttentionLayout): AttentionViews {
  const slices = roles.map((role) => layout[role]);
  const view = (slice: HeadSlice): HeadRows => new HeadRows(
    `${prefix}${slice.input}`, slice, layout.headSize,
    slices.every((s) => s.input !== slice.input || HeadRows.fits(s, layout.headSize)),
  );
  return { query: view(layout.query), key: view(layout.key), value: view(layout.value) };
}

/** The output and its gradient, [B, Nq, C], as rows of heads. */
export function wholeLayout({ queries, heads, headSize }: AttentionLayout): Omit<HeadSlice, 'input'> {
  return { rows: queries, stride: heads * headSize, offset: 0 };
}

export function wholeView(variable: string, layout: AttentionLayout): HeadRows {
  return new HeadRows(variable, wholeLayout(layout), layout.headSize, HeadRows.fits(wholeLayout(layout), layout.headSize));
}

/** Elements: pairs of a query and a key, a query slice, a key (or value) slice, query rows of heads. */
export function attentionSizes({ batch, heads, headSize, queries, keys }: AttentionLayout): { pairs: number; query: number; key: number; rows: number } {
  const rows = batch * heads * queries;
  return { pairs: rows * keys, query: rows * headSize, key: batch * heads * keys * headSize, rows };
}

/** Dispatches that write 0 to the channels of wanted sources that no slice covers; `outputOf` binds the gradient of a source. */
export function zeroUncovered(layout: AttentionLayout, count: number, wanted: readonly number[], { inputs, target }: Pick<KernelContext<unknown>, 'inputs' | 'target'>, outputOf: (input: number) => Binding): Dispatch[] {
  return wanted.flatMap((input) => {
    const [batch, rows, stride] = inputs[input]!.shape as [number, number, number];
    const starts = roles.map((role) => layout[role]).filter((s) => s.input === input).map((s) => s.offset).sort((a, b) => a - b);
    const gaps = [...starts.map((start, i) => ({ start: i === 0 ? 0 : starts[i - 1]! + count, end: start })), { start: starts.at(-1)! + count, end: stride }];
    return gaps.filter(({ start, end }) => start < end).map(({ start, end }): Dispatch => {
      const { source, workgroups } = zeroChannelsKernel(batch * rows, stride, start, end, target);
      return { kernel: source, workgroups, bindings: [outputOf(input)], flops: 0, bytes: 4 * batch * rows * (end - start) };
    });
  });
}

/** For references: a view of the d channels of a row of a head. */
export function rowOf(data: ReferenceArray, slice: Omit<HeadSlice, 'input'>, headSize: number, b: number, h: number, n: number): Float64Array {
  const start = (b * slice.rows + n) * slice.stride + slice.offset + h * headSize;
  return data.subarray(start, start + headSize);
}

type Rows = (n: number) => Float64Array;

/** For references: head by head, with functions that give its rows in `data` (inputs, or gradients shaped like them). */
export function forEachHead(layout: AttentionLayout, body: (b: number, h: number, rowsIn: (data: readonly ReferenceArray[]) => { query: Rows; key: Rows; value: Rows }) => void): void {
  for (let b = 0; b < layout.batch; b++) {
    for (let h = 0; h < layout.heads; h++) {
      body(b, h, (data) => {
        const rows = (slice: HeadSlice): Rows => (n) => rowOf(data[slice.input]!, slice, layout.headSize, b, h, n);
        return { query: rows(layout.query), key: rows(layout.key), value: rows(layout.value) };
      });
    }
  }
}

export function dot(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, x, i) => sum + x * b[i]!, 0);
}

/** row += factor * x */
export function addTo(row: Float64Array, factor: number, x: Float64Array): void {
  x.forEach((value, i) => { row[i]! += factor * value; });
}
