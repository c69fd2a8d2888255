/**
 * The INP-guided decoder's attention: qn and kn are the queries and keys over their norms, A = max(0, learnScale[h] qn kn^T),
 * y = A v for each head. No softmax: a token that resembles no prototype gets nothing, which is what keeps anomalies from
 * being reconstructed. learnScale may be negative. Norms are clamped at 1e-12 as PyTorch's F.normalize does.
 */
import {
  normalizeEpsilon, prototypeAttentionKernel, prototypeKeyGradientKernel, prototypePartialKernel, prototypeScaleGradientKernel,
  prototypeTokenGradientKernel, prototypeWeightsKernel, tokenChunks,
} from '../../shaders/prototype-attention.wgsl.ts';
import { chunksOf } from '../../shaders/head-rows.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Binding, Dispatch, Operation } from '../graph/operation.ts';
import { apply, sizeOf, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import {
  addTo, attentionSizes, bind, boundRows, dot, forEachHead, layoutOf, packSlices, roles, rowOf, viewsOf, wholeLayout, wholeView, zeroUncovered,
  type AttentionAttributes, type AttentionLayout, type Bound,
} from './attention-layout.ts';
import type { ChannelSlice } from './channel-slice.ts';

interface GradientAttributes extends AttentionAttributes {
  /** For each source of slices, and last for learnScale, whether its gradient is wanted: those are the outputs, in this order. */
  readonly needs: readonly boolean[];
}

/** The inputs are the sources of the slices, then learnScale. */
function layoutFor(inputs: readonly TensorSpec[], attributes: AttentionAttributes): AttentionLayout {
  const layout = layoutOf('prototypeAttention', inputs, attributes);
  const scale = inputs[attributes.sources]!;
  if (sizeOf(scale.shape) !== attributes.numHeads) {
    throw new UsageError(`prototypeAttention: learnScale has shape [${scale.shape.join(', ')}], expected one value for each of ${attributes.numHeads} heads.`);
  }
  return layout;
}

/** Output y [B, N, C]. */
export const prototypeAttentionOperation: Operation<AttentionAttributes> = {
  name: 'prototypeAttention',
  outputs(inputs, attributes) {
    const { batch, queries } = layoutFor(inputs, attributes);
    return [{ shape: [batch, queries, attributes.count], dtype: 'f32' }];
  },
  kernels({ inputs, attributes, target, read, write }) {
    const layout = layoutFor(inputs, attributes);
    const views = viewsOf('x', layout);
    const output = wholeView('y', layout);
    const size = attentionSizes(layout);
    const { declarations, bindings } = bind([
      ...roles.map((role) => boundRows(views[role], read(layout[role].input))),
      { name: 'learnScale', type: 'f32', binding: read(attributes.sources) },
      boundRows(output, write(0)),
    ]);
    const { source, workgroups } = prototypeAttentionKernel(layout, declarations, { ...views, output }, target);
    return [{
      kernel: source, workgroups, bindings,
      flops: size.pairs * (4 * layout.headSize + 4) + 2 * size.query,
      bytes: 4 * (2 * size.query + 2 * size.key + layout.heads),
    }];
  },
  gradient({ inputs, attributes, outputGradients: [g], needs }) {
    const gradients = apply(prototypeAttentionGradientOperation, [...inputs, g!], { ...attributes, needs });
    let next = 0;
    return needs.map((needed) => (needed ? gradients[next++] : undefined));
  },
  reference(inputs, { inputs: specs, attributes }) {
    const layout = layoutFor(specs, attributes);
    const y = new Float64Array(layout.batch * layout.queries * attributes.count);
    forEachHead(layout, (b, h, rowsIn) => {
      const { query, key, value } = rowsIn(inputs);
      for (let n = 0; n < layout.queries; n++) {
        for (let m = 0; m < layout.keys; m++) {
          const a = Math.max(0, inputs[attributes.sources]![h]! * dot(normalized(query(n)), normalized(key(m))));
          addTo(rowOf(y, wholeLayout(layout), layout.headSize, b, h, n), a, value(m));
        }
      }
    });
    return [y];
  },
};

const clampedNorm = (x: Float64Array): number => Math.max(Math.sqrt(dot(x, x)), normalizeEpsilon);
const normalized = (x: Float64Array): Float64Array => x.map((value) => value / clampedNorm(x));

/** The gradient by x, given that by x / max(|x|, eps). */
function throughNormalization(x: Float64Array, g: Float64Array): Float64Array {
  const unit = normalized(x);
  const along = Math.sqrt(dot(x, x)) >= normalizeEpsilon ? dot(unit, g) : 0;
  return g.map((value, i) => (value - unit[i]! * along) / clampedNorm(x));
}

/** Inputs: the sources of the slices, learnScale, the gradient of y. Outputs: the gradients of sources and learnScale that are wanted. */
export const prototypeAttentionGradientOperation: Operation<GradientAttributes> = {
  name: 'prototypeAttentionGradient',
  outputs: (inputs, { sources, needs }) => inputs.slice(0, sources + 1).filter((_, i) => needs[i]).map(({ shape }) => ({ shape, dtype: 'f32' as const })),
  kernels(context) {
    const { inputs, attributes, target, read, write, scratch } = context;
    const layout = layoutFor(inputs, attributes);
    const { sources, needs } = attributes;
    const size = attentionSizes(layout);
    const views = viewsOf('x', layout);
    const gradientViews = viewsOf('dx', layout);
    const g = wholeView('g', layout);
    const wanted = inputs.map((_, i) => i).filter((i) => needs[i]);
    const outputOf = (input: number): Binding => write(wanted.indexOf(input));
    const viewIfWanted = (role: 'query' | 'key' | 'value') => (needs[layout[role].input] ? gradientViews[role] : undefined);
    const boundIfWanted = (role: 'query' | 'key' | 'value'): Bound[] => (needs[layout[role].input] ? [boundRows(gradientViews[role], outputOf(layout[role].input))] : []);
    const [queryGradient, keyGradient, valueGradient] = roles.map(viewIfWanted);
    const wantsScale = needs[sources]!;
    const wantsPrototypes = keyGradient !== undefined || valueGradient !== undefined || wantsScale;
    const learnScale: Bound = { name: 'learnScale', type: 'f32', binding: read(sources) };
    const gradientOfOutput = boundRows(g, read(sources + 1));
    const dispatches: Dispatch[] = zeroUncovered(layout, attributes.count, wanted.filter((i) => i < sources), context, outputOf);

    const weights = scratch(wantsPrototypes ? 8 * size.pairs : 0);
    const tokens = bind([
      ...roles.map((role) => boundRows(views[role], read(layout[role].input))),
      learnScale, gradientOfOutput,
      ...boundIfWanted('query'),
      ...(wantsPrototypes ? [{ name: 'weights', type: 'vec2f', binding: weights.write }] : []),
    ]);
    const byToken = prototypeTokenGradientKernel(layout, tokens.declarations, { ...views, outputGradient: g, queryGradient, keepsWeights: wantsPrototypes }, target);
    dispatches.push({
      kernel: byToken.source, workgroups: byToken.workgroups, bindings: tokens.bindings,
      flops: size.pairs * ((queryGradient ? 6 : 4) * layout.headSize + 8),
      bytes: 4 * ((queryGradient ? 3 : 2) * size.query + 2 * size.key + (wantsPrototypes ? 2 * size.pairs : 0)),
    });
    if (!wantsPrototypes) return dispatches;

    const partialBytes = 16 * chunksOf(layout.headSize) * layout.batch * layout.heads * layout.keys * tokenChunks(layout);
    const [valueSums, keySums] = [scratch(partialBytes), scratch(partialBytes)];
    const sums = bind([
      boundRows(views.query, read(layout.query.input)), gradientOfOutput,
      { name: 'weights', type: 'vec2f', binding: weights.read },
      { name: 'partialValue', type: 'vec4f', binding: valueSums.write }, { name: 'partialKey', type: 'vec4f', binding: keySums.write },
    ]);
    const partial = prototypePartialKernel(layout, sums.declarations, { query: views.query, outputGradient: g }, target);
    dispatches.push({
      kernel: partial.source, workgroups: partial.workgroups, bindings: sums.bindings,
      flops: 4 * size.pairs * layout.headSize, bytes: 4 * (2 * size.query + 2 * size.pairs) + 2 * partialBytes,
    });

    const along = scratch(wantsScale ? 4 * layout.batch * layout.heads * layout.keys : 0);
    const combined = bind([
      ...(valueGradient ? [{ name: 'partialValue', type: 'vec4f', binding: valueSums.read }] : []),
      ...(keyGradient || wantsScale ? [{ name: 'partialKey', type: 'vec4f', binding: keySums.read }, boundRows(views.key, read(layout.key.input))] : []),
      ...(keyGradient ? [learnScale] : []),
      ...boundIfWanted('key'), ...boundIfWanted('value'),
      ...(wantsScale ? [{ name: 'alongKey', type: 'f32', binding: along.write }] : []),
    ]);
    const byPrototype = prototypeKeyGradientKernel(layout, combined.declarations, { key: views.key, keyGradient, valueGradient, keepsAlong: wantsScale }, target);
    dispatches.push({
      kernel: byPrototype.source, workgroups: byPrototype.workgroups, bindings: combined.bindings,
      flops: size.key * (2 * tokenChunks(layout) + 8), bytes: 2 * partialBytes + 12 * size.key,
    });

    if (wantsScale) {
      const { declarations, bindings } = bind([{ name: 'alongKey', type: 'f32', binding: along.read }, { name: 'scaleGradient', type: 'f32', binding: outputOf(sources) }]);
      const count = layout.batch * layout.heads * layout.keys;
      const { source, workgroups } = prototypeScaleGradientKernel(layout, declarations, target);
      dispatches.push({ kernel: source, workgroups, bindings, flops: count, bytes: 4 * (count + layout.heads) });
    }
    return dispatches;
  },
  reference(inputs, { inputs: specs, attributes }) {
    const layout = layoutFor(specs, attributes);
    const { sources, needs } = attributes;
    const learnScale = inputs[sources]!;
    const gradients = inputs.slice(0, sources + 1).map((x) => new Float64Array(x.length));
    forEachHead(layout, (b, h, rowsIn) => {
      const [at, gradientAt] = [rowsIn(inputs), rowsIn(gradients)];
      for (let n = 0; n < layout.queries; n++) {
        const g = rowOf(inputs[sources + 1]!, wholeLayout(layout), layout.headSize, b, h, n);
        const q = normalized(at.query(n));
        for (let m = 0; m < layout.keys; m++) {
          const k = normalized(at.key(m));
          const a = learnScale[h]! * dot(q, k);
          if (!(a > 0)) continue;
          const da = dot(g, at.value(m));
          addTo(gradientAt.value(m), a, g);
          addTo(gradientAt.query(n), learnScale[h]! * da, throughNormalization(at.query(n), k));
          addTo(gradientAt.key(m), learnScale[h]! * da, throughNormalization(at.key(m), q));
          gradients[sources]![h]! += da * dot(q, k);
        }
      }
    });
    return gradients.filter((_, i) => needs[i]);
  },
};

/** Inputs as {@link prototypeAttentionOperation}'s. Output A [B, heads, N, M]. For inspection: it has no gradient. */
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

export interface PrototypeAttentionInputs {
  /** C channels of a tensor [B, N, ..]; see `channels`. */
  readonly query: ChannelSlice;
  /** C channels of a tensor [B, M, ..]. */
  readonly key: ChannelSlice;
  /** C channels of a tensor [B, M, ..], which may be the same one. */
  readonly value: ChannelSlice;
  /** [heads] or [heads, 1, 1] */
  readonly learnScale: Tensor;
  /** Head h owns channels h d .. h d + d - 1 of each slice, d = C / numHeads. */
  readonly numHeads: number;
}

/**
 * The decoder's ReLU attention.
 * @returns [B, N, C]
 * @throws UsageError where the slices or learnScale don't fit
 */
export function prototypeAttention({ query, key, value, learnScale, numHeads }: PrototypeAttentionInputs): Tensor {
  const { inputs, attributes } = packSlices('prototypeAttention', { query, key, value }, numHeads);
  return apply(prototypeAttentionOperation, [...inputs, learnScale], attributes)[0]!;
}

/**
 * The weights A that {@link prototypeAttention} gives to the prototypes, for inspection.
 * @returns [B, heads, N, M]
 */
export function prototypeAttentionWeights({ query, key, learnScale, numHeads }: Omit<PrototypeAttentionInputs, 'value'>): Tensor {
  const { inputs, attributes } = packSlices('prototypeAttention', { query, key }, numHeads);
  return apply(prototypeAttentionWeightsOperation, [...inputs, learnScale], attributes)[0]!;
}
