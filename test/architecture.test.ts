/**
 * The building's rules, read off the sources: which room may import which, that the core touches neither Node nor the
 * page, that it has one run-time dependency, and that no kernel leaves its template half filled in.
 */
import { transformSync } from 'esbuild';
import { describe, expect, test } from 'vitest';
import { compile } from '../src/graph/plan.ts';
import { defaultTarget, type Target } from '../src/gpu/target.ts';
import { planReport } from '../src/train/plan-report.ts';
import { version } from '../src/version.ts';
import { encoderCatalog } from '../src/weights/catalog.ts';
import packageJson from '../package.json' with { type: 'json' };
import { operationCases } from './ops/cases/index.ts';
import { closureOf, filesUnder, importsOf, readSource } from './support/modules.ts';

/**
 * Each room and what it may import, files of its own aside; arrows point one way, so the order of this table is one in
 * which the rooms could have been built. `data`, `weights` and `evaluate` are leaves: they need nothing but errors.
 */
const rooms: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  version: [],
  data: ['errors'],
  weights: ['errors'],
  evaluate: ['errors'],
  gpu: ['errors'],
  shaders: ['errors', 'gpu'],
  graph: ['errors', 'gpu'],
  // The image resize shares its filter with data/'s, which is its reference.
  ops: ['errors', 'data', 'gpu', 'shaders', 'graph'],
  model: ['errors', 'data', 'weights', 'gpu', 'graph', 'ops'],
  engine: ['errors', 'gpu', 'graph', 'ops'],
  inspect: ['errors', 'data', 'weights', 'evaluate', 'gpu', 'graph', 'ops', 'model', 'engine'],
  // Training ends with the calibration of an inspector.
  train: ['errors', 'data', 'weights', 'evaluate', 'gpu', 'graph', 'ops', 'model', 'engine', 'inspect'],
  // Models for other runtimes. It runs nothing: of ops/ it needs the tables of the resampling and the blur.
  export: ['errors', 'version', 'data', 'weights', 'ops', 'model', 'inspect'],
  index: ['errors', 'data', 'weights', 'evaluate', 'gpu', 'graph', 'ops', 'model', 'engine', 'inspect', 'train', 'export'],
  node: ['errors', 'version', 'data', 'weights', 'evaluate', 'gpu', 'graph', 'ops', 'model', 'engine', 'inspect', 'train', 'export', 'index'],
  browser: ['errors', 'data', 'weights', 'evaluate', 'gpu', 'graph', 'ops', 'model', 'engine', 'inspect', 'train', 'export', 'index'],
  // Public entries only: the page of a browser, the drawn samples, the prototypes.
  app: ['errors', 'data', 'inspect', 'browser', 'index'],
};
const platformRooms = ['node', 'browser', 'app'];

function roomOf(file: string): string {
  const [top, second] = file.split('/') as [string, string];
  return (top === 'src' ? second : top).replace(/\.ts$/, '');
}

const sources = [...filesUnder('src'), ...filesUnder('shaders'), ...filesUnder('app/src'), ...filesUnder('app/src', '.tsx')].filter((file) => !file.endsWith('.d.ts'));
const core = sources.filter((file) => !platformRooms.includes(roomOf(file)));

describe('rooms', () => {
  test('every source file is in one that the table names', () => {
    expect(sources.filter((file) => !(roomOf(file) in rooms))).toEqual([]);
  });

  test('the table\'s arrows point one way', () => {
    const order = Object.keys(rooms);
    for (const [room, allowed] of Object.entries(rooms)) {
      expect(allowed.filter((other) => !(order.indexOf(other) < order.indexOf(room))), room).toEqual([]);
    }
  });

  test('import only what the table allows', () => {
    const wrong = sources.flatMap((file) => importsOf(file)
      .filter(({ file: imported, typeOnly }) => imported !== undefined && roomOf(imported) !== roomOf(file)
        && !rooms[roomOf(file)]!.includes(roomOf(imported)) && !(roomOf(file) === 'shaders' && typeOnly && imported === 'src/graph/operation.ts'))
      .map(({ file: imported }) => `${file} imports ${imported}`));
    expect(wrong).toEqual([]);
  });

  test('shaders know the GPU room only as text and target', () => {
    const allowed = ['src/gpu/wgsl.ts', 'src/gpu/target.ts', 'src/errors.ts'];
    const wrong = filesUnder('shaders').flatMap((file) => importsOf(file)
      .filter(({ file: imported, typeOnly }) => imported === undefined
        || !(imported.startsWith('shaders/') || allowed.includes(imported) || (typeOnly && imported === 'src/graph/operation.ts')))
      .map(({ specifier }) => `${file} imports ${specifier}`));
    expect(wrong).toEqual([]);
  });

  test('no file imports itself through others, types aside', () => {
    const state = new Map<string, 'open' | 'done'>();
    const cycles: string[] = [];
    const visit = (file: string, path: readonly string[]): void => {
      if (state.get(file) === 'open') cycles.push([...path.slice(path.indexOf(file)), file].join(' -> '));
      if (state.has(file)) return;
      state.set(file, 'open');
      for (const { file: imported, typeOnly } of importsOf(file)) if (imported !== undefined && !typeOnly) visit(imported, [...path, file]);
      state.set(file, 'done');
    };
    for (const file of sources) visit(file, []);
    expect(cycles).toEqual([]);
  });
});

describe('one core for Node and the page', () => {
  test('imports no module of Node\'s, and one package; a second only when it reads or writes ONNX files', () => {
    const outside = core.flatMap((file) => importsOf(file).filter(({ file: imported, typeOnly }) => imported === undefined && !typeOnly).map(({ specifier }) => `${file}: ${specifier}`));
    const onnx = ['src/weights/onnx-writer.ts', 'src/weights/onnx.ts'];
    expect(outside).toEqual(['src/gpu/wgsl.ts: wgsl-preprocessor/wgsl-preprocessor.js', ...onnx.map((file) => `${file}: pbf`)]);
    for (const file of onnx) expect(readSource(file)).toContain("await import('pbf')");
  });

  test('uses no global that only one of them has', () => {
    const globals = [
      'process', 'Buffer', 'require', 'module', '__dirname', '__filename', 'global', 'setImmediate',
      'window', 'self', 'document', 'navigator', 'location', 'localStorage', 'indexedDB', 'OffscreenCanvas', 'createImageBitmap', 'ImageBitmap', 'ImageData', 'Worker',
    ];
    const marker = 'only_on_one_platform_';
    // esbuild renames a name only where it means the global: neither a property, nor a variable, nor a word in a text or a type.
    const define = Object.fromEntries(globals.flatMap((name) => [[name, marker + name], [`globalThis.${name}`, marker + name]]));
    const used = (text: string): string[] => [...transformSync(text, { loader: 'ts', define }).code.matchAll(new RegExp(`${marker}(\\w+)`, 'g'))].map((match) => match[1]!);
    expect(used('const window = 1; f(window, x.process); // document\nprocess.exit(); globalThis.navigator')).toEqual(['process', 'navigator']);
    expect(core.flatMap((file) => used(readSource(file)).map((name) => `${file} uses ${name}`))).toEqual([]);
  });

  test('states the package\'s version', () => {
    expect(version).toBe(packageJson.version);
  });

  test('has wgsl-preprocessor as its only run-time dependency', () => {
    expect(Object.keys(packageJson.dependencies)).toEqual(['wgsl-preprocessor']);
  });
});

describe('kernels', () => {
  const families: Target['family'][] = ['swiftshader', 'lavapipe', 'gpu'];

  test.each(families)('expand without a gap on %s', (family) => {
    const target: Target = { ...defaultTarget, family, features: new Set(['subgroups']), subgroupSize: 8 };
    const problems: string[] = [];
    let count = 0;
    for (const c of operationCases) {
      for (const shape of c.shapes) {
        for (const { kernel, bindings } of compile({ target, outputs: c.build(shape) }).dispatches) {
          count++;
          const gap = /\$\{|\bundefined\b|\bNaN\b|\bInfinity\b|\[object |^\s*#(if|elif|else|endif)|\/\*@\d|=>|\bfunction\b/m.exec(kernel.code.replace(/\/\/.*$/gm, ''));
          if (gap) problems.push(`${kernel.file}, ${kernel.label}: ${gap[0]}`);
          if (kernel.lines.length !== kernel.code.split('\n').length) problems.push(`${kernel.file}, ${kernel.label}: ${kernel.lines.length} line numbers`);
          const declared = [...kernel.code.matchAll(/@binding\((\d+)\)/g)].map((match) => Number(match[1])).sort((a, b) => a - b);
          if (declared.join() !== [...bindings.keys()].join()) problems.push(`${kernel.file}, ${kernel.label}: declares the bindings ${declared.join()}, is given ${bindings.length}`);
        }
      }
    }
    expect(count).toBeGreaterThan(100);
    expect([...new Set(problems)]).toEqual([]);
  });

  test('of every encoder in the catalogue can be planned with the limits that every adapter has', () => {
    for (const { name, architecture, taps, encoderGroups } of encoderCatalog.values()) {
      const report = planReport({ architecture, taps, encoderGroups, crop: 14 * 28, batchSize: 16, train: true });
      expect(report.submits, name).toBe(1);
      expect(report.largestBinding, name).toBeLessThanOrEqual(defaultTarget.maxStorageBufferBindingSize);
    }
  });
});

describe('tests', () => {
  const tests = filesUnder('test', '.test.ts');

  test('reach an adapter only through test/support/gpu.ts, so that they run on every adapter', () => {
    const doors = ['src/node/adapter.ts', 'src/node/engine.ts', 'src/node/index.ts', 'webgpu'];
    const allowed = ['test/support/gpu.ts', 'test/e2e/chrome.test.ts'];
    const wrong = filesUnder('test').filter((file) => !allowed.includes(file)
      && importsOf(file).some(({ specifier, file: imported, typeOnly }) => !typeOnly && doors.includes(imported ?? specifier)));
    expect(wrong).toEqual([]);
  });

  test('are all found by the suites: none is in a folder that is not looked at', () => {
    expect(tests.length).toBeGreaterThan(30);
    expect([...filesUnder('src'), ...filesUnder('shaders'), ...filesUnder('bench')].filter((file) => file.endsWith('.test.ts'))).toEqual([]);
  });

  test('that compare with the golden set know where it is through test/support/golden.ts', () => {
    const wrong = tests.filter((file) => file.startsWith('test/golden/') && !closureOf(file).has('test/support/golden.ts'));
    expect(wrong).toEqual([]);
  });
});
