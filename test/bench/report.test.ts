import { describe, expect, test } from 'vitest';
import { compare } from '../../bench/compare.ts';
import { resultsPage } from '../../bench/report/html.ts';
import { changesTable, performanceTables, resultsTable, targetsTable, time } from '../../bench/report/text.ts';
import { judge } from '../../bench/targets.ts';
import { changed, results } from './fixture.ts';

test('times have three figures and their unit', () => {
  expect([0.0000123, 0.0123, 0.1234, 1.2345, 123.4].map(time)).toEqual(['12.3 µs', '12.3 ms', '123 ms', '1.23 s', '123 s']);
  expect([undefined, NaN].map(time)).toEqual(['–', '–']);
});

describe('tables', () => {
  test('of results: minimum, median, rate, share of the peak, what was left out', () => {
    const text = resultsTable(results());
    expect(text).toMatch(/model\/tiny-224\/batch-1\/total +900 ms +1\.00 s .*100 kernels, 1 submit, 30\.0 MB, 1\.00 images\/s/);
    expect(text).toMatch(/ours +100 ms +100 ms +10\.0 GFLOP\/s +56 %/);
    expect(text).toMatch(/B 392 +too slow/);
  });

  test('of results: a failure shows its reason and no time', () => {
    const text = resultsTable(results({ measurements: changed({ 'peers/gemm-768x1536x384/jax-js': { failure: 'Wrong result: element 0 is 0' } }) }));
    expect(text).toMatch(/jax-js +failed +Wrong result: element 0 is 0/);
    expect(text).not.toMatch(/jax-js +250 ms/);
  });

  test('of targets', () => {
    expect(targetsTable(judge(results()))).toMatch(/1 +GEMM 768x1536x384: faster than jax-js +2\.5x +at least 2x +met/);
  });

  test('of changes: the worst first', () => {
    const slower = results({ measurements: changed({ 'model/tiny-224/batch-8/total': { samples: [9] } }) });
    const [, first] = changesTable(compare(results(), slower, 0.1)).split('\n');
    expect(first).toMatch(/model\/tiny-224\/batch-8\/total +6\.00 s +9\.00 s +1\.500 +slower/);
  });

  test('for the README: peers in columns, models in rows', () => {
    const text = performanceTables(results());
    expect(text).toContain('| this engine | jax-js | tensorflow.js | onnxruntime-web WebGPU |');
    expect(text).toContain('| Matrix product, C = A B | 100 ms | 250 ms | 600 ms | 900 ms |');
    expect(text).toContain('| tiny 224 | 1.00 s | 750 ms | 2.00 | 100 | 30.0 MB |');
  });
});

describe('the page', () => {
  test('stands alone: everything it needs is in it, and text stays text', () => {
    const page = resultsPage(results(), judge(results()), 'var Chart = "</script>";');
    expect(page).not.toMatch(/(src|href)=/);
    expect(page).toContain('A &lt;fast&gt; CPU');
    expect(page).toContain('var Chart = "<\\/script>";');
    // The library's text must not end its element.
    expect(page.match(/<\/script>/g)).toHaveLength(3);
    const [, data] = /<script id="data" type="application\/json">(.*)<\/script>/.exec(page)!;
    const { races, rooflines } = JSON.parse(data!) as { races: { title: string; bars: { label: string; seconds: number }[] }[]; rooflines: { points: { x: number; y: number }[] }[] };
    expect(races[0]).toEqual({ title: 'Matrix product', bars: [
      { label: 'this engine', seconds: 0.1 }, { label: 'jax-js', seconds: 0.25 }, { label: 'tensorflow.js', seconds: 0.6 }, { label: 'onnxruntime-web WebGPU', seconds: 0.9 },
    ] });
    expect(races.at(-1)!.title).toBe('Cold start');
    expect(rooflines).toMatchObject([{ points: [{ x: 1000, y: 1e10 }] }]);
  });

  test('leaves out the charts that it has nothing for', () => {
    const page = resultsPage(results({ measurements: [] }), [], '');
    expect(page).not.toContain('<canvas');
  });
});
