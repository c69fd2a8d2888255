/** Encoders for the commands: what is downloaded shows a bar, what is used is named. */
import { resolve } from 'node:path';
import type { ModelMetadata } from '../../index.ts';
import { encoderCatalog } from '../../weights/catalog.ts';
import type { EncoderArchitecture, EncoderWeights } from '../../weights/encoder.ts';
import { rememberPlace, resolveEncoderOf } from '../encoder-of-model.ts';
import { resolveEncoder, type ResolveEncoderOptions } from '../encoder-store.ts';
import { byteSize, type CommandContext } from './context.ts';

/** An encoder by name or path, downloaded with a bar where it has to be. A path is remembered. */
export async function openEncoder(nameOrPath: string, context: CommandContext, architecture?: Partial<EncoderArchitecture>): Promise<EncoderWeights> {
  const encoder = await withBar(context, (options) => resolveEncoder(nameOrPath, { ...options, architecture }));
  if (!encoderCatalog.has(nameOrPath)) await rememberPlace(encoder.sha256, resolve(nameOrPath));
  const { width, depth, numHeads, patchSize } = encoder.architecture;
  context.field('Encoder', `${encoder.name}: ${width} channels, ${depth} blocks, ${numHeads} heads, patches of ${patchSize}`);
  return encoder;
}

/** The encoder that a model was trained with, or the one given. */
export async function openEncoderOf(metadata: ModelMetadata, given: string | undefined, context: CommandContext): Promise<EncoderWeights> {
  if (given !== undefined) return openEncoder(given, context, { numHeads: metadata.encoder.numHeads });
  return withBar(context, (options) => resolveEncoderOf(metadata, options));
}

/** With a bar where something has to be downloaded. */
async function withBar(context: CommandContext, resolve: (options: ResolveEncoderOptions) => Promise<EncoderWeights>): Promise<EncoderWeights> {
  const progress = context.progress();
  let started = false;
  try {
    return await resolve({
      signal: context.signal,
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
