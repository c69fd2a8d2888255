/**
 * `npm test` and `npm run test:golden` (`node test/run.mjs golden`): sets up what is missing, finds the adapters of
 * this machine by making a device on each, then runs the suites of vitest.config.ts, those without a GPU once and those
 * with one on every adapter. The last line sums all runs up. Built-in modules only: on a fresh clone nothing else is there.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { root, setUp } from '../bin/setup.mjs';

/** Minutes of work on a software adapter: `npm test` runs them on the fastest adapter only, `npm run test:golden` on all. */
const heavyFiles = ['test/golden/vits.test.ts'];
/** Training and inspection as wholes: the kernels' differences between adapters show in test/ops and test/golden already. */
const wholeRuns = ['test/train/**', 'test/inspect/**', 'test/model/**', 'test/export/**', 'test/bench/**', 'test/golden/variants.test.ts', 'test/node/commands-documented.test.ts'];
const goldenPattern = '^golden: ';
const runLimit = 40 * 60_000;

const mode = process.argv[2] ?? 'all';
if (!['all', 'golden'].includes(mode) || process.argv.length > 3) {
  console.error('Usage: npm test, or npm run test:golden. For single files: [INP_ADAPTER=swiftshader|lavapipe|gpu] npx vitest run FILES…');
  process.exit(2);
}
const onlyGolden = mode === 'golden';
const total = { passed: 0, failed: 0 };
const started = performance.now();

const hasGolden = checkGoldenSet();
setUp({ bench: !onlyGolden, app: !onlyGolden });
const adapters = total.failed === 0 ? findAdapters() : [];
if (total.failed === 0) {
  run('without a GPU', { suite: 'pure', parallel: true });
  for (const adapter of adapters) {
    const isFastest = adapter === adapters[0];
    const heavy = onlyGolden || !hasGolden || isFastest ? [] : heavyFiles;
    const onSwiftShader = adapters.some((a) => a.choice === 'swiftshader') && adapter.choice !== 'swiftshader';
    const wholes = !onlyGolden && onSwiftShader ? wholeRuns : [];
    const exclude = [...heavy, ...wholes];
    if (heavy.length > 0) console.log(`\nLeft out on ${adapter.choice}: ${heavy.join(', ')}, which takes minutes and runs on ${adapters[0].choice}; \`npm run test:golden\` runs it here too.`);
    if (wholes.length > 0) console.log(`\nLeft out on ${adapter.choice}: ${wholes.join(', ')}, which run on swiftshader; \`INP_ADAPTER=${adapter.choice} npx vitest run test/train\` runs them here.`);
    run(`on ${adapter.choice} (${adapter.name})`, { suite: 'gpu', adapter: adapter.choice, exclude });
  }
  run('in headless Chrome', { suite: 'chrome' });
  if (!onlyGolden) run('of the inspection page', { suite: 'app' });
}
console.log(`\n${((performance.now() - started) / 1000).toFixed(0)} s in all`);
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0;

/** A set that is named must be there (test/support/golden-folder.ts); that the default is absent is worth a note, or an error where only the set was asked for. */
function checkGoldenSet() {
  const named = process.env.INP_GOLDEN;
  const folder = named ? resolve(named) : resolve(root, '../shared/golden');
  if (existsSync(folder)) {
    console.log(`Golden set: ${folder}`);
    return true;
  }
  if (named || onlyGolden) {
    console.error(`There is no golden set at ${folder}: ${named ? 'correct INP_GOLDEN or unset it' : 'set INP_GOLDEN to its folder'}.`);
    total.failed++;
  } else {
    console.log(`Left out: the golden tests (test/golden and those that compare with the set elsewhere), because there is no golden set at ${folder}; INP_GOLDEN names another folder.`);
  }
  return false;
}

/** The adapters at hand, the fastest first. None, or none where npm brings one, is a failure. */
function findAdapters() {
  const found = [];
  console.log('Adapters:');
  for (const choice of ['gpu', 'lavapipe', 'swiftshader']) {
    const result = probe(choice);
    if (result.name !== undefined) found.push({ choice, ...result });
    console.log(`  ${choice.padEnd(12)}${result.name === undefined ? `not here: ${result.reason}` : `${result.name}, ${result.gflops.toFixed(1)} GFLOP/s`}`);
  }
  if (process.platform === 'linux' && process.arch === 'x64' && !found.some(({ choice }) => choice === 'swiftshader')) {
    console.error('SwiftShader must work on Linux x64, it comes with npm packages: reinstall with `npm ci`, optional and development packages included.');
    total.failed++;
  } else if (found.length === 0) {
    console.error('There is no adapter to test on: do what is said above beside one of them.');
    total.failed++;
  }
  return found.sort((a, b) => b.gflops - a.gflops);
}

/** Makes a device and runs a kernel on it, in a process of its own: one process has one choice, and a bad driver may end it. */
function probe(choice) {
  const program = `
    const { createNodeEngine } = await import(${JSON.stringify(new URL('../dist/src/node/engine.js', import.meta.url).href)});
    try {
      const engine = await createNodeEngine({ adapter: ${JSON.stringify(choice)} });
      console.log(JSON.stringify({ name: engine.adapter.name, ...await engine.measureSpeed() }));
    } catch (error) {
      console.log(JSON.stringify({ reason: error.message }));
    }
    process.exit();`;
  const { stdout, stderr, signal, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { cwd: root, encoding: 'utf8', timeout: 120_000 });
  const answer = stdout.trim().split('\n').at(-1);
  return answer.startsWith('{') ? JSON.parse(answer) : { reason: `the probe ended with ${signal ?? status}: ${stderr.trim().split('\n').at(-1)}` };
}

/** One run of vitest; its counts are added to the total. */
function run(title, { suite, adapter, exclude = [], parallel = false }) {
  console.log(`\nTests ${title}:`);
  const runStarted = performance.now();
  const folder = mkdtempSync(join(tmpdir(), 'inp-former-tests-'));
  const report = join(folder, 'report.json');
  const { status, signal } = spawnSync(process.execPath, [
    join(root, 'node_modules/vitest/vitest.mjs'), 'run', '--project', suite,
    '--reporter=default', '--reporter=json', `--outputFile.json=${report}`,
    parallel ? '--fileParallelism' : '--no-file-parallelism',
    ...exclude.flatMap((file) => ['--exclude', file]),
    ...(onlyGolden ? ['-t', goldenPattern] : []),
  ], {
    cwd: root, stdio: ['ignore', 'inherit', 'inherit'], timeout: runLimit,
    env: { ...process.env, ...(adapter && { INP_ADAPTER: adapter }), ...(onlyGolden && { INP_ONLY_GOLDEN: '1' }) },
  });
  const counts = countsOf(report);
  rmSync(folder, { recursive: true, force: true });
  const slowest = counts.files.sort((a, b) => b.seconds - a.seconds).slice(0, 3).map(({ name, seconds }) => `${name} ${seconds.toFixed(0)} s`);
  console.log(`Took ${((performance.now() - runStarted) / 1000).toFixed(0)} s; the longest: ${slowest.join(', ') || 'none'}`);
  for (const problem of counts.problems) console.error(problem);
  if (signal) console.error(`vitest was ended by ${signal}${signal === 'SIGTERM' ? ` after ${runLimit / 60_000} minutes` : ''}.`);
  if (counts.passed + counts.failed === 0) {
    console.error(`No test ran ${title}.`);
    counts.failed++;
  }
  // An error outside of any test, or a crash.
  if (status !== 0 && counts.failed === 0) counts.failed++;
  total.passed += counts.passed;
  total.failed += counts.failed;
}

/** A test that was skipped counts as failed, unless the run was asked for other tests; so does a file that can't be loaded. */
function countsOf(report) {
  let results;
  try {
    results = JSON.parse(readFileSync(report, 'utf8')).testResults;
  } catch {
    return { passed: 0, failed: 1, files: [], problems: ['vitest wrote no report.'] };
  }
  const counts = { passed: 0, failed: 0, files: [], problems: [] };
  for (const file of results) {
    const wanted = file.assertionResults.filter((test) => !onlyGolden || new RegExp(goldenPattern).test(test.fullName));
    const failed = wanted.filter((test) => test.status !== 'passed');
    counts.files.push({ name: relative(root, file.name), seconds: (file.endTime - file.startTime) / 1000 });
    counts.passed += wanted.length - failed.length;
    counts.failed += failed.length;
    for (const test of failed) if (test.status !== 'failed') counts.problems.push(`Not run (${test.status}), which counts as failed: ${file.name}: ${test.fullName}`);
    if (file.status === 'failed' && failed.length === 0) {
      counts.failed++;
      counts.problems.push(`${file.name}: ${file.message || 'failed outside of its tests'}`);
    }
  }
  return counts;
}
