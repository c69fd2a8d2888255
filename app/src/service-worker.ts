/**
 * The page without a network: at the first visit all of its files, the embedded encoder included, are put into a cache,
 * and from then on it is served from there. A new version is fetched beside the old one and takes over when the last
 * page of the old one is closed, so that no page ever mixes both.
 */
declare const PAGE_FILES: readonly (readonly [file: string, hash: string])[];

const scope = globalThis as unknown as ServiceWorkerGlobalScope;
const files = PAGE_FILES;
const prefix = 'inspection-page-';
const cacheName = prefix + fingerprint(files.map(([file, hash]) => file + hash).join());
const home = new URL('./', scope.location.href).href;

scope.addEventListener('install', (event) => {
  event.waitUntil((async () => {
    const cache = await caches.open(cacheName);
    await Promise.all(files.map(async ([file]) => {
      const url = new URL(file, home).href;
      // Past the browser's own cache unless the server says that it is up to date.
      const response = await fetch(url, { cache: 'no-cache' });
      if (!response.ok) throw new Error(`${url}: ${response.status}`);
      await cache.put(url, response);
    }));
  })());
});

scope.addEventListener('activate', (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) if (name.startsWith(prefix) && name !== cacheName) await caches.delete(name);
    await scope.clients.claim();
  })());
});

scope.addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== scope.location.origin) return;
  const file = request.mode === 'navigate' && url.href.split(/[?#]/)[0] === home ? new URL('index.html', home).href : url.href;
  event.respondWith((async () => (await (await caches.open(cacheName)).match(file)) ?? fetch(request))());
});

/** FNV-1a, 32 bits: enough to tell one version's list from another's. */
function fingerprint(text: string): string {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return (value >>> 0).toString(16);
}

interface ExtendableEvent extends Event { waitUntil(work: Promise<unknown>): void }
interface FetchEvent extends ExtendableEvent { readonly request: Request; respondWith(response: Promise<Response>): void }
interface ServiceWorkerGlobalScope {
  readonly location: Location;
  readonly clients: { claim(): Promise<void> };
  addEventListener(type: 'install' | 'activate', listener: (event: ExtendableEvent) => void): void;
  addEventListener(type: 'fetch', listener: (event: FetchEvent) => void): void;
}
