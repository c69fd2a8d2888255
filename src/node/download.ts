/**
 * Downloads one file over HTTP, resumably. Bytes go to `<path>.part`, with the server's validator (ETag or
 * modification date) in `<path>.part.json`; a later attempt asks for the rest with `Range` and `If-Range`, so that a
 * file that changed in between is fetched anew instead of being patched together. The file appears under its own name
 * only when its size and hash are right.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, rename, rm, stat } from 'node:fs/promises';
import { AbortedError, InputError, WeightsError } from '../errors.ts';
import { fileError, writeFileAtomic } from './files.ts';

const MAX_ATTEMPTS = 5;

export interface DownloadProgress {
  readonly source: string;
  readonly receivedBytes: number;
  /** Undefined until, or where, the server does not say. */
  readonly totalBytes: number | undefined;
}

export interface DownloadOptions {
  /** Size and hash to insist on, where they are known. */
  readonly bytes?: number;
  readonly sha256?: string;
  readonly onProgress?: (progress: DownloadProgress) => void;
  readonly signal?: AbortSignal;
  readonly fetch?: typeof globalThis.fetch;
}

/** The connection ended early: what has arrived is kept, and worth going on from. */
class Interrupted extends Error {}

/**
 * Goes on from what an earlier call left, and after a cut connection as long as each attempt brings something new.
 * @returns the SHA-256 of what was received
 * @throws {WeightsError} when the server refuses, or when size or hash are wrong (nothing is kept then)
 * @throws {AbortedError} when the signal fires; what has arrived is kept
 * @throws {InputError} when the disk is full or `path` is not writable
 */
export async function downloadFile(url: string, path: string, options: DownloadOptions = {}): Promise<{ sha256: string }> {
  const part = `${path}.part`;
  for (let attempt = 1; ; attempt++) {
    const before = await fileSize(part);
    try {
      const sha256 = await transfer(url, path, options);
      await rename(part, path);
      await discard(`${part}.json`);
      return { sha256 };
    } catch (error) {
      if (options.signal?.aborted) throw new AbortedError(`The download of ${url} was stopped; what has arrived is in ${part} and the next download goes on from there.`);
      if (error instanceof Interrupted && attempt < MAX_ATTEMPTS && (await fileSize(part)) > before) continue;
      if (error instanceof Interrupted) throw new WeightsError('weights-download', error.message, { cause: error });
      if (!(error instanceof WeightsError && error.code === 'weights-download')) await discard(part, `${part}.json`);
      if (error instanceof WeightsError || error instanceof InputError) throw error;
      throw fileError(part, error, 'written');
    }
  }
}

/** One request: appends to `<path>.part` and returns the whole part's SHA-256 once it is complete and right. */
async function transfer(url: string, path: string, options: DownloadOptions): Promise<string> {
  const part = `${path}.part`;
  const validator = await readValidator(`${part}.json`, url);
  let offset = validator === undefined ? 0 : await fileSize(part);

  const headers: Record<string, string> = { 'accept-encoding': 'identity' }; // sizes and ranges count the file's own bytes
  if (offset > 0) Object.assign(headers, { range: `bytes=${offset}-`, 'if-range': validator });
  let response: Response;
  try {
    response = await (options.fetch ?? fetch)(url, { headers, signal: options.signal ?? null });
  } catch (error) {
    throw new WeightsError('weights-download', networkReason(error), { cause: error });
  }
  if (response.status === 416 && offset > 0) {
    // More is here than the server has: not a part of its file.
    await response.body?.cancel();
    await discard(part, `${part}.json`);
    return transfer(url, path, options);
  }
  if (!response.ok || !response.body) {
    await response.body?.cancel();
    throw new WeightsError('weights-download', `the server answered ${response.status} ${response.statusText}`.trimEnd());
  }

  let total: number | undefined;
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
  if (response.status === 206) {
    if (offset === 0 || !range || Number(range[1]) !== offset) {
      await response.body.cancel();
      await discard(part, `${part}.json`);
      throw new WeightsError('weights-download', `the server sent "${response.headers.get('content-range')}" when asked for the bytes from ${offset} on`);
    }
    total = Number(range[2]);
  } else {
    offset = 0;
    const length = response.headers.get('content-length');
    total = length === null ? undefined : Number(length);
  }
  if (total !== undefined && options.bytes !== undefined && total !== options.bytes) {
    await response.body.cancel();
    throw new WeightsError('weights-hash', `the server has ${total} bytes, expected ${options.bytes}`);
  }

  const etag = response.headers.get('etag');
  const newValidator = etag && !etag.startsWith('W/') ? etag : response.headers.get('last-modified');
  if (newValidator) await writeFileAtomic(`${part}.json`, JSON.stringify({ url, validator: newValidator }));
  else await discard(`${part}.json`);

  const hash = createHash('sha256');
  if (offset > 0) for await (const chunk of createReadStream(part)) hash.update(chunk as Buffer);
  const handle = await open(part, offset > 0 ? 'r+' : 'w');
  let received = offset;
  const limit = options.bytes ?? total ?? Infinity;
  try {
    options.onProgress?.({ source: url, receivedBytes: received, totalBytes: total });
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read().catch((error: unknown) => {
        throw new Interrupted(`the connection ended after ${received} of ${total ?? 'unknown'} bytes (${networkReason(error)})`);
      });
      if (done) break;
      if (received + value.length > limit) {
        await reader.cancel();
        throw new WeightsError('weights-hash', `the server sends more than the expected ${limit} bytes`);
      }
      for (let written = 0; written < value.length; ) {
        written += (await handle.write(value, written, value.length - written, received + written)).bytesWritten;
      }
      hash.update(value);
      received += value.length;
      options.onProgress?.({ source: url, receivedBytes: received, totalBytes: total });
    }
    await handle.sync();
  } finally {
    await handle.close();
  }

  if (total !== undefined && received < total) throw new Interrupted(`the connection ended after ${received} of ${total} bytes`);
  if (options.bytes !== undefined && received !== options.bytes) {
    throw new WeightsError('weights-hash', `${received} bytes arrived, expected ${options.bytes}`);
  }
  const sha256 = hash.digest('hex');
  if (options.sha256 !== undefined && sha256 !== options.sha256) {
    throw new WeightsError('weights-hash', `what arrived has the SHA-256 ${sha256}, expected ${options.sha256}`);
  }
  return sha256;
}

async function readValidator(file: string, url: string): Promise<string | undefined> {
  try {
    const saved = JSON.parse(await readFile(file, 'utf8')) as { url?: unknown; validator?: unknown };
    return saved.url === url && typeof saved.validator === 'string' ? saved.validator : undefined;
  } catch {
    return undefined; // none, or unreadable: the download starts over
  }
}

async function fileSize(path: string): Promise<number> {
  return stat(path).then(({ size }) => size, () => 0);
}

async function discard(...paths: string[]): Promise<void> {
  for (const path of paths) await rm(path, { force: true });
}

/** `fetch failed` says nothing; its cause does. */
function networkReason(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error && cause.message ? cause.message : message;
}
