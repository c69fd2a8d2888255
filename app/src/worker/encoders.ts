/** Encoders: the one that comes with the page, and those that the user has downloaded or dropped in. The last one used stays in memory. */
import { encoderCatalog, InputError, loadEncoderWeights, WeightsError, type EncoderWeights, type ModelMetadata } from '../../../src/browser/index.ts';
import { storage } from '../storage.ts';
import type { Picture } from '../protocol.ts';

/** Beside index.html, whatever the worker's own file is called. */
const embeddedUrl = new URL(import.meta.env.DEV ? '/weights/tiny_vit14.safetensors' : '../weights/tiny_vit14.safetensors', import.meta.url);
const embedded = encoderCatalog.get('tiny')!.sources[0] as { sha256: string };

let kept: { id: string; weights: Promise<EncoderWeights> } | undefined;

/** @param id 'tiny', or the SHA-256 of a stored encoder */
export function loadEncoder(id: string): Promise<EncoderWeights> {
  if (kept?.id !== id) kept = { id, weights: id === 'tiny' ? loadEmbedded() : loadStored(id) };
  const { weights } = kept;
  weights.catch(() => { kept = undefined; });
  return weights;
}

export function encoderOf({ encoder: { sha256, name } }: ModelMetadata): Promise<EncoderWeights> {
  if (sha256 === embedded.sha256) return loadEncoder('tiny');
  return loadEncoder(sha256).catch((error: unknown) => {
    if (!(error instanceof WeightsError)) throw error;
    throw new WeightsError('weights-not-found', `This model needs the encoder ${name} (SHA-256 ${sha256.slice(0, 12)}…), which is not on this device: get it under Teach, Encoder, or drop its weights file there.`);
  });
}

async function loadEmbedded(): Promise<EncoderWeights> {
  let bytes: ArrayBuffer;
  try {
    const response = await fetch(embeddedUrl);
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    bytes = await response.arrayBuffer();
  } catch (cause) {
    throw new WeightsError('weights-download', `The embedded encoder could not be loaded from ${embeddedUrl.pathname}: ${cause instanceof Error ? cause.message : String(cause)}. Reload the page while the network is on.`, { cause });
  }
  return loadEncoderWeights(new Uint8Array(bytes), { name: 'tiny' });
}

async function loadStored(sha256: string): Promise<EncoderWeights> {
  const stored = await storage.encoder(sha256);
  if (!stored) throw new WeightsError('weights-not-found', 'This encoder is no longer on this device: download it again, or drop its weights file in.');
  return loadEncoderWeights(new Uint8Array(await stored.file.arrayBuffer()), { name: stored.name });
}

export async function addEncoder({ file, expectedSha256 }: { file: Picture; expectedSha256?: string }): Promise<{ sha256: string; name: string }> {
  const entry = [...encoderCatalog.values()].find(({ name, sources }) => name === file.name || sources.some((source) => 'sha256' in source && source.sha256 === expectedSha256));
  const name = entry?.name ?? file.name.replace(/\.safetensors$/, '');
  if (/\.onnx$/i.test(file.name)) throw new InputError(`${file.name}: this page reads encoders as .safetensors in Hugging Face names; \`inp-former\` on the command line converts ONNX files.`, { file: file.name });
  const weights = await loadEncoderWeights(new Uint8Array(await file.image.arrayBuffer()), { name, file: file.name });
  if (expectedSha256 !== undefined && weights.sha256 !== expectedSha256) {
    throw new WeightsError('weights-hash', `${file.name}: what was downloaded has the SHA-256 ${weights.sha256.slice(0, 12)}…, expected ${expectedSha256.slice(0, 12)}…. It is not kept; try again later.`);
  }
  await storage.saveEncoder({ sha256: weights.sha256, name, added: Date.now(), file: file.image });
  return { sha256: weights.sha256, name };
}
