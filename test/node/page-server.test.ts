// The page's server: files of one folder, under the page's own policy, and nothing else.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.ts';
import { servePage, type PageServer } from '../../src/node/page-server.ts';

let folder: string;
let server: PageServer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inp-former-page-'));
  await mkdir(join(folder, 'page', 'assets'), { recursive: true });
  await writeFile(join(folder, 'secret.txt'), 'not for the page');
  await writeFile(join(folder, 'page', 'index.html'), '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">');
  await writeFile(join(folder, 'page', 'assets', 'main-1234.js'), 'main');
  server = await servePage({ folder: join(folder, 'page'), path: '/sub/' });
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

/** fetch would tidy the path up first. */
function get(path: string, method = 'GET', headers: Record<string, string> = {}): Promise<{ status: number; headers: NodeJS.Dict<string | string[]>; body: string }> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port: new URL(server.url).port, path, method, headers }, (response) => {
      let body = '';
      response.on('data', (part: Buffer) => { body += part.toString(); });
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }));
    }).on('error', reject).end();
  });
}

describe('the page\'s server', () => {
  it('gives the page under its path, with its policy', async () => {
    const { status, headers } = await get('/sub/');
    expect(status).toBe(200);
    expect(headers['content-security-policy']).toBe('default-src \'none\'; frame-ancestors \'none\'');
    expect(headers['content-type']).toMatch(/^text\/html/);
    expect((await get('/')).status).toBe(404);
  });

  it('lets browsers keep what carries a hash, and ask again for the rest', async () => {
    const { headers, body } = await get('/sub/assets/main-1234.js?x');
    expect(body).toBe('main');
    expect(headers['cache-control']).toContain('immutable');
    const { headers: of } = await get('/sub/index.html');
    expect(of['cache-control']).toBe('no-cache');
    expect((await get('/sub/index.html', 'GET', { 'if-none-match': String(of['etag']) })).status).toBe(304);
  });

  it('has the embedded encoder, also where the folder has it not', async () => {
    expect((await get('/sub/weights/tiny_vit14.safetensors', 'HEAD')).status).toBe(200);
  });

  it.each(['/sub/../secret.txt', '/sub/..%2fsecret.txt', '/sub/%2e%2e/secret.txt', '/sub/assets/../../secret.txt', '/sub//etc/passwd', '/sub/%00', '/sub/%', '/sub/no-such-file', '/sub/assets'])('gives nothing for %s', async (path) => {
    expect((await get(path)).status).toBe(404);
  });

  it('takes nothing', async () => {
    expect((await get('/sub/', 'POST')).status).toBe(405);
  });

  it('says that the page is not built, or that the port is taken', async () => {
    await expect(servePage({ folder: join(folder, 'none') })).rejects.toThrow(/not built.*npm run app:build/);
    await expect(servePage({ folder: join(folder, 'page'), port: Number(new URL(server.url).port) })).rejects.toThrow(InputError);
  });
});
