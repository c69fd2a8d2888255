/**
 * An ONNX graph as it is built: each call adds a node and gives the name of its value, to be used in the next. Names come
 * from the scopes that a node is made in (`decoder.3/attention/Softmax`), so the graph can be read in a viewer, and are
 * unique.
 */
import { UsageError } from '../errors.ts';
import type { OnnxAttribute, OnnxInitializer, OnnxNodeEntry } from '../weights/onnx-writer.ts';

/** The name of a tensor in the graph. */
export type Value = string;

type Attributes = Readonly<Record<string, OnnxAttribute>>;

export class OnnxGraph {
  readonly nodes: OnnxNodeEntry[] = [];
  private readonly tensors = new Map<string, OnnxInitializer>();
  private readonly names = new Set<string>();
  private readonly path: string[] = [];

  get initializers(): OnnxInitializer[] {
    return [...this.tensors.values()];
  }

  /** What `build` adds is named below `name`. */
  scope<T>(name: string, build: () => T): T {
    this.path.push(name);
    try {
      return build();
    } finally {
      this.path.pop();
    }
  }

  /** Adds a node of one output. @param output its name, where the caller has one */
  apply(operator: string, inputs: readonly Value[], attributes: Attributes = {}, output?: string): Value {
    const name = this.uniqueName(operator);
    this.nodes.push({ name, operator, inputs, outputs: [output ?? name], attributes });
    return output ?? name;
  }

  /** Adds a node of several outputs. */
  applyForMany(operator: string, inputs: readonly Value[], attributes: Attributes, count: number): Value[] {
    const name = this.uniqueName(operator);
    const outputs = Array.from({ length: count }, (_, i) => `${name}.${i}`);
    this.nodes.push({ name, operator, inputs, outputs, attributes });
    return outputs;
  }

  /** A tensor under a name of its own; the same again is the same. @throws UsageError for other values under a name that is taken */
  tensor({ name, shape, data }: OnnxInitializer): Value {
    const known = this.tensors.get(name);
    if (known && known.data !== data) throw new UsageError(`The ONNX graph has another tensor ${name} already.`);
    this.tensors.set(name, { name, shape, data });
    return name;
  }

  /** A float that operators take; one tensor for all uses. */
  scalar(value: number): Value {
    const name = `float/${value}`;
    this.tensors.set(name, { name, shape: [], data: Float32Array.of(value) });
    return name;
  }

  /** A list of integers that operators take, e.g. a shape; one tensor for all uses. */
  integers(values: readonly number[]): Value {
    const name = `int64/${values.join('_')}`;
    this.tensors.set(name, { name, shape: [values.length], data: BigInt64Array.from(values, BigInt) });
    return name;
  }

  private uniqueName(operator: string): string {
    const wanted = [...this.path, operator].join('/');
    let name = wanted;
    for (let i = 1; this.names.has(name); i++) name = `${wanted}_${i}`;
    this.names.add(name);
    return name;
  }
}
