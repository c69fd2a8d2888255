/**
 * Multi-head attention, y = softmax(q k^T d^-1/2) v for each head of d channels: the encoder's self-attention, and the INP
 * extractor's, where the prototype tokens ask the image. Queries, keys and values are channel slices, so that one linear
 * layer may compute several of them. The log-sum-exp of each row is kept for the backward, which recomputes the rest.
 */
import {
  attentionDeltaKernel, attentionGradientKernel, backwardVariant, combineAttentionKernel, combineGradientKernel,
  forwardVariant, partsOf, softmaxAttentionKernel, type NeighbourMask,
} from '../../shaders/softmax-attention.wgsl.ts';
import { chunksOf } from '../../shaders/head-rows.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Binding, Dispatch, Operation } from '../graph/operation.ts';
import { apply, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import {
  addTo, attentionSizes, bind, boundRows, dot, forEachHead, layoutOf, packSlices, roles, rowOf, viewsOf, wholeLayout, wholeView, zeroUncovered,
  type AttentionAttributes, type AttentionLayout, type Bound,
} from './attention-layout.ts';
import type { ChannelSlice } from './channel-slice.ts';

export interface SoftmaxAttentionAttributes extends AttentionAttributes {
  readonly masked?: NeighbourMask | undefined;
}

interface GradientAttributes extends SoftmaxAttentionAttributes {
  /** For each source of slices, whether its gradient is wanted: those are the outputs, in this order. */
  readonly needs: readonly boolean[];
}

function layoutFor(inputs: readonly TensorSpec[], attributes: SoftmaxAttentionAttributes): AttentionLayout & { masked?: NeighbourMask | undefined } {
  const layout = layoutOf('softmaxAttention', inputs, attributes);
  const { masked } = attributes;
  if (masked) {
    const { columns, radius } = masked;
    const rows = layout.keys / columns;
    // The token in the middle of the grid must have a key left.
    if (layout.queries !== layout.keys || !Number.isInteger(rows) || Math.max(rows, columns) < 2 * radius + 2) {
      throw new UsageError(`softmaxAttention: ${layout.queries} queries and ${layout.keys} keys in rows of ${columns} leave nothing beside ${2 * radius + 1} x ${2 * radius + 1} masked neighbours.`);
    }
  }
  return { ...layout, masked };
}

/** Outputs y [B, Nq, C] and the log-sum-exp [B, heads, Nq] of the scaled logits. */
export const softmaxAttentionOperation: Operation<SoftmaxAttentionAttributes> = {
  name: 'softmaxAttention',
  outputs(inputs, attributes) {
    const { batch, heads, queries } = layoutFor(inputs, attributes);
    return [{ shape: [batch, queries, attributes.count], dtype: 'f32' }, { shape: [batch, heads, queries], dtype: 'f32' }];
  },
  kernels({ inputs, attributes, target, read, write, scratch }) {
    const layout = layoutFor(inputs, attributes);
    const views = viewsOf('x', layout);
    const output = wholeView('y', layout);
    const variant = forwardVariant(layout, target);
    const parts = partsOf(variant);
    const size = attentionSizes(layout);
    const sources = roles.map((role) => boundRows(views[role], read(layout[role].input)));
    const results: Bound[] = [boundRows(output, write(0)), { name: 'logSumExp', type: 'f32', binding: write(1) }];
    const flops = size.pairs * (4 * layout.headSize + 8);
    const sourceBytes = 4 * (size.query + 2 * size.key);
    const resultBytes = 4 * (size.query + size.rows);
    if (parts === 1) {
      const { declarations, bindings } = bind([...sources, ...results]);
      const { source, workgroups } = softmaxAttentionKernel(layout, variant, declarations, { ...views, output }, target);
      return [{ kernel: source, workgroups, bindings, flops, bytes: sourceBytes + resultBytes }];
    }
    const sumBytes = 16 * chunksOf(layout.headSize) * size.rows * parts;
    const statisticsBytes = 8 * size.rows * parts;
    const [sums, statistics] = [scratch(sumBytes), scratch(statisticsBytes)];
    const partial = (access: 'read' | 'write'): Bound[] => [
      { name: 'partial', type: 'vec4f', binding: sums[access] }, { name: 'partialSoftmax', type: 'vec2f', binding: statistics[access] },
    ];
    const first = bind([...sources, ...partial('write')]);
    const second = bind([...partial('read'), ...results]);
    const split = softmaxAttentionKernel(layout, variant, first.declarations, { ...views, output }, target);
    const combine = combineAttentionKernel(layout, parts, second.declarations, output, target);
    const partialBytes = sumBytes + statisticsBytes;
    return [
      { kernel: split.source, workgroups: split.workgroups, bindings: first.bindings, flops, bytes: sourceBytes + partialBytes },
      { kernel: combine.source, workgroups: combine.workgroups, bindings: second.bindings, flops: 2 * parts * size.query, bytes: partialBytes + resultBytes },
    ];
  },
  gradient({ inputs, outputs: [y, logSumExp], attributes, outputGradients: [g, ofLogSumExp], needs }) {
    if (!g || ofLogSumExp) throw new UsageError('softmaxAttention: gradients flow through y alone; the log-sum-exp is kept for the backward.');
    const gradients = apply(softmaxAttentionGradientOperation, [...inputs, y!, logSumExp!, g], { ...attributes, needs });
    let next = 0;
    return needs.map((needed) => (needed ? gradients[next++] : undefined));
  },
  reference(inputs, { inputs: specs, attributes }) {
    const layout = layoutFor(specs, attributes);
    const y = new Float64Array(layout.batch * layout.queries * attributes.count);
    const logSumExp: number[] = [];
    forEachHead(layout, (b, h, rowsIn) => {
      const { query, key, value } = rowsIn(inputs);
      for (let n = 0; n < layout.queries; n++) {
        const { probabilities, logSum } = softmaxRow(query(n), n, layout, key);
        logSumExp.push(logSum);
        probabilities.forEach((p, m) => addTo(rowOf(y, wholeLayout(layout), layout.headSize, b, h, n), p, value(m)));
      }
    });
    return [y, Float64Array.from(logSumExp)];
  },
};

function softmaxRow(query: Float64Array, n: number, { keys, masked }: ReturnType<typeof layoutFor>, key: (m: number) => Float64Array): { probabilities: number[]; logSum: number } {
  const isMasked = (m: number): boolean => masked !== undefined
    && Math.max(Math.abs(Math.floor(n / masked.columns) - Math.floor(m / masked.columns)), Math.abs((n % masked.columns) - (m % masked.columns))) <= masked.radius;
  const logits = Array.from({ length: keys }, (_, m) => (isMasked(m) ? -Infinity : dot(query, key(m)) / Math.sqrt(query.length)));
  const top = Math.max(...logits);
  const logSum = top + Math.log(logits.reduce((sum, s) => sum + Math.exp(s - top), 0));
  return { probabilities: logits.map((s) => Math.exp(s - logSum)), logSum };
}

/** Inputs: the sources of the slices, y, its log-sum-exp, the gradient of y. Outputs: the gradients of the sources that are wanted. */
export const softmaxAttentionGradientOperation: Operation<GradientAttributes> = {
  name: 'softmaxAttentionGradient',
  outputs: (inputs, { sources, needs }) => inputs.slice(0, sources).filter((_, i) => needs[i]).map(({ shape }) => ({ shape, dtype: 'f32' as const })),
  kernels(context) {
    const { inputs, attributes, target, read, write, scratch } = context;
    const layout = layoutFor(inputs, attributes);
    const { sources, needs } = attributes;
    const size = attentionSizes(layout);
    const views = viewsOf('x', layout);
    const gradientViews = viewsOf('dx', layout);
    const [y, g] = [wholeView('y', layout), wholeView('g', layout)];
    const wanted = inputs.map((_, i) => i).filter((i) => i < sources && needs[i]);
    const outputOf = (source: number): Binding => write(wanted.indexOf(source));
    const dispatches: Dispatch[] = zeroUncovered(layout, attributes.count, wanted, context, outputOf);

    const delta = scratch(4 * size.rows);
    if (needs[layout.query.input] || needs[layout.key.input]) {
      const { declarations, bindings } = bind([boundRows(y, read(sources)), boundRows(g, read(sources + 2)), { name: 'delta', type: 'f32', binding: delta.write }]);
      const { source, workgroups } = attentionDeltaKernel(layout, declarations, y, g, target);
      dispatches.push({ kernel: source, workgroups, bindings, flops: 2 * size.query, bytes: 4 * (2 * size.query + size.rows) });
    }

    const addSide = (side: 'query' | 'key', ofSide: readonly (typeof roles)[number][]): void => {
      const results = ofSide.filter((role) => needs[layout[role].input]);
      if (results.length === 0) return;
      const [rows, others] = side === 'query' ? [layout.queries, layout.keys] : [layout.keys, layout.queries];
      const variant = backwardVariant(layout, rows, others, target);
      const parts = partsOf(variant);
      const outputs = results.map((role) => boundRows(gradientViews[role], outputOf(layout[role].input)));
      const partialBytes = 16 * chunksOf(layout.headSize) * layout.batch * layout.heads * rows * parts * results.length;
      const partial = parts > 1 ? scratch(partialBytes) : undefined;
      const { declarations, bindings } = bind([
        ...roles.map((role) => boundRows(views[role], read(layout[role].input))),
        boundRows(g, read(sources + 2)),
        { name: 'logSumExp', type: 'f32', binding: read(sources + 1) },
        ...(results.some((role) => role !== 'value') ? [{ name: 'delta', type: 'f32', binding: delta.read }] : []),
        ...(partial ? [{ name: 'partial', type: 'vec4f', binding: partial.write }] : outputs),
      ]);
      const gradients = Object.fromEntries(results.map((role) => [`${role}Gradient`, gradientViews[role]]));
      const { source, workgroups } = attentionGradientKernel(side, layout, variant, declarations, { ...views, outputGradient: g, ...gradients }, target);
      const resultBytes = 4 * layout.batch * rows * attributes.count * results.length;
      dispatches.push({
        kernel: source, workgroups, bindings,
        flops: size.pairs * ((4 + 2 * results.length) * layout.headSize + 6),
        bytes: 4 * (2 * size.query + 2 * size.key + 2 * size.rows) + (partial ? partialBytes : resultBytes),
      });
      if (!partial) return;
      const second = bind([{ name: 'partial', type: 'vec4f', binding: partial.read }, ...outputs]);
      const combine = combineGradientKernel(layout, rows, parts, second.declarations, results.map((role) => gradientViews[role]), target);
      dispatches.push({ kernel: combine.source, workgroups: combine.workgroups, bindings: second.bindings, flops: (parts * resultBytes) / 4, bytes: partialBytes + resultBytes });
    };
    addSide('query', ['query']);
    addSide('key', ['key', 'value']);
    return dispatches;
  },
  reference(inputs, { inputs: specs, attributes }) {
    const layout = layoutFor(specs, attributes);
    const { sources, needs } = attributes;
    const gradients = inputs.slice(0, sources).map((x) => new Float64Array(x.length));
    forEachHead(layout, (b, h, rowsIn) => {
      const [at, gradientAt] = [rowsIn(inputs), rowsIn(gradients)];
      for (let n = 0; n < layout.queries; n++) {
        const g = rowOf(inputs[sources + 2]!, wholeLayout(layout), layout.headSize, b, h, n);
        const { probabilities } = softmaxRow(at.query(n), n, layout, at.key);
        const slopes = probabilities.map((_, m) => dot(g, at.value(m)));
        const mean = probabilities.reduce((sum, p, m) => sum + p * slopes[m]!, 0);
        probabilities.forEach((p, m) => {
          const ds = (p * (slopes[m]! - mean)) / Math.sqrt(layout.headSize);
          addTo(gradientAt.query(n), ds, at.key(m));
          addTo(gradientAt.key(m), ds, at.query(n));
          addTo(gradientAt.value(m), p, g);
        });
      }
    });
    return gradients.filter((_, i) => needs[i]);
  },
};

/**
 * softmax(q k^T d^-1/2) v, head h owning channels h d .. h d + d - 1 of each slice (d = C / numHeads).
 * @param query C channels of a tensor [B, Nq, ..]; see `channels`
 * @param key C channels of a tensor [B, Nk, ..], which may be the same one
 * @param value likewise
 * @param masked leaves out each token's neighbours, itself included, where queries and keys are the tokens of one grid
 * @returns [B, Nq, C]
 * @throws UsageError where the slices don't fit together
 */
export function softmaxAttention({ query, key, value, numHeads, masked }: {
  query: ChannelSlice; key: ChannelSlice; value: ChannelSlice; numHeads: number; masked?: NeighbourMask | undefined;
}): Tensor {
  const { inputs, attributes } = packSlices('softmaxAttention', { query, key, value }, numHeads);
  return apply(softmaxAttentionOperation, inputs, { ...attributes, ...(masked && { masked }) })[0]!;
}
