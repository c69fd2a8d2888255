import { describe, expect, test } from 'vitest';
import { splitTests } from '../../bench/accuracy/main.ts';
import { settings } from '../../bench/accuracy/settings.ts';
import { findings, markdown, type Cell } from '../../bench/accuracy/table.ts';

const metrics = { imageAuroc: 0.9, imageAp: 0.9, imageF1Max: 0.9, pixelAuroc: 0.8, pixelAp: 0.3, pixelF1Max: 0.4, aupro: null };
const cell = (setting: string, category: string, more: Partial<Cell> = {}): Cell => ({ ...metrics, setting, title: setting, category, adapter: 'a CPU', images: 4, kinds: {}, seconds: { training: 1, evaluating: 1 }, ...more });

test('real defects to train on are taken from each kind in turn, and tested on by nobody', () => {
  const tests = ['good', 'dent', 'scratch'].flatMap((defect) => Array.from({ length: 6 }, (_, i) => ({ path: `${defect}/${i}`, defect, label: defect === 'good' ? 0 as const : 1 as const, ...(defect !== 'good' && { maskPaths: [`${defect}/${i}_mask`] }) })));
  const split = splitTests({ tests }, 4);
  expect(split.defects.map(({ path }) => path)).toEqual(['dent/5', 'scratch/5', 'dent/4', 'scratch/4', 'dent/3']);
  expect(split.tests.map(({ path }) => path)).toEqual(['good/0', 'good/1', 'good/2', 'good/3', 'dent/0', 'dent/1', 'dent/2', 'scratch/0', 'scratch/1', 'scratch/2', 'scratch/3']);
  // One of each kind stays to be tested.
  expect(splitTests({ tests: tests.filter(({ path }) => path.endsWith('0')) }, 4).defects).toEqual([]);
});

describe('settings', () => {
  const jobs = (category: string, all: readonly string[]) => Object.fromEntries(settings.map((setting) => [setting.id, setting.job(category, all, { steps: 60, headSteps: 90, seed: 1 }, (of) => `defects/${of}`)]));

  test('have the flags of the command line, the same steps for each category, and share models', () => {
    const { base, head, 'plus-losses': plusLosses, 'plus-defects': plusDefects, 'memory-1': memory, 'zero-shot': zero, 'no-prototypes': none, multi } = jobs('b', ['a', 'b']);
    expect(base).toEqual({ model: 'base-b', trainOn: ['b'], train: ['--steps', '60'], evaluate: [] });
    expect(plusLosses!.train).toEqual(['--steps', '60', '--plus', '--no-head']);
    expect(plusDefects).toEqual({ model: 'plus-defects-b', trainOn: ['b'], from: plusLosses, train: ['--plus', '--head-steps', '90', '--defects', 'defects/b'], evaluate: [] });
    expect(head).toEqual({ model: 'head-b', trainOn: ['b'], from: base, train: ['--plus', '--head-steps', '90'], evaluate: [] });
    expect(memory!.train).toEqual(['--method', 'memory', '--shots', '1']);
    expect(zero).toEqual({ model: 'base-a', trainOn: ['a'], train: ['--steps', '60'], evaluate: ['--zero-shot'] });
    expect(none!.train).toEqual(['--steps', '60', '--decoder', 'self-attention']);
    expect(multi).toEqual({ model: 'multi', trainOn: ['a', 'b'], train: ['--steps', '120'], evaluate: [] });
  });

  test('that need a second category are left out where there is one', () => {
    expect(jobs('a', ['a'])).toMatchObject({ 'zero-shot': undefined, multi: undefined });
  });
});

describe('the table', () => {
  const table = { conditions: { encoder: 'tiny' }, categories: ['a', 'b'], cells: [cell('base', 'a'), cell('base', 'b', { imageAuroc: 0.7 }), cell('plus', 'a', { pixelAp: 0.5 }), cell('multi', 'b', { imageAuroc: 0.67 })] };

  test('has a row a setting that was run, and means of those that every category has', () => {
    const text = markdown(table, settings);
    expect(text).toContain('### a\n');
    expect(text).toMatch(/### b[^]*multi-class[^]*0\.670/);
    const [, whole] = text.split('### Mean over 2 categories');
    expect(whole).toContain('| single-class | 0.800 | 0.900 |');
    expect(whole).not.toContain('INP-Former++');
    expect(whole).toContain('| – |');
  });

  test('shows the kinds of defect, where there are several', () => {
    const text = markdown({ ...table, cells: [cell('base', 'a', { kinds: { dent: 0.25, crack: 0.5 } }), cell('plus', 'a', { kinds: { dent: 0.75, crack: null } }), cell('base', 'b', { kinds: { dent: 0.5 } })] }, settings);
    expect(text).toContain('| setting | dent | crack | mean |\n|---|---|---|---|\n| single-class | 0.250 | 0.500 | 0.375 |\n| INP-Former++ | 0.750 | – | 0.750 |\n');
    expect(text.match(/P-AP of each kind/g)).toHaveLength(1);
  });

  test('says which claims hold and which go the other way', () => {
    expect(findings(table)).toEqual([
      'holds          a: INP-Former++ has a higher P-AP than INP-Former (0.500 and 0.300)',
      'THE OTHER WAY  b: multi-class loses at most 2 points of I-AUROC (0.670 and 0.700)',
    ]);
  });
});
