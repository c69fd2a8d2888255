/**
 * Which encoder a model needs. A model file names its encoder by name and SHA-256 but not by place, so that it can move
 * between machines; where a user's own encoder file lay when it was trained with is kept in the cache folder.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Engine } from '../engine.ts';
import { InputError, WeightsError } from '../errors.ts';
import { Inspector, type InspectorOptions } from '../inspect/inspector.ts';
import type { ModelMetadata } from '../inspect/model-file.ts';
import { encoderCatalog } from '../weights/catalog.ts';
import type { EncoderWeights } from '../weights/encoder.ts';
import { defaultCacheDir, resolveEncoder, type ResolveEncoderOptions } from './encoder-store.ts';
import { readFileChecked, writeFileAtomic } from './files.ts';

/**
 * An inspector from a model file, with the encoder that it was trained with.
 * @param options.encoder where it is given, it is not looked for
 * @throws InputError (no model file, damaged), WeightsError (see {@link resolveEncoderOf}), EncoderMismatchError, AllocationError, KernelError
 */
export async function openInspector(
  engine: Engine, modelFile: string, { encoder, ...options }: InspectorOptions & { readonly encoder?: EncoderWeights } = {},
): Promise<Inspector> {
  const model = await readFileChecked(modelFile);
  const weights = Promise.resolve(encoder ?? resolveEncoderOf(Inspector.readMetadata(model, modelFile)));
  weights.catch(() => undefined); // told by what follows, or else a damaged model is what is told
  return Inspector.open(engine, model, weights, { name: modelFile, ...options });
}

/**
 * The encoder that a model was trained with: by hash from the catalogue or where it was last seen, else by name.
 * @throws WeightsError (`weights-not-found`) where it is none of these; AbortedError when the signal fires
 */
export async function resolveEncoderOf(metadata: ModelMetadata, options: Omit<ResolveEncoderOptions, 'architecture'> = {}): Promise<EncoderWeights> {
  const { name, sha256, numHeads } = metadata.encoder;
  const inCatalog = [...encoderCatalog.values()].find((entry) => entry.sources.some((source) => source.sha256 === sha256));
  const place = (await readPlaces())[sha256];
  const candidates = [place, inCatalog?.name, encoderCatalog.has(name) ? name : undefined].filter((candidate) => candidate !== undefined);
  let failure: unknown;
  for (const candidate of new Set(candidates)) {
    try {
      const encoder = await resolveEncoder(candidate, { ...options, architecture: { numHeads } });
      if (encoder.sha256 === sha256) return encoder;
    } catch (error) {
      if (options.signal?.aborted) throw error;
      failure ??= error;
    }
  }
  throw new WeightsError(
    'weights-not-found',
    `The model was trained with the encoder "${name}" (SHA-256 ${sha256.slice(0, 12)}…), which is not on this machine: give its file with --encoder PATH, or in a program as \`encoder\`.` +
      (failure instanceof Error ? ` (${failure.message})` : ''),
    { cause: failure },
  );
}

const placesFile = () => join(defaultCacheDir(), 'encoder-places.json');

async function readPlaces(): Promise<Record<string, string>> {
  try {
    return JSON.parse(await readFile(placesFile(), 'utf8')) as Record<string, string>;
  } catch {
    return {};
  }
}

/** Notes where a user's own encoder lies. A convenience only: where the cache can't be written, it has to be named again. */
export async function rememberPlace(sha256: string, path: string): Promise<void> {
  try {
    const places = await readPlaces();
    if (places[sha256] === path) return;
    await mkdir(defaultCacheDir(), { recursive: true });
    await writeFileAtomic(placesFile(), `${JSON.stringify({ ...places, [sha256]: path }, null, 2)}\n`);
  } catch (error) {
    if (!(error instanceof InputError) && (error as NodeJS.ErrnoException).code === undefined) throw error;
  }
}
