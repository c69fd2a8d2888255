/**
 * INP-Former's trained part. The extractor turns M learnable tokens into the image's own normal prototypes, P; the
 * bottleneck and the decoder rebuild the features from them alone:
 *
 *   T += proj(softmax attention(q from norm1 T, k and v from norm1 x));  P = T + mlp(norm2 T)
 *   y = fc2(gelu(fc1 x))
 *   z = proj(ReLU attention(q from norm1 y, k and v from norm1 P));  y = z + mlp(norm2 z)
 *
 * with no residual around the decoder's attention, which would let anomalous features through.
 *
 * Source: INP-Former (CVPR 2025) section 3; models/uad.py, models/vision_transformer.py of luow23/INP-Former.
 */
import { scope, type Tensor } from '../graph/tensor.ts';
import { add, channels, gelu, layerNorm, linear, meanOf, prototypeAttention, repeatBatch, softmaxAttention } from '../ops/index.ts';
import { headEpsilon, type DetectorConfig } from './config.ts';
import type { ParameterLeaves } from './parameters.ts';

export interface Reconstruction {
  /** P [B, M, C]: the image's normal prototypes. */
  readonly prototypes: Tensor;
  /** Output of the bottleneck [B, N, C]. */
  readonly bottleneck: Tensor;
  /** For each decoder block: the attention after its projection and the block's output [B, N, C], and what its attention is computed from. */
  readonly decoder: readonly DecoderBlock[];
  /** de_g [B, N, C] of each group. */
  readonly groups: readonly Tensor[];
}

export interface DecoderBlock {
  readonly query: Tensor;
  readonly keyValue: Tensor;
  readonly attended: Tensor;
  readonly output: Tensor;
}

type Get = (name: string) => Tensor;

/** @param x [B, N, C], the fused encoder feature */
export function reconstruct(x: Tensor, p: ParameterLeaves, config: DetectorConfig): Reconstruction {
  const prototypes = extractPrototypes(x, p, config);
  const bottleneck = scope('bottleneck', () => mlp(x, (name) => p.get(`bottleneck.0.${name}`)));
  const decoder: DecoderBlock[] = [];
  for (let i = 0; i < config.decoderDepth; i++) {
    const y = decoder.at(-1)?.output ?? bottleneck;
    decoder.push(scope(`decoder.${i}`, () => decoderBlock(y, prototypes, (name) => p.get(`decoder.${i}.${name}`), config)));
  }
  const reversed = decoder.map((block) => block.output).reverse();
  const groups = scope('decoder', () => config.decoderGroups.map((group) => meanOf(group.map((i) => reversed[i]!))));
  return { prototypes, bottleneck, decoder, groups };
}

/** The INP extractor: [B, N, C] to P [B, M, C]. */
export function extractPrototypes(x: Tensor, p: ParameterLeaves, config: DetectorConfig): Tensor {
  const { width: c, numHeads } = config.architecture;
  let t = scope('extractor', () => repeatBatch(p.get('prototype_token'), x.shape[0]!));
  for (let i = 0; i < config.extractorDepth; i++) {
    const get: Get = (name) => p.get(`aggregation.${i}.${name}`);
    t = scope(`extractor.${i}`, () => {
      // One norm1 for tokens and features alike.
      const query = dense(norm(t, get, 'norm1'), get, 'attn.q');
      const keyValue = dense(norm(x, get, 'norm1'), get, 'attn.kv');
      const attended = softmaxAttention({ query: channels(query), key: channels(keyValue, 0, c), value: channels(keyValue, c, c), numHeads });
      const h = add(t, dense(attended, get, 'attn.proj'));
      return add(h, mlp(norm(h, get, 'norm2'), (name) => get(`mlp.${name}`)));
    });
  }
  return t;
}

function decoderBlock(y: Tensor, prototypes: Tensor, get: Get, config: DetectorConfig): DecoderBlock {
  const { width: c, numHeads } = config.architecture;
  const query = dense(norm(y, get, 'norm1'), get, 'attn.q');
  const keyValue = dense(norm(prototypes, get, 'norm1'), get, 'attn.kv');
  const gathered = prototypeAttention({
    query: channels(query), key: channels(keyValue, 0, c), value: channels(keyValue, c, c), learnScale: get('attn.learn_scale'), numHeads,
  });
  const attended = dense(gathered, get, 'attn.proj');
  const output = add(attended, mlp(norm(attended, get, 'norm2'), (name) => get(`mlp.${name}`)));
  return { query, keyValue, attended, output };
}

function norm(x: Tensor, get: Get, name: string): Tensor {
  return layerNorm(x, get(`${name}.weight`), get(`${name}.bias`), headEpsilon);
}

function dense(x: Tensor, get: Get, name: string): Tensor {
  return scope(name, () => linear(x, get(`${name}.weight`), get(`${name}.bias`)));
}

function mlp(x: Tensor, get: Get): Tensor {
  return scope('mlp', () => dense(gelu(dense(x, get, 'fc1')), get, 'fc2'));
}
