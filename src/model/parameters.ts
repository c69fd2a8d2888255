/**
 * The leaves of a graph that stand for persistent tensors: each made once, by name, with its shape from a table.
 */
import { UsageError } from '../errors.ts';
import { parameter, type Shape, type Tensor } from '../graph/tensor.ts';
import type { DetectorConfig } from './config.ts';

export class ParameterLeaves {
  private readonly shapes: ReadonlyMap<string, Shape>;
  private readonly prefix: string;
  private readonly leaves = new Map<string, Tensor>();

  /** @param prefix what the leaves' names start with, so that two tables can't collide in one graph */
  constructor(shapes: ReadonlyMap<string, Shape>, prefix: string) {
    this.shapes = shapes;
    this.prefix = prefix;
  }

  get(name: string): Tensor {
    let leaf = this.leaves.get(name);
    if (!leaf) {
      const shape = this.shapes.get(name);
      if (!shape) throw new UsageError(`The model has no parameter ${name}.`);
      leaf = parameter(`${this.prefix}${name}`, shape);
      this.leaves.set(name, leaf);
    }
    return leaf;
  }
}

export const trainablePrefix = 'trainable.';

/**
 * The trained tensors and their shapes, named and ordered as in the reference's checkpoints: `prototype_token`,
 * `aggregation.0.*` (the INP extractor), `bottleneck.0.*`, `decoder.N.*`. Linear weights are [out, in].
 */
export function trainableShapes(config: DetectorConfig): Map<string, Shape> {
  const { width: c, numHeads } = config.architecture;
  const hidden = c * config.mlpRatio;
  const shapes = new Map<string, Shape>([['prototype_token', [config.numPrototypes, c]]]);
  const linear = (name: string, out: number, inputs: number) => {
    shapes.set(`${name}.weight`, [out, inputs]);
    shapes.set(`${name}.bias`, [out]);
  };
  const mlp = (name: string) => {
    linear(`${name}.fc1`, hidden, c);
    linear(`${name}.fc2`, c, hidden);
  };
  const norm = (name: string) => {
    shapes.set(`${name}.weight`, [c]);
    shapes.set(`${name}.bias`, [c]);
  };
  const block = (name: string, learnScale: boolean) => {
    norm(`${name}.norm1`);
    if (learnScale) shapes.set(`${name}.attn.learn_scale`, [numHeads, 1, 1]);
    linear(`${name}.attn.q`, c, c);
    linear(`${name}.attn.kv`, 2 * c, c);
    linear(`${name}.attn.proj`, c, c);
    norm(`${name}.norm2`);
    mlp(`${name}.mlp`);
  };
  for (let i = 0; i < config.extractorDepth; i++) block(`aggregation.${i}`, false);
  mlp('bottleneck.0');
  for (let i = 0; i < config.decoderDepth; i++) block(`decoder.${i}`, true);
  return shapes;
}
