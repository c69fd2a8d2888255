/**
 * What every command of a fresh clone does first: checks Node, installs what is missing, builds what is out of date.
 * Built-in modules only, because nothing else is there yet.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));
const inRoot = (...parts) => join(root, ...parts);

/**
 * Exits with a message where a step fails.
 * @param {{ bench?: boolean, app?: boolean }} options bench, app: also installs the packages of these folders: of the benchmark and the tests against other runtimes, and of the page
 * @returns {{ name: string, seconds: number }[]} the steps that were needed
 */
export function setUp({ bench = false, app = false } = {}) {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    console.error(`Node ${process.versions.node} is too old: install Node 20.19 or newer.`);
    process.exit(1);
  }
  const steps = [];
  if (!isInstalled('.')) steps.push(step('installation', ['ci', '--no-audit', '--no-fund']));
  for (const [folder, wanted] of Object.entries({ bench, app })) {
    if (wanted && !isInstalled(folder)) steps.push(step(`installation of ${folder}/`, ['ci', '--prefix', folder, '--no-audit', '--no-fund']));
  }
  if (!isBuilt()) steps.push(step('build', ['run', 'build']));
  return steps;
}

/** Whether a folder's node_modules holds what its package-lock.json asks for. npm leaves out optional packages of other platforms. */
function isInstalled(folder) {
  const installedFile = inRoot(folder, 'node_modules', '.package-lock.json');
  if (!existsSync(installedFile)) return false;
  const wanted = JSON.parse(readFileSync(inRoot(folder, 'package-lock.json'), 'utf8')).packages;
  const installed = JSON.parse(readFileSync(installedFile, 'utf8')).packages;
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === '') return true;
    const found = installed[path];
    return found ? found.version === entry.version : Boolean(entry.optional || entry.devOptional);
  });
}

/** Whether the built package is newer than every source. */
function isBuilt() {
  const built = inRoot('dist', 'src', 'node', 'demo.js');
  if (!existsSync(built)) return false;
  const builtAt = statSync(built).mtimeMs;
  const sources = ['src', 'shaders'].flatMap((folder) => readdirSync(inRoot(folder), { recursive: true }).map((path) => inRoot(folder, String(path))));
  return [...sources, inRoot('tsconfig.json'), inRoot('tsconfig.build.json')].every((path) => statSync(path).mtimeMs <= builtAt);
}

function step(name, npmArguments) {
  console.error(`First the ${name}: npm ${npmArguments.join(' ')}`);
  const started = performance.now();
  const { status, error } = spawnSync('npm', npmArguments, { cwd: root, stdio: ['ignore', 2, 2], shell: process.platform === 'win32' });
  if (status !== 0) {
    console.error(`The ${name} failed${error ? ` (${error.message})` : ''}; run \`npm ${npmArguments.join(' ')}\` to see why.`);
    process.exit(1);
  }
  return { name, seconds: (performance.now() - started) / 1000 };
}
