/**
 * What this engine sets out to reach, judged by a results file. A target belongs to an adapter and a runtime; elsewhere it
 * does not apply, and the command that would measure it is named instead. Where a peer failed there is nothing to compare
 * with: that is told, and neither met nor missed.
 */
import { secondsOf, type Measurement } from './measurement.ts';
import { find, type Results } from './results.ts';

export type Verdict = 'met' | 'missed' | 'no comparison' | 'not measured' | 'not applicable here';

export interface Target {
  /** Line of the list that the targets come from. */
  readonly line: number;
  readonly title: string;
  readonly verdict: Verdict;
  readonly value?: number;
  readonly limit: number;
  readonly atLeast: boolean;
  /** Of value and limit: `x` for a ratio, `%`, `ms`, `kB`, `MB`, or nothing. */
  readonly unit: string;
  /** Why there is no value, or the command that would give one. */
  readonly note?: string;
}

type Goal = Pick<Target, 'line' | 'title' | 'limit' | 'atLeast' | 'unit'>;
interface Place {
  readonly runtime: Results['runtime'] | 'any';
  readonly adapter: 'swiftshader' | 'lavapipe' | 'gpu' | 'any';
}

const swiftshaderInChrome: Place = { runtime: 'chrome', adapter: 'swiftshader' };
const lavapipeInNode: Place = { runtime: 'node', adapter: 'lavapipe' };
const anywhere: Place = { runtime: 'any', adapter: 'any' };
const onGpu: Place = { runtime: 'any', adapter: 'gpu' };

export function adapterKind({ adapter }: Pick<Results, 'adapter'>): 'swiftshader' | 'lavapipe' | 'gpu' {
  const text = `${adapter.architecture} ${adapter.device} ${adapter.description}`.toLowerCase();
  return /swiftshader/.test(text) ? 'swiftshader' : /llvmpipe|lavapipe/.test(text) ? 'lavapipe' : 'gpu';
}

export function judge(results: Results): Target[] {
  const kind = adapterKind(results);
  const at = (id: string): Measurement | undefined => find(results, id);
  const targets: Target[] = [];
  const add = (place: Place, goal: Goal, value: () => number | { why: string; verdict?: Verdict }, suite = 'peers'): void => {
    if ((place.runtime !== 'any' && place.runtime !== results.runtime) || (place.adapter !== 'any' && place.adapter !== kind)) {
      const runtime = place.runtime === 'any' ? 'chrome' : place.runtime;
      targets.push({ ...goal, verdict: 'not applicable here', note: `npm run bench -- --suite ${suite} --runtime ${runtime}${place.adapter === 'any' ? '' : ` --adapter ${place.adapter}`}` });
      return;
    }
    const found = value();
    if (typeof found !== 'number') targets.push({ ...goal, verdict: found.verdict ?? 'not measured', note: found.why });
    else targets.push({ ...goal, value: found, verdict: (goal.atLeast ? found >= goal.limit : found <= goal.limit) ? 'met' : 'missed' });
  };
  /** How many times as long a peer takes. */
  const speedup = (ours: string, theirs: string) => () => {
    const [own, other] = [secondsOf(at(ours)), secondsOf(at(theirs))];
    if (own === undefined) return absent(at(ours), 'missed');
    if (other === undefined) return absent(at(theirs), 'no comparison');
    return other / own;
  };
  const ofPeak = (id: string) => () => {
    const measurement = at(id);
    const seconds = secondsOf(measurement);
    if (seconds === undefined) return absent(measurement, 'missed');
    return results.peaks ? (100 * measurement!.flops!) / seconds / results.peaks.flops : { why: 'the peaks were not measured' };
  };
  const value = (id: string, key: string) => () => {
    const measurement = at(id);
    if (measurement?.failure !== undefined) return absent(measurement, 'missed');
    return measurement?.values?.[key] ?? { why: 'not in this run' };
  };
  const figure = (id: string, divisor: number) => () => {
    const found = results.figures.find((f) => f.id === id);
    return found ? found.value / divisor : { why: 'not in this run' };
  };

  const gemm = 'peers/gemm-768x1536x384';
  for (const [peer, name, limit] of [['jax-js', 'jax-js', 2], ['tensorflow-js', 'tensorflow.js', 5], ['onnxruntime-web-webgpu', 'onnxruntime-web WebGPU', 8]] as const) {
    add(swiftshaderInChrome, { line: 1, title: `GEMM 768x1536x384: faster than ${name}`, limit, atLeast: true, unit: 'x' }, speedup(`${gemm}/ours`, `${gemm}/${peer}`));
  }
  add(swiftshaderInChrome, { line: 1, title: 'GEMM 768x1536x384: of the multiply-add peak', limit: 50, atLeast: true, unit: '%' }, ofPeak(`${gemm}/ours`));

  for (const [model, name] of [['tiny-112', 'tiny 112'], ['tiny-224', 'tiny 224'], ['dinov2-small-224', 'S 224']] as const) {
    const id = `peers/inference-${model}`;
    add(swiftshaderInChrome, { line: 2, title: `inspection ${name}: faster than onnxruntime-web WebGPU`, limit: 12, atLeast: true, unit: 'x' }, speedup(`${id}/ours`, `${id}/onnxruntime-web-webgpu`));
    add(anywhere, { line: 2, title: `inspection ${name}: kernels an image`, limit: 150, atLeast: false, unit: '' }, value(`${id}/ours`, 'dispatches'));
    add(anywhere, { line: 2, title: `inspection ${name}: submits an image`, limit: 1, atLeast: false, unit: '' }, value(`${id}/ours`, 'submits'));
  }

  add(lavapipeInNode, { line: 3, title: 'GEMM 768x1536x384: of the multiply-add peak', limit: 60, atLeast: true, unit: '%' }, ofPeak(`${gemm}/ours`));
  add(lavapipeInNode, { line: 3, title: 'inspection tiny 224: time over onnxruntime-web wasm, one thread', limit: 2, atLeast: false, unit: 'x' }, () => {
    const ratio = speedup('peers/inference-tiny-224/ours', 'peers/inference-tiny-224/onnxruntime-web-wasm')();
    return typeof ratio === 'number' ? 1 / ratio : ratio;
  });
  add(lavapipeInNode, { line: 3, title: 'inspection tiny 224 with f16 storage: time over f32', limit: 1, atLeast: false, unit: 'x' }, () => {
    const ratio = speedup('peers/inference-tiny-224/ours-f16-weights', 'peers/inference-tiny-224/ours')();
    return typeof ratio === 'number' ? 1 / ratio : ratio;
  });

  add(swiftshaderInChrome, { line: 4, title: 'decoder block, forward and backward: faster than jax-js', limit: 3, atLeast: true, unit: 'x' }, speedup('peers/decoder-block/ours', 'peers/decoder-block/jax-js'));
  const step = 'train/tiny-224/batch-8';
  add(anywhere, { line: 4, title: 'training step: kernels', limit: 300, atLeast: false, unit: '' }, value(`${step}/step`, 'kernels'));
  add(anywhere, { line: 4, title: 'training step: submits', limit: 1, atLeast: false, unit: '' }, value(`${step}/step`, 'submits'));
  add(anywhere, { line: 4, title: 'training step: encoding on the CPU', limit: 1, atLeast: false, unit: 'ms' }, () => {
    const seconds = secondsOf(at(`${step}/encode`));
    return seconds === undefined ? absent(at(`${step}/encode`), 'missed') : seconds * 1000;
  });

  add(anywhere, { line: 5, title: 'training B 392, batch 16: peak memory', limit: 4096, atLeast: false, unit: 'MiB' }, figure('peak/train/dinov2-base-392/batch-16', 2 ** 20));
  add(anywhere, { line: 5, title: 'inspection S 392: peak memory', limit: 300, atLeast: false, unit: 'MB' }, figure('peak/inspect/dinov2-small-392/batch-1', 1e6));
  add(anywhere, { line: 6, title: 'core and shaders as a page ships them, gzipped', limit: 80, atLeast: false, unit: 'kB' }, figure('shipped/gzip', 1000));
  add(swiftshaderInChrome, { line: 7, title: 'cold start, tiny 112: faster than onnxruntime-web WebGPU', limit: 10, atLeast: true, unit: 'x' }, speedup('model/cold-start/total', 'peers/cold-start/onnxruntime-web-webgpu/total'));
  for (const layout of ['NN', 'NT', 'TN']) {
    add(onGpu, { line: 9, title: `GEMM ${layout} 4096x4096x4096: of the multiply-add peak`, limit: 60, atLeast: true, unit: '%' }, ofPeak(`kernels/gemm/${layout}-4096x4096x4096`), 'kernels');
  }
  return targets;
}

/** Why there is no number. */
function absent(measurement: Measurement | undefined, verdict: Verdict): { why: string; verdict?: Verdict } {
  return measurement?.failure === undefined ? { why: 'not in this run' } : { why: measurement.failure, verdict };
}

export const isMissed = ({ verdict }: Target): boolean => verdict === 'missed';
