/**
 * The weights of the INP-guided decoder's attention, to be looked at: qn and kn are the queries and keys over their norms,
 * A = max(0, learnScale[h] qn kn^T). No softmax: a token that resembles no prototype gets nothing, which is what keeps
 * anomalies from being reconstructed. learnScale may be negative. Norms are clamped at 1e-12 as PyTorch's F.normalize does.
 * The attention itself is foldPrototypes and foldedAttention.
 */
import { normalizeEpsilon, prototypeWeightsKernel } from '../../shaders/prototype-attention.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { attentionSizes, bind, boundRows, dot, forEachHead, layoutOf, packSlices, viewsOf, type AttentionAttributes, type AttentionLayout } from './attention-layout.ts';
import type { ChannelSlice } from './channel-slice.ts';

/** The inputs are the sources of the slices, then learnScale. */
function layoutFor(inputs: readonly TensorSpec[], attributes: AttentionAttributes): AttentionLayout {
  const layout = layoutOf('prototypeAttentionWeights', inputs, attributes);
  const scale = inputs[attributes.sources]!;
  if (sizeOf(scale.shape) !== attributes.numHeads) {
    throw new UsageError(`prototypeAttentionWeights: learnScale has shape [${scale.shape.join(', ')}], expected one value for each of ${attributes.numHeads} heads.`);
  }
  return layout;
}

const normalized = (x: Float64Array): Float64Array => x.map((value) => value / Math.max(Math.sqrt(dot(x, x)), normalizeEpsilon));

/** Output A [B, heads, N, M]. For inspection: it has no gradient. */
export const prototypeAttentionWeightsOperation: Operation<AttentionAttributes> = {
  name: 'prototypeAttentionWeights',
  outputs(inputs, attributes) {
    const { batch, heads, queries, keys } = layoutFor(inputs, attributes);
    return [{ shape: [batch, heads, queries, keys], dtype: 'f32' }];
  },
  kernels({ inputs, attributes, target, read, write }) {
    const layout = layoutFor(inputs, attributes);
    const views = viewsOf('x', layout);
    const size = attentionSizes(layout);
    const { declarations, bindings } = bind([
      boundRows(views.query, read(layout.query.input)), boundRows(views.key, read(layout.key.input)),
      { name: 'learnScale', type: 'f32', binding: read(attributes.sources) },
      { name: 'weights', type: 'f32', binding: write(0) },
    ]);
    const { source, workgroups } = prototypeWeightsKernel(layout, declarations, views, target);
    return [{
      kernel: source, workgroups, bindings,
      flops: size.pairs * (2 * layout.headSize + 4) + 2 * size.query,
      bytes: 4 * (size.query + size.key + layout.heads + size.pairs),
    }];
  },
  reference(inputs, { inputs: specs, attributes }) {
    const layout = layoutFor(specs, attributes);
    const weights: number[] = [];
    forEachHead(layout, (_b, h, rowsIn) => {
      const { query, key } = rowsIn(inputs);
      for (let n = 0; n < layout.queries; n++) {
        for (let m = 0; m < layout.keys; m++) weights.push(Math.max(0, inputs[attributes.sources]![h]! * dot(normalized(query(n)), normalized(key(m)))));
      }
    });
    return [Float64Array.from(weights)];
  },
};

export interface PrototypeWeightsInputs {
  /** C channels of a tensor [B, N, ..]; see `channels`. */
  readonly query: ChannelSlice;
  /** C channels of a tensor [B, M, ..]. */
  readonly key: ChannelSlice;
  /** [heads] or [heads, 1, 1] */
  readonly learnScale: Tensor;
  /** Head h owns channels h d .. h d + d - 1 of each slice, d = C / numHeads. */
  readonly numHeads: number;
}

/**
 * The weights A that the decoder's attention gives to the prototypes, for inspection.
 * @returns [B, heads, N, M]
 * @throws UsageError where the slices or learnScale don't fit
 */
export function prototypeAttentionWeights({ query, key, learnScale, numHeads }: PrototypeWeightsInputs): Tensor {
  const { inputs, attributes } = packSlices('prototypeAttentionWeights', { query, key }, numHeads);
  return apply(prototypeAttentionWeightsOperation, [...inputs, learnScale], attributes)[0]!;
}
