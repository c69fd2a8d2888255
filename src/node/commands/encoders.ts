/**
 * Which encoder a command uses. A model file names its encoder by name and SHA-256 but not by place, so that it can
 * move between machines; where a user's own encoder file lay when it was trained with is kept in the cache folder, and
 * `--encoder` overrides it all.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { InputError, WeightsError } from '../../errors.ts';
import type { ModelMetadata } from '../../index.ts';
import { encoderCatalog } from '../../weights/catalog.ts';
import type { EncoderArchitecture, EncoderWeights } from '../../weights/encoder.ts';
import { defaultCacheDir, resolveEncoder } from '../encoder-store.ts';
import { writeFileAtomic } from '../files.ts';
import { byteSize, type CommandContext } from './context.ts';

/** An encoder by name or path, downloaded with a bar where it has to be. A path is remembered. */
export async function openEncoder(nameOrPath: string, context: CommandContext, architecture?: Partial<EncoderArchitecture>): Promise<EncoderWeights> {
  const encoder = await resolveWithBar(nameOrPath, context, architecture);
  if (!encoderCatalog.has(nameOrPath)) await rememberPlace(encoder.sha256, resolve(nameOrPath));
  const { width, depth, numHeads, patchSize } = encoder.architecture;
  context.field('Encoder', `${encoder.name}: ${width} channels, ${depth} blocks, ${numHeads} heads, patches of ${patchSize}`);
  return encoder;
}

/** The encoder that a model was trained with: the one given, else by hash from the catalogue or where it was last seen, else by name. */
export async function openEncoderOf(metadata: ModelMetadata, given: string | undefined, context: CommandContext): Promise<EncoderWeights> {
  const { name, sha256, numHeads } = metadata.encoder;
  if (given !== undefined) return openEncoder(given, context, { numHeads });
  const inCatalog = [...encoderCatalog.values()].find((entry) => entry.sources.some((source) => source.sha256 === sha256));
  const place = (await readPlaces())[sha256];
  const candidates = [place, inCatalog?.name, encoderCatalog.has(name) ? name : undefined].filter((candidate) => candidate !== undefined);
  let failure: unknown;
  for (const candidate of new Set(candidates)) {
    try {
      const encoder = await resolveWithBar(candidate, context, { numHeads });
      if (encoder.sha256 === sha256) return encoder;
    } catch (error) {
      if (context.signal.aborted) throw error;
      failure ??= error;
    }
  }
  throw new WeightsError(
    'weights-not-found',
    `The model was trained with the encoder "${name}" (SHA-256 ${sha256.slice(0, 12)}…), which is not on this machine: give its file with --encoder PATH.` +
      (failure instanceof Error ? ` (${failure.message})` : ''),
    { cause: failure },
  );
}

async function resolveWithBar(nameOrPath: string, context: CommandContext, architecture?: Partial<EncoderArchitecture>): Promise<EncoderWeights> {
  const progress = context.progress();
  let started = false;
  try {
    return await resolveEncoder(nameOrPath, {
      signal: context.signal,
      architecture,
      onProgress: ({ receivedBytes, totalBytes }) => {
        if (!started) {
          started = true;
          void progress.begin('downloading', totalBytes ?? 0);
        }
        progress.update(receivedBytes, totalBytes ?? receivedBytes, `${byteSize(receivedBytes)}${totalBytes === undefined ? '' : ` of ${byteSize(totalBytes)}`}`);
      },
    });
  } finally {
    progress.end();
  }
}

const placesFile = () => join(defaultCacheDir(), 'encoder-places.json');

async function readPlaces(): Promise<Record<string, string>> {
  try {
    return JSON.parse(await readFile(placesFile(), 'utf8')) as Record<string, string>;
  } catch {
    return {};
  }
}

/** A convenience only: where the cache can't be written, `--encoder` remains. */
async function rememberPlace(sha256: string, path: string): Promise<void> {
  try {
    const places = await readPlaces();
    if (places[sha256] === path) return;
    await mkdir(defaultCacheDir(), { recursive: true });
    await writeFileAtomic(placesFile(), `${JSON.stringify({ ...places, [sha256]: path }, null, 2)}\n`);
  } catch (error) {
    if (!(error instanceof InputError) && (error as NodeJS.ErrnoException).code === undefined) throw error;
  }
}
