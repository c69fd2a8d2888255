/** What concerns the whole page: which view is open, the adapter, the theme, and messages. */
import { computed, effect, signal } from '@preact/signals';
import { engine, EngineError } from '../engine-client.ts';
import type { AdapterInfo } from '../protocol.ts';

export const views = ['teach', 'inspect', 'models'] as const;
export type View = (typeof views)[number];

const viewOfHash = (): View => views.find((name) => location.hash === `#${name}`) ?? 'teach';
export const view = signal<View>(viewOfHash());
globalThis.addEventListener('hashchange', () => { view.value = viewOfHash(); });

export function show(next: View): void {
  location.hash = next;
  scrollTo({ top: 0 });
}

export type AdapterState = { status: 'starting' } | ({ status: 'ready' } & AdapterInfo) | { status: 'none'; message: string };
export const adapter = signal<AdapterState>({ status: 'starting' });
/** Between a device's loss and the next one. */
export const gpuLost = signal(false);
export const isSoftware = (): boolean => adapter.value.status === 'ready' && adapter.value.isSoftware;

export async function startEngine(): Promise<void> {
  try {
    adapter.value = { status: 'ready', ...await engine.call('start') };
  } catch (error) {
    adapter.value = { status: 'none', message: messageOf(error) };
  }
}

const lossText = 'The GPU was lost: its driver was reset, or another program took it. Getting it back…';

engine.listen((event) => {
  if (event.kind === 'gpu') {
    gpuLost.value = event.state === 'lost';
    notices.value = notices.value.filter(({ text }) => text !== lossText);
    if (event.state === 'lost') notify('warning', lossText);
    else notify('info', 'The GPU was lost, and is back. Nothing that was saved is lost; the work goes on.');
  } else if (event.kind === 'warning') notify('warning', event.message);
});

export interface Notice {
  readonly id: number;
  readonly kind: 'info' | 'warning' | 'error';
  readonly text: string;
}

export const notices = signal<readonly Notice[]>([]);
let noticeCount = 0;

export function notify(kind: Notice['kind'], text: string): void {
  const notice = { id: ++noticeCount, kind, text };
  notices.value = [...notices.value.filter((other) => other.text !== text), notice].slice(-4);
  if (kind === 'info') setTimeout(() => dismiss(notice.id), 8000);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export function report(error: unknown): void {
  notify('error', messageOf(error));
}

export const codeOf = (error: unknown): string | undefined =>
  error instanceof EngineError || (error instanceof Error && 'code' in error && typeof error.code === 'string') ? String((error as { code: unknown }).code) : undefined;

const darkScheme = matchMedia('(prefers-color-scheme: dark)');
const systemIsDark = signal(darkScheme.matches);
darkScheme.addEventListener('change', ({ matches }) => { systemIsDark.value = matches; });

export type Theme = 'system' | 'light' | 'dark';
export const theme = signal<Theme>((['light', 'dark'] as const).find((name) => remembered('theme') === name) ?? 'system');
/** What is drawn with the colours of the moment is drawn anew when this changes. */
export const isDark = computed(() => (theme.value === 'system' ? systemIsDark.value : theme.value === 'dark'));
effect(() => {
  document.documentElement.dataset['theme'] = theme.value;
  remember('theme', theme.value);
});

/** Small preferences; a browser that refuses storage forgets them. */
export function remembered(key: string): string | undefined {
  try {
    return localStorage.getItem(key) ?? undefined;
  } catch {
    return undefined;
  }
}

export function remember(key: string, text: string): void {
  try {
    localStorage.setItem(key, text);
  } catch {
    // As said.
  }
}

/** Keeps the screen on while something long runs, where the browser can. */
export async function keepAwake<T>(work: () => Promise<T>): Promise<T> {
  let lock: WakeLockSentinel | undefined;
  const acquire = async (): Promise<void> => {
    if (document.visibilityState === 'visible') lock = await navigator.wakeLock?.request('screen').catch(() => undefined);
  };
  // The browser lets go of it whenever the tab is hidden.
  document.addEventListener('visibilitychange', acquire);
  try {
    const [done] = await Promise.all([work(), acquire()]);
    return done;
  } finally {
    document.removeEventListener('visibilitychange', acquire);
    void lock?.release();
  }
}
