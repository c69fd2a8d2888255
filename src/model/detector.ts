/**
 * INP-Former's trained part. The extractor turns M learnable tokens into the image's own normal prototypes, P; the
 * bottleneck and the decoder rebuild the features from them alone:
 *
 *   T += proj(softmax attention(q from norm1 T, k and v from norm1 x));  P = T + mlp(norm2 T)
 *   y = fc2(gelu(fc1 x))
 *   z = proj(ReLU attention(q from norm1 y, k and v from norm1 P));  y = z + mlp(norm2 z)
 *
 * with no residual around the decoder's attention, which would let anomalous features through. Decoders without prototypes,
 * for comparison, attend to the image's own tokens: z = proj(softmax attention(q, k and v from norm1 y)).
 *
 * Source: INP-Former (CVPR 2025) section 3; models/uad.py, models/vision_transformer.py of luow23/INP-Former.
 */
import { scope, type Tensor } from '../graph/tensor.ts';
import {
  add, channels, foldedAttention, foldPrototypes, gelu, layerNorm, linear, meanOf, repeatBatch, softmaxAttention, stackedLayerNorm, stackedLinear, unstack,
} from '../ops/index.ts';
import { hasPrototypes, headEpsilon, tokenGrid, type DetectorConfig } from './config.ts';
import { decoderRuns, type DecoderRun, type ParameterLeaves, type StackedKind } from './parameters.ts';

export interface Reconstruction {
  /** P [B, M, C]: the image's normal prototypes; none where the decoder has its tokens instead. */
  readonly prototypes: Tensor | undefined;
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
  const prototypes = hasPrototypes(config) ? extractPrototypes(x, p, config) : undefined;
  const bottleneck = scope('bottleneck', () => mlp(x, (name) => p.get(`bottleneck.0.${name}`)));
  const memories = prototypes && decoderRuns(config).flatMap((run) => prototypeMemories(prototypes, run, p, config));
  const decoder: DecoderBlock[] = [];
  for (let i = 0; i < config.decoderDepth; i++) {
    const y = decoder.at(-1)?.output ?? bottleneck;
    decoder.push(scope(`decoder.${i}`, () => decoderBlock(y, memories?.[i], (name) => p.get(`decoder.${i}.${name}`), config)));
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

/** What a decoder block's attention knows of the prototypes: their keys and values, and both as the folded attention takes them. */
interface PrototypeMemory {
  readonly keyValue: Tensor;
  readonly keys: Tensor;
  readonly projected: Tensor;
}

/**
 * The prototypes' side of a run of decoder blocks, all in the same few kernels. The attention's output projection is taken
 * to the prototypes, A (V W_o) for (A V) W_o: they are few, so that this is cheaper, forward and backward.
 */
function prototypeMemories(prototypes: Tensor, { stacks, blocks }: DecoderRun, p: ParameterLeaves, { architecture: { width: c, numHeads } }: DetectorConfig): PrototypeMemory[] {
  const stack = (kind: StackedKind) => p.stack(stacks[kind]);
  return scope('prototypes', () => {
    const normed = stackedLayerNorm(prototypes, stack('norm1.weight'), stack('norm1.bias'), headEpsilon);
    const keyValue = stackedLinear(normed, stack('attn.kv.weight'), stack('attn.kv.bias'), 2 * c);
    const folded = foldPrototypes({ keyValue, learnScale: stack('attn.learn_scale'), weight: stack('attn.proj.weight'), bias: stack('attn.proj.bias'), numHeads });
    const [pairs, keys, projected] = [keyValue, folded.keys, folded.projected].map((t) => unstack(t)) as [Tensor[], Tensor[], Tensor[]];
    return blocks.map((_, i) => ({ keyValue: pairs[i]!, keys: keys[i]!, projected: projected[i]! }));
  });
}

function decoderBlock(y: Tensor, memory: PrototypeMemory | undefined, get: Get, config: DetectorConfig): DecoderBlock {
  const { architecture: { numHeads }, residual } = config;
  const normed = norm(y, get, 'norm1');
  const query = dense(normed, get, 'attn.q');
  const keyValue = memory?.keyValue ?? dense(normed, get, 'attn.kv');
  const attention = memory
    ? foldedAttention({ query, keys: memory.keys, projected: memory.projected, numHeads })
    : dense(selfAttention(query, keyValue, config), get, 'attn.proj');
  const attended = residual ? add(y, attention) : attention;
  const output = add(attended, mlp(norm(attended, get, 'norm2'), (name) => get(`mlp.${name}`)));
  return { query, keyValue, attended, output };
}

/**
 * Softmax attention to the image's own tokens. (Not the prototypes' ReLU attention: its sums grow with the number of keys, and
 * a token always finds itself.)
 */
function selfAttention(query: Tensor, keyValue: Tensor, config: DetectorConfig): Tensor {
  const { architecture: { width: c, numHeads }, decoder, neighbourhood } = config;
  const masked = decoder === 'neighbour-masked' ? { columns: tokenGrid(config).columns, radius: (neighbourhood - 1) / 2 } : undefined;
  return softmaxAttention({ query: channels(query), key: channels(keyValue, 0, c), value: channels(keyValue, c, c), numHeads, masked });
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
