/**
 * The INP-guided decoder's attention with its output projection folded into the prototypes (fold-prototypes.ts): with
 * qn the queries over their norms, A[n, h, m] = max(0, qn_h . keys[m, h]) and z = bias + sum over h and m of A[n, h, m]
 * projected[h M + m]. Over few prototypes that costs a fraction of projecting all tokens.
 */
import {
  foldedAttentionKernel, foldedPrototypeGradientKernel, foldedTokenGradientKernel, foldedVariant, mostFoldedRows, weightColumns, type FoldedShape,
} from '../../shaders/folded-attention.wgsl.ts';
import { HeadRows } from '../../shaders/head-rows.wgsl.ts';
import { normalizeEpsilon } from '../../shaders/prototype-attention.wgsl.ts';
import { UsageError } from '../errors.ts';
import type { Dispatch, Operation } from '../graph/operation.ts';
import { apply, type Tensor, type TensorSpec } from '../graph/tensor.ts';
import { addTo, bind, boundRows, dot } from './attention-layout.ts';

export { mostFoldedRows };

export interface FoldedAttentionAttributes {
  readonly numHeads: number;
}

interface GradientAttributes extends FoldedAttentionAttributes {
  /** For query, keys and projected, whether the gradient is wanted: those are the outputs, in this order. */
  readonly needs: readonly boolean[];
}

function shapeOf([query, keys, projected]: readonly TensorSpec[], { numHeads: heads }: FoldedAttentionAttributes): FoldedShape {
  const [batch, tokens, channels] = query!.shape;
  const prototypes = keys!.shape[1]!;
  const fits = query!.shape.length === 3 && keys!.shape.join() === [batch, prototypes, channels].join()
    && projected!.shape.join() === [batch, prototypes * heads + 1, channels].join();
  if (!fits) {
    throw new UsageError(
      `foldedAttention: query [${query!.shape.join(', ')}], keys [${keys!.shape.join(', ')}], projected [${projected!.shape.join(', ')}] with ${heads} heads; expected [B, N, C], [B, M, C], [B, M heads + 1, C].`,
    );
  }
  if (channels! % heads !== 0) throw new UsageError(`foldedAttention: ${channels} channels do not divide into ${heads} heads.`);
  if (prototypes * heads > mostFoldedRows) {
    throw new UsageError(`foldedAttention: ${prototypes} prototypes times ${heads} heads are more than ${mostFoldedRows}, which is what workgroup memory has room for: use fewer prototypes.`);
  }
  return { batch: batch!, tokens: tokens!, prototypes, heads, channels: channels! };
}

/** Each tensor's rows, as the kernels read them: by heads, or whole. */
function viewsOf({ tokens, prototypes, heads, channels }: FoldedShape) {
  const view = (variable: string, rows: number, headSize: number): HeadRows => {
    const layout = { rows, stride: channels, offset: 0 };
    return new HeadRows(variable, layout, headSize, HeadRows.fits(layout, headSize));
  };
  const folded = prototypes * heads + 1;
  return {
    query: view('query', tokens, channels / heads), keys: view('keys', prototypes, channels / heads), projected: view('projected', folded, channels),
    output: view('z', tokens, channels), outputGradient: view('dz', tokens, channels),
    queryGradient: view('dquery', tokens, channels / heads), keyGradient: view('dkeys', prototypes, channels / heads), projectedGradient: view('dprojected', folded, channels),
  };
}

/** Elements of the tensors, and the multiply-adds of one pass over the folded rows and over the keys. */
function sizesOf({ batch, tokens, prototypes, heads, channels }: FoldedShape) {
  const rows = batch * tokens;
  return { query: rows * channels, keys: batch * prototypes * channels, projected: batch * (prototypes * heads + 1) * channels, folded: rows * prototypes * heads * channels, scores: rows * prototypes * channels };
}

/** Inputs query, keys, projected. Output z [B, N, C]. */
export const foldedAttentionOperation: Operation<FoldedAttentionAttributes> = {
  name: 'foldedAttention',
  outputs: (inputs, attributes) => {
    shapeOf(inputs, attributes);
    return [{ shape: inputs[0]!.shape, dtype: 'f32' }];
  },
  kernels({ inputs, attributes, target, read, write }) {
    const shape = shapeOf(inputs, attributes);
    const views = viewsOf(shape);
    const size = sizesOf(shape);
    const { declarations, bindings } = bind([
      boundRows(views.query, read(0)), boundRows(views.keys, read(1)), boundRows(views.projected, read(2)), boundRows(views.output, write(0)),
    ]);
    const { source, workgroups } = foldedAttentionKernel(shape, foldedVariant(shape, target), declarations, views, target);
    return [{
      kernel: source, workgroups, bindings,
      flops: 2 * (size.folded + size.scores + size.query), bytes: 4 * (2 * size.query + size.keys + size.projected),
    }];
  },
  gradient({ inputs, attributes, outputGradients: [g], needs }) {
    const gradients = apply(foldedAttentionGradientOperation, [...inputs, g!], { ...attributes, needs });
    let next = 0;
    return needs.map((needed) => (needed ? gradients[next++] : undefined));
  },
  reference(inputs, { inputs: specs, attributes }) {
    const shape = shapeOf(specs, attributes);
    const { channels } = shape;
    const z = new Float64Array(shape.batch * shape.tokens * channels);
    forEachToken(shape, inputs, (row, pairs, projected) => {
      const to = z.subarray(row * channels, (row + 1) * channels);
      to.set(projected(shape.prototypes * shape.heads));
      for (const { r, s } of pairs) if (s > 0) addTo(to, s, projected(r));
    });
    return [z];
  },
};

interface Pair {
  readonly h: number;
  readonly m: number;
  /** Row of `projected`. */
  readonly r: number;
  readonly query: Float64Array;
  readonly unit: Float64Array;
  readonly norm: number;
  readonly s: number;
  /** Where the key begins in `keys`. */
  readonly keyAt: number;
}

/** For references: every token with its pairs of a head and a prototype, and the rows of its image's `projected`. */
function forEachToken({ batch, tokens, prototypes, heads, channels }: FoldedShape, [query, keys, projected]: readonly Float64Array[], body: (row: number, pairs: Pair[], projected: (r: number) => Float64Array, b: number) => void): void {
  const d = channels / heads;
  for (let b = 0; b < batch; b++) {
    const projectedRow = (r: number): Float64Array => rowAt(projected!, b * (prototypes * heads + 1) + r, channels);
    for (let row = b * tokens; row < (b + 1) * tokens; row++) {
      const pairs = Array.from({ length: heads * prototypes }, (_, r): Pair => {
        const [h, m] = [Math.floor(r / prototypes), r % prototypes];
        const q = query!.subarray(row * channels + h * d, row * channels + (h + 1) * d);
        const norm = Math.sqrt(dot(q, q));
        const unit = q.map((x) => x / Math.max(norm, normalizeEpsilon));
        const keyAt = (b * prototypes + m) * channels + h * d;
        return { h, m, r, query: q, unit, norm, keyAt, s: dot(unit, keys!.subarray(keyAt, keyAt + d)) };
      });
      body(row, pairs, projectedRow, b);
    }
  }
}

const rowAt = (x: Float64Array, row: number, width: number): Float64Array => x.subarray(row * width, (row + 1) * width);

/** Inputs query, keys, projected, the gradient of z. Outputs: the gradients of the first three that are wanted. */
export const foldedAttentionGradientOperation: Operation<GradientAttributes> = {
  name: 'foldedAttentionGradient',
  outputs: (inputs, { needs }) => inputs.slice(0, 3).filter((_, i) => needs[i]).map(({ shape }) => ({ shape, dtype: 'f32' as const })),
  kernels({ inputs, attributes, target, read, write, scratch }) {
    const shape = shapeOf(inputs, attributes);
    const variant = foldedVariant(shape, target);
    const { needs: [wantsQuery, wantsKeys, wantsProjected] } = attributes;
    const views = viewsOf(shape);
    const size = sizesOf(shape);
    const wantsPrototypes = wantsKeys || wantsProjected || false;
    const outputs = [0, 1, 2].filter((i) => attributes.needs[i]);
    const outputOf = (i: number) => write(outputs.indexOf(i));
    const columns = weightColumns(shape);
    const weightBytes = 4 * shape.batch * shape.tokens * columns;
    const weights = scratch(wantsPrototypes ? weightBytes : 0);
    const gradientOfOutput = boundRows(views.outputGradient, read(3));

    const tokens = bind([
      boundRows(views.query, read(0)), boundRows(views.keys, read(1)), boundRows(views.projected, read(2)), gradientOfOutput,
      ...(wantsQuery ? [boundRows(views.queryGradient, outputOf(0))] : []),
      ...(wantsPrototypes ? [{ name: 'weights', type: 'f32', binding: weights.write }] : []),
    ]);
    const byToken = foldedTokenGradientKernel(shape, variant, tokens.declarations, { ...views, queryGradient: wantsQuery ? views.queryGradient : undefined, keepsWeights: wantsPrototypes }, target);
    const dispatches: Dispatch[] = [{
      kernel: byToken.source, workgroups: byToken.workgroups, bindings: tokens.bindings,
      flops: 2 * (size.folded + (wantsQuery ? 2 : 1) * size.scores + size.query),
      bytes: 4 * ((wantsQuery ? 3 : 2) * size.query + size.keys + size.projected) + (wantsPrototypes ? weightBytes : 0),
    }];
    if (!wantsPrototypes) return dispatches;

    const sums = bind([
      { name: 'weights', type: 'f32', binding: weights.read },
      ...(wantsProjected ? [gradientOfOutput, boundRows(views.projectedGradient, outputOf(2))] : []),
      ...(wantsKeys ? [boundRows(views.query, read(0)), boundRows(views.keyGradient, outputOf(1))] : []),
    ]);
    const byPrototype = foldedPrototypeGradientKernel(shape, variant, sums.declarations, {
      ...views, keyGradient: wantsKeys ? views.keyGradient : undefined, projectedGradient: wantsProjected ? views.projectedGradient : undefined,
    }, target);
    dispatches.push({
      kernel: byPrototype.source, workgroups: byPrototype.workgroups, bindings: sums.bindings,
      flops: 2 * ((wantsProjected ? size.folded + size.query : 0) + (wantsKeys ? size.scores : 0)),
      bytes: 4 * ((wantsProjected ? size.query + size.projected : 0) + (wantsKeys ? size.query + size.keys : 0)) + weightBytes,
    });
    return dispatches;
  },
  reference(inputs, { inputs: specs, attributes }) {
    const shape = shapeOf(specs, attributes);
    const { prototypes, heads, channels } = shape;
    const [query, keys, projected, g] = inputs as [Float64Array, Float64Array, Float64Array, Float64Array];
    const [dQuery, dKeys, dProjected] = [query, keys, projected].map((x) => new Float64Array(x.length)) as [Float64Array, Float64Array, Float64Array];
    const d = channels / heads;
    forEachToken(shape, inputs, (row, pairs, projectedRow, b) => {
      const dz = rowAt(g, row, channels);
      const to = (r: number): Float64Array => rowAt(dProjected, b * (prototypes * heads + 1) + r, channels);
      addTo(to(prototypes * heads), 1, dz);
      for (const { h, r, unit, norm, s, keyAt } of pairs) {
        if (!(s > 0)) continue;
        const e = dot(dz, projectedRow(r));
        addTo(to(r), s, dz);
        addTo(dKeys.subarray(keyAt, keyAt + d), e, unit);
        const along = norm >= normalizeEpsilon ? s : 0;
        const key = keys.subarray(keyAt, keyAt + d);
        addTo(dQuery.subarray(row * channels + h * d, row * channels + (h + 1) * d), e / Math.max(norm, normalizeEpsilon), key.map((k, i) => k - along * unit[i]!));
      }
    });
    return [dQuery, dKeys, dProjected].filter((_, i) => attributes.needs[i]);
  },
};

export interface FoldedAttentionInputs {
  /** [B, N, C]; head h owns channels h d .. h d + d - 1, d = C / numHeads. */
  readonly query: Tensor;
  /** [B, M, C], as foldPrototypes makes them: over their norms, times learnScale. */
  readonly keys: Tensor;
  /** [B, M numHeads + 1, C]: row h M + m belongs to head h and prototype m; the last row is added to every token. */
  readonly projected: Tensor;
  readonly numHeads: number;
}

/**
 * The decoder's ReLU attention together with its output projection.
 * @returns [B, N, C]
 * @throws UsageError where the tensors don't fit together, or M numHeads is larger than 512
 */
export function foldedAttention({ query, keys, projected, numHeads }: FoldedAttentionInputs): Tensor {
  return apply(foldedAttentionOperation, [query, keys, projected], { numHeads })[0]!;
}
