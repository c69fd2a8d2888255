import { describe, expect, test } from 'vitest';
import { isMissed, judge, type Verdict } from '../../bench/targets.ts';
import type { Results } from '../../bench/results.ts';
import { changed, results } from './fixture.ts';

const verdictOf = (given: Results, title: string): Verdict => judge(given).find((target) => target.title === title)!.verdict;
const lavapipe = (more: Partial<Results> = {}): Results =>
  results({ runtime: 'node', adapter: { ...results().adapter, architecture: '', description: 'llvmpipe (LLVM 19.1, 256 bits)', name: 'llvmpipe' }, ...more });

test('everything that SwiftShader in Chrome can show is met by good results, nothing is missed', () => {
  const targets = judge(results());
  expect(targets.filter(({ verdict }) => verdict !== 'met' && verdict !== 'not applicable here')).toEqual([]);
  expect(targets.filter(isMissed)).toEqual([]);
  expect(new Set(targets.map(({ line }) => line))).toEqual(new Set([1, 2, 3, 4, 5, 6, 7, 9]));
});

test('what belongs to another adapter names the command that measures it', () => {
  const notes = judge(results()).filter(({ verdict }) => verdict === 'not applicable here').map(({ note }) => note!);
  expect(notes.some((note) => note.includes('--runtime node --adapter lavapipe'))).toBe(true);
  expect(notes.some((note) => note.includes('--adapter gpu'))).toBe(true);
});

describe('each kind of target', () => {
  const gemm = 'peers/gemm-768x1536x384';
  test.each<[string, Results, string, Verdict]>([
    ['a ratio just below its limit', results({ measurements: changed({ [`${gemm}/jax-js`]: { samples: [0.199] } }) }), 'GEMM 768x1536x384: faster than jax-js', 'missed'],
    ['a ratio at its limit', results({ measurements: changed({ [`${gemm}/jax-js`]: { samples: [0.2] } }) }), 'GEMM 768x1536x384: faster than jax-js', 'met'],
    ['a peer that failed', results({ measurements: changed({ [`${gemm}/tensorflow-js`]: { failure: 'zeros' } }) }), 'GEMM 768x1536x384: faster than tensorflow.js', 'no comparison'],
    ['ours failed', results({ measurements: changed({ [`${gemm}/ours`]: { failure: 'wrong' } }) }), 'GEMM 768x1536x384: faster than tensorflow.js', 'missed'],
    ['not measured', results({ measurements: changed({ [`${gemm}/ours`]: undefined }) }), 'GEMM 768x1536x384: of the multiply-add peak', 'not measured'],
    ['a share of the peak', results({ peaks: { flops: 21e9, bandwidth: 1e9, loads: 4e9 } }), 'GEMM 768x1536x384: of the multiply-add peak', 'missed'],
    ['no peaks', results({ peaks: undefined }), 'GEMM 768x1536x384: of the multiply-add peak', 'not measured'],
    ['a count above its limit', results({ measurements: changed({ 'peers/inference-tiny-112/ours': { values: { dispatches: 151, submits: 1 } } }) }), 'inspection tiny 112: kernels an image', 'missed'],
    ['encoding in milliseconds', results({ measurements: changed({ 'train/tiny-224/batch-8/encode': { samples: [0.0011] } }) }), 'training step: encoding on the CPU', 'missed'],
    ['a size', results({ figures: [{ id: 'shipped/gzip', title: '', value: 80_001, unit: 'bytes' }] }), 'core and shaders as a page ships them, gzipped', 'missed'],
    ['cold start', results({ measurements: changed({ 'peers/cold-start/onnxruntime-web-webgpu/total': { samples: [9] } }) }), 'cold start, tiny 112: faster than onnxruntime-web WebGPU', 'missed'],
  ])('%s', (_, given, title, verdict) => {
    expect(verdictOf(given, title)).toBe(verdict);
  });

  test('a time over a peer\'s, on lavapipe in Node', () => {
    const wasm = { ...changed({})[0]!, id: 'peers/inference-tiny-224/onnxruntime-web-wasm', contender: 'onnxruntime-web wasm' };
    const title = 'inspection tiny 224: time over onnxruntime-web wasm, one thread';
    const within = lavapipe({ measurements: [...changed({}), { ...wasm, samples: [0.6] }] });
    expect(judge(within).find((target) => target.title === title)).toMatchObject({ verdict: 'met', value: 1 / 0.6 });
    expect(verdictOf(lavapipe({ measurements: [...changed({}), { ...wasm, samples: [0.4] }] }), title)).toBe('missed');
  });
});
