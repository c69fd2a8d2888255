/**
 * Serves the inspection page's built files, and nothing else, to this machine. Every response carries the page's own
 * Content-Security-Policy (index.html states it), which so holds in its workers too.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InputError } from '../errors.ts';

/** The package's folder, seen from the sources as from dist/. */
const packageFolder = (): string => {
  const here = fileURLToPath(new URL('../..', import.meta.url));
  return here.endsWith('dist/') || here.endsWith('dist\\') ? join(here, '..') : here;
};

export const builtPage = (): string => join(packageFolder(), 'dist', 'app');

const mediaTypes: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml', '.png': 'image/png',
  '.webmanifest': 'application/manifest+json', '.safetensors': 'application/octet-stream',
};

export interface PageServerOptions {
  /** Default 127.0.0.1: this machine alone. */
  readonly host?: string;
  /** 0 for any free one. */
  readonly port?: number;
  /** The path under which it is served; default `/`. */
  readonly path?: string;
  /** Folder of the built page; by default the package's own. */
  readonly folder?: string;
}

export interface PageServer {
  readonly url: string;
  close(): Promise<void>;
}

/** @throws InputError where the page is not built, or the port is taken */
export async function servePage({ host = '127.0.0.1', port = 0, path = '/', folder = builtPage() }: PageServerOptions = {}): Promise<PageServer> {
  const html = await readFile(join(folder, 'index.html'), 'utf8').catch((cause: unknown) => {
    throw new InputError(`${join(folder, 'index.html')}: the inspection page is not built. Run \`npm run app:build\`, or use the published package.`, { file: folder, cause });
  });
  const policy = /http-equiv="Content-Security-Policy" content="([^"]+)"/.exec(html)?.[1];
  if (policy === undefined) throw new InputError(`${join(folder, 'index.html')}: it states no Content-Security-Policy. Build the page again: \`npm run app:build\`.`, { file: folder });
  const headers = {
    'content-security-policy': `${policy}; frame-ancestors 'none'`, 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer',
    'cross-origin-opener-policy': 'same-origin', 'cross-origin-resource-policy': 'same-origin', 'permissions-policy': 'camera=(self)',
  };

  const server = createServer(async (request, response) => {
    const answer = (status: number, type: string, body: string | Uint8Array, more: Record<string, string> = {}): void => {
      response.writeHead(status, { ...headers, 'content-type': type, ...more }).end(request.method === 'HEAD' ? undefined : body);
    };
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(405, 'text/plain', 'This server only gives files.', { allow: 'GET, HEAD' });
    const asked = pathOf(request.url ?? '/');
    if (asked === undefined || !asked.startsWith(path)) return answer(404, 'text/plain', 'There is no such file.');
    const file = asked.slice(path.length) || 'index.html';
    const bytes = await readPageFile(folder, file);
    if (!bytes) return answer(404, 'text/plain', 'There is no such file.');
    const tag = `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 22)}"`;
    // Names under assets/ carry a hash of their content.
    const caching = { etag: tag, 'cache-control': file.startsWith('assets/') ? 'public, max-age=31536000, immutable' : 'no-cache' };
    if (request.headers['if-none-match'] === tag) return void response.writeHead(304, { ...headers, ...caching }).end();
    return answer(200, mediaTypes[extname(file)] ?? 'application/octet-stream', bytes, { ...caching, 'content-length': String(bytes.length) });
  });
  await listen(server, host, port);
  const { port: given } = server.address() as { port: number };
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${given}${path}`,
    close: () => new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    }),
  };
}

function pathOf(url: string): string | undefined {
  try {
    return decodeURIComponent(url.split(/[?#]/)[0]!);
  } catch {
    return undefined;
  }
}

/** The published package has the embedded encoder once, outside of the page's folder. */
async function readPageFile(folder: string, file: string): Promise<Uint8Array | undefined> {
  const path = normalize(file);
  if (file.includes('\0') || path.startsWith('..') || path.startsWith('/') || /^[a-z]:/i.test(path)) return undefined;
  const own = await readFile(join(folder, path)).catch(() => undefined);
  if (own || path !== join('weights', 'tiny_vit14.safetensors')) return own;
  return readFile(join(packageFolder(), 'weights', 'tiny', 'tiny_vit14.safetensors')).catch(() => undefined);
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const what = cause.code === 'EADDRINUSE' ? `port ${port} is taken by another program; give another --port, or 0 for any free one` : cause.message;
      reject(new InputError(`The page can't be served at ${host}:${port}: ${what}.`, { cause }));
    });
    server.listen(port, host, resolve);
  });
}
