/**
 * Multi-head attention, y = softmax(q k^T d^-1/2) v for each head of d channels: the encoder's self-attention, and the INP
 * extractor's, where the prototype tokens ask the image. Queries, keys and values are channel slices, so that one linear
 * layer may compute several of them. The log-sum-exp of each row is kept for the backward, which recomputes the rest.
 */
import {
  attentionDeltaKernel, attentionGradientKernel, backwardVariant, combineAttentionKernel, combineGradientKernel,
  forwardVariant, partsOf, softmaxAttentionKernel, type AttentionShape,
} from '../../shaders/softmax-attention.wgsl.ts';
import { chunksOf, declareBindings, HeadRows, zeroChannelsKernel } from '../../shaders/head-rows.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Binding, Dispatch, Operation, ReferenceArray } from '../graph/operation.ts';
import { apply, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { headSlice, packSlices, uncoveredChannels, type ChannelSlice, type HeadSlice, type SlicePlace } from './channel-slice.ts';

interface Attributes {
  readonly numHeads: number;
  /** Channels of each slice, C. */
  readonly count: number;
  readonly query: SlicePlace;
  readonly key: SlicePlace;
  readonly value: SlicePlace;
  /** Number of tensors that the slices lie in: the node's first inputs. */
  readonly sources: number;
}

interface GradientAttributes extends Attributes {
  /** For each source, whether its gradient is wanted: those are the outputs, in this order. */
  readonly needs: readonly boolean[];
}

interface Layout extends AttentionShape {
  readonly query: HeadSlice;
  readonly key: HeadSlice;
  readonly value: HeadSlice;
}

function layoutOf(inputs: readonly TensorSpec[], a: Attributes): Layout {
  const batch = inputs[a.query.input]!.shape[0]!;
  const slice = (what: string, place: SlicePlace): HeadSlice => headSlice('softmaxAttention', what, inputs, place, a.count, batch);
  const [query, key, value] = [slice('query', a.query), slice('key', a.key), slice('value', a.value)];
  if (a.count % a.numHeads !== 0) throw new UsageError(`softmaxAttention: ${a.count} channels do not divide into ${a.numHeads} heads.`);
  if (key.rows !== value.rows) throw new UsageError(`softmaxAttention: there are ${key.rows} keys and ${value.rows} values.`);
  return { batch, heads: a.numHeads, headSize: a.count / a.numHeads, queries: query.rows, keys: key.rows, query, key, value };
}

/** WGSL views of slices: `prefix` and the input's number name the variable; vec4f where all slices of that input allow it. */
function viewsOf(prefix: string, layout: Layout): { query: HeadRows; key: HeadRows; value: HeadRows } {
  const slices = [layout.query, layout.key, layout.value];
  const view = (slice: HeadSlice): HeadRows => new HeadRows(
    `${prefix}${slice.input}`, slice, layout.headSize,
    slices.filter((s) => s.input === slice.input).every((s) => HeadRows.fits(s, layout.headSize)),
  );
  return { query: view(layout.query), key: view(layout.key), value: view(layout.value) };
}

/** The view of a whole [B, Nq, C] tensor. */
function wholeView(variable: string, { queries, heads, headSize }: AttentionShape): HeadRows {
  return new HeadRows(variable, { rows: queries, stride: heads * headSize, offset: 0 }, headSize, headSize % 4 === 0);
}

interface Bound {
  readonly name: string;
  readonly type: string;
  readonly binding: Binding;
}

/** Declarations and bindings, in one order; a variable that several views share is bound once. */
function bind(bound: readonly Bound[]): { declarations: string; bindings: Binding[] } {
  const unique = bound.filter((x, i) => bound.findIndex((y) => y.name === x.name) === i);
  return {
    declarations: declareBindings(unique.map(({ name, type, binding }) => ({ name, type, access: binding.access }))),
    bindings: unique.map((x) => x.binding),
  };
}

const sizes = ({ batch, heads, headSize, queries, keys }: AttentionShape) => ({
  pairs: batch * heads * queries * keys, query: batch * heads * queries * headSize, key: batch * heads * keys * headSize, rows: batch * heads * queries,
});

/** Outputs y [B, Nq, C] and the log-sum-exp [B, heads, Nq] of the scaled logits. */
export const softmaxAttentionOperation: Operation<Attributes> = {
  name: 'softmaxAttention',
  outputs(inputs, attributes) {
    const { batch, heads, headSize, queries } = layoutOf(inputs, attributes);
    return [{ shape: [batch, queries, heads * headSize], dtype: 'f32' }, { shape: [batch, heads, queries], dtype: 'f32' }];
  },
  kernels({ inputs, attributes, target, read, write, scratch }) {
    const layout = layoutOf(inputs, attributes);
    const views = viewsOf('x', layout);
    const output = wholeView('y', layout);
    const variant = forwardVariant(layout, target);
    const parts = partsOf(variant);
    const size = sizes(layout);
    const sources: Bound[] = (['query', 'key', 'value'] as const).map((what) => ({ name: views[what].variable, type: views[what].type, binding: read(layout[what].input) }));
    const results: Bound[] = [{ name: 'y', type: output.type, binding: write(0) }, { name: 'logSumExp', type: 'f32', binding: write(1) }];
    const flops = size.pairs * (4 * layout.headSize + 8);
    const inputBytes = 4 * (size.query + 2 * size.key);
    if (parts === 1) {
      const { declarations, bindings } = bind([...sources, ...results]);
      const { source, workgroups } = softmaxAttentionKernel(layout, variant, declarations, { ...views, output }, target);
      return [{ kernel: source, workgroups, bindings, flops, bytes: inputBytes + 4 * (size.query + size.rows) }];
    }
    const rowBytes = 16 * chunksOf(layout.headSize);
    const partial = scratch(size.rows * parts * rowBytes);
    const statistics = scratch(size.rows * parts * 8);
    const partialBytes = size.rows * parts * (rowBytes + 8);
    const first = bind([...sources, { name: 'partial', type: 'vec4f', binding: partial.write }, { name: 'partialSoftmax', type: 'vec2f', binding: statistics.write }]);
    const second = bind([{ name: 'partial', type: 'vec4f', binding: partial.read }, { name: 'partialSoftmax', type: 'vec2f', binding: statistics.read }, ...results]);
    const split = softmaxAttentionKernel(layout, variant, first.declarations, { ...views, output }, target);
    const combine = combineAttentionKernel(layout, parts, second.declarations, output, target);
    return [
      { kernel: split.source, workgroups: split.workgroups, bindings: first.bindings, flops, bytes: inputBytes + partialBytes },
      { kernel: combine.source, workgroups: combine.workgroups, bindings: second.bindings, flops: 2 * parts * size.query, bytes: partialBytes + 4 * (size.query + size.rows) },
    ];
  },
  gradient({ inputs, outputs: [y, logSumExp], attributes, outputGradients: [g, ofLogSumExp], needs }) {
    if (ofLogSumExp) throw new UsageError('softmaxAttention: the log-sum-exp is for the backward alone, no gradient flows through it.');
    if (!needs.some(Boolean)) return inputs.map(() => undefined);
    const gradients = apply(softmaxAttentionGradientOperation, [...inputs, y!, logSumExp!, g!], { ...attributes, needs });
    let next = 0;
    return inputs.map((_, i) => (needs[i] ? gradients[next++] : undefined));
  },
  reference(inputs, { inputs: specs, attributes }) {
    const layout = layoutOf(specs, attributes);
    const { queries, keys, headSize } = layout;
    const y = new Float64Array(layout.batch * queries * attributes.count);
    const logSumExp: number[] = [];
    forEachHead(inputs, layout, (b, h, q, k, v) => {
      for (let n = 0; n < queries; n++) {
        const { probabilities, logSum } = softmaxRow(q(n), Array.from({ length: keys }, (_, m) => k(m)));
        logSumExp.push(logSum);
        const row = y.subarray((b * queries + n) * attributes.count + h * headSize);
        probabilities.forEach((p, m) => v(m).forEach((value, c) => { row[c]! += p * value; }));
      }
    });
    return [y, Float64Array.from(logSumExp)];
  },
};

type Rows = (n: number) => Float64Array;

/** Head by head, with functions that give the rows (views of `d` channels) of its queries, keys and values. */
function forEachHead(inputs: readonly ReferenceArray[], layout: Layout, body: (b: number, h: number, query: Rows, key: Rows, value: Rows) => void): void {
  for (let b = 0; b < layout.batch; b++) {
    for (let h = 0; h < layout.heads; h++) {
      const rows = (slice: HeadSlice): Rows => (n) => rowOf(inputs[slice.input]!, slice, layout.headSize, b, h, n);
      body(b, h, rows(layout.query), rows(layout.key), rows(layout.value));
    }
  }
}

function rowOf(data: ReferenceArray, slice: HeadSlice, headSize: number, b: number, h: number, n: number): Float64Array {
  const start = (b * slice.rows + n) * slice.stride + slice.offset + h * headSize;
  return data.subarray(start, start + headSize);
}

const dot = (a: Float64Array, b: Float64Array): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);

function softmaxRow(query: Float64Array, keys: readonly Float64Array[]): { probabilities: number[]; logSum: number } {
  const logits = keys.map((key) => dot(query, key) / Math.sqrt(query.length));
  const top = Math.max(...logits);
  const logSum = top + Math.log(logits.reduce((sum, s) => sum + Math.exp(s - top), 0));
  return { probabilities: logits.map((s) => Math.exp(s - logSum)), logSum };
}

/** Inputs: the sources of the slices, y, its log-sum-exp, the gradient of y. Outputs: the gradients of the sources that are wanted. */
export const softmaxAttentionGradientOperation: Operation<GradientAttributes> = {
  name: 'softmaxAttentionGradient',
  outputs: (inputs, { sources, needs }) => inputs.slice(0, sources).filter((_, i) => needs[i]).map(({ shape }) => ({ shape, dtype: 'f32' as const })),
  kernels({ inputs, attributes, target, read, write, scratch }) {
    const layout = layoutOf(inputs, attributes);
    const { sources, needs } = attributes;
    const size = sizes(layout);
    const views = viewsOf('x', layout);
    const gradientViews = viewsOf('dx', layout);
    const wanted = (slice: HeadSlice): boolean => needs[slice.input]!;
    const outputOf = (slice: HeadSlice): Binding => write(needs.slice(0, slice.input).filter(Boolean).length);
    const [y, g] = [wholeView('y', layout), wholeView('g', layout)];
    const rowBytes = 16 * chunksOf(layout.headSize);
    const dispatches: Dispatch[] = [];

    for (const [input, spec] of inputs.slice(0, sources).entries()) {
      const [batch, rows, stride] = spec.shape as [number, number, number];
      if (!needs[input]) continue;
      for (const { start, end } of uncoveredChannels([layout.query, layout.key, layout.value], attributes.count, input)) {
        const { source, workgroups } = zeroChannelsKernel(batch * rows, stride, start, end, target);
        dispatches.push({ kernel: source, workgroups, bindings: [write(needs.slice(0, input).filter(Boolean).length)], flops: 0, bytes: 4 * batch * rows * (end - start) });
      }
    }

    const delta = scratch(4 * size.rows);
    if (wanted(layout.query) || wanted(layout.key)) {
      const { declarations, bindings } = bind([
        { name: 'y', type: y.type, binding: read(sources) }, { name: 'g', type: g.type, binding: read(sources + 2) }, { name: 'delta', type: 'f32', binding: delta.write },
      ]);
      const { source, workgroups } = attentionDeltaKernel(layout, declarations, y, g, target);
      dispatches.push({ kernel: source, workgroups, bindings, flops: 2 * size.query, bytes: 4 * (2 * size.query + size.rows) });
    }

    const read4: Bound[] = (['query', 'key', 'value'] as const).map((what) => ({ name: views[what].variable, type: views[what].type, binding: read(layout[what].input) }));
    const addSide = (side: 'query' | 'key', slices: readonly ('query' | 'key' | 'value')[]): void => {
      const results = slices.filter((what) => wanted(layout[what]));
      if (results.length === 0) return;
      const [rows, others] = side === 'query' ? [layout.queries, layout.keys] : [layout.keys, layout.queries];
      const variant = backwardVariant(layout, rows, others, target);
      const parts = partsOf(variant);
      const needsDelta = results.some((what) => what !== 'value');
      const outputs: Bound[] = results.map((what) => ({ name: gradientViews[what].variable, type: gradientViews[what].type, binding: outputOf(layout[what]) }));
      const partialBytes = parts === 1 ? 0 : results.length * layout.batch * layout.heads * rows * parts * rowBytes;
      const partial = parts === 1 ? undefined : scratch(partialBytes);
      const { declarations, bindings } = bind([
        ...read4,
        { name: 'g', type: g.type, binding: read(sources + 2) },
        { name: 'logSumExp', type: 'f32', binding: read(sources + 1) },
        ...(needsDelta ? [{ name: 'delta', type: 'f32', binding: delta.read }] : []),
        ...(partial ? [{ name: 'partial', type: 'vec4f', binding: partial.write }] : outputs),
      ]);
      const gradients = Object.fromEntries(results.map((what) => [`${what}Gradient`, gradientViews[what]]));
      const { source, workgroups } = attentionGradientKernel(side, layout, variant, declarations, { ...views, outputGradient: g, ...gradients }, target);
      const resultBytes = 4 * layout.batch * rows * attributes.count * results.length;
      dispatches.push({
        kernel: source, workgroups, bindings,
        flops: size.pairs * ((4 + 2 * results.length) * layout.headSize + 6),
        bytes: 4 * (2 * size.query + 2 * size.key + 2 * size.rows) + (partial ? partialBytes : resultBytes),
      });
      if (!partial) return;
      const second = bind([{ name: 'partial', type: 'vec4f', binding: partial.read }, ...outputs]);
      const combine = combineGradientKernel(layout, rows, parts, second.declarations, results.map((what) => gradientViews[what]), target);
      dispatches.push({ kernel: combine.source, workgroups: combine.workgroups, bindings: second.bindings, flops: (parts * resultBytes) / 4, bytes: partialBytes + resultBytes });
    };
    addSide('query', ['query']);
    addSide('key', ['key', 'value']);
    return dispatches;
  },
  reference(inputs, { inputs: specs, attributes }) {
    const layout = layoutOf(specs, attributes);
    const { queries, keys, headSize } = layout;
    const { sources, needs } = attributes;
    const g = inputs[sources + 2]!;
    const gradients = inputs.slice(0, sources).map((x) => new Float64Array(x.length));
    forEachHead(inputs, layout, (b, h, q, k, v) => {
      const gradientRow = (slice: HeadSlice, n: number): Float64Array => rowOf(gradients[slice.input]!, slice, headSize, b, h, n);
      const addTo = (row: Float64Array, factor: number, x: Float64Array): void => x.forEach((value, c) => { row[c]! += factor * value; });
      for (let n = 0; n < queries; n++) {
        const gRow = g.subarray((b * queries + n) * attributes.count + h * headSize).subarray(0, headSize);
        const { probabilities } = softmaxRow(q(n), Array.from({ length: keys }, (_, m) => k(m)));
        const slopes = probabilities.map((_, m) => dot(gRow, v(m)));
        const mean = probabilities.reduce((sum, p, m) => sum + p * slopes[m]!, 0);
        probabilities.forEach((p, m) => {
          const ds = (p * (slopes[m]! - mean)) / Math.sqrt(headSize);
          addTo(gradientRow(layout.query, n), ds, k(m));
          addTo(gradientRow(layout.key, m), ds, q(n));
          addTo(gradientRow(layout.value, m), p, gRow);
        });
      }
    });
    return gradients.filter((_, i) => needs[i]);
  },
};

/**
 * softmax(q k^T d^-1/2) v, head h owning channels h d .. h d + d - 1 of each slice (d = C / numHeads).
 * @param query C channels of a tensor [B, Nq, ..]; see {@link channels}
 * @param key C channels of a tensor [B, Nk, ..], which may be the same one
 * @param value likewise
 * @returns [B, Nq, C]
 * @throws UsageError where the slices don't fit together
 */
export function softmaxAttention({ query, key, value, numHeads }: {
  query: ChannelSlice; key: ChannelSlice; value: ChannelSlice; numHeads: number;
}): Tensor {
  const { inputs, places } = packSlices([query, key, value]);
  const { count } = query;
  if (key.count !== count || value.count !== count) {
    throw new UsageError(`softmaxAttention: query, key and value have ${count}, ${key.count} and ${value.count} channels, expected the same number.`);
  }
  return apply(softmaxAttentionOperation, inputs, { numHeads, count, query: places[0]!, key: places[1]!, value: places[2]!, sources: inputs.length })[0]!;
}
