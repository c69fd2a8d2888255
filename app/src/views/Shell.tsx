/** The frame around the views: where one is, what computes, and what went wrong. */
import type { ComponentChildren } from 'preact';
import { useErrorBoundary } from 'preact/hooks';
import { adapter, dismiss, gpuLost, notices, theme, view, views, type Theme, type View } from '../state/app.ts';
import { training } from '../state/teach.ts';
import { Inspect } from './Inspect.tsx';
import { Models } from './Models.tsx';
import { Teach } from './Teach.tsx';

const titles: Readonly<Record<View, string>> = { teach: 'Teach', inspect: 'Inspect', models: 'Models' };
const nextTheme: Readonly<Record<Theme, Theme>> = { system: 'light', light: 'dark', dark: 'system' };

export function Shell() {
  const now = view.value;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById('main')!.focus(); }}>To the content</a>
      <header>
        <div class="brand"><img src="./icon.svg" alt="" width="28" height="28" /><span>Inspection</span></div>
        <nav aria-label="Views">
          {views.map((name) => <a key={name} href={`#${name}`} aria-current={name === now ? 'page' : undefined}>{titles[name]}{name === 'teach' && training.value ? <i class="dot-running" aria-label="training" role="img" /> : null}</a>)}
        </nav>
        <div class="status">
          <AdapterChip />
          <button type="button" class="icon" onClick={() => { theme.value = nextTheme[theme.value]; }} aria-label={`Colours: ${theme.value}. Change.`} title={`Colours: ${theme.value}`}>{theme.value === 'light' ? '☀' : theme.value === 'dark' ? '☾' : '◐'}</button>
        </div>
      </header>
      <div class="notices">
        {notices.value.map(({ id, kind, text }) => (
          <div key={id} class={`notice ${kind}`} role={kind === 'error' ? 'alert' : 'status'}>
            <span>{text}</span><button type="button" class="icon" aria-label="Dismiss" onClick={() => dismiss(id)}>×</button>
          </div>
        ))}
      </div>
      <main id="main" tabIndex={-1}>
        <h1 class="sr-only">{titles[now]}</h1>
        {adapter.value.status === 'none' && <NoAdapter message={adapter.value.message} />}
        <Safely key={now}>{now === 'teach' ? <Teach /> : now === 'inspect' ? <Inspect /> : <Models />}</Safely>
      </main>
    </>
  );
}

/** A fault of the page's own ends a view, not the page. */
function Safely({ children }: { children: ComponentChildren }) {
  const [fault] = useErrorBoundary();
  if (fault === undefined) return <>{children}</>;
  return (
    <section class="card callout error" role="alert" aria-label="Fault">
      <h2>This view has failed</h2>
      <p>That is a fault of the page: {String(fault)}. What was saved is kept, and a training goes on from its last save.</p>
      <button type="button" class="button" onClick={() => location.reload()}>Reload the page</button>
    </section>
  );
}

function AdapterChip() {
  const state = adapter.value;
  if (state.status === 'starting') return <span class="chip" role="status">Starting…</span>;
  if (state.status === 'none') return <span class="chip bad">No WebGPU</span>;
  if (gpuLost.value) return <span class="chip bad" role="status">GPU lost</span>;
  return <span class={state.isSoftware ? 'chip warn' : 'chip'} title={state.name}>{state.isSoftware ? 'No GPU: slow' : 'GPU'}</span>;
}

function NoAdapter({ message }: { message: string }) {
  return (
    <section class="card callout error" role="alert" aria-label="No WebGPU">
      <h2>This browser can't train or inspect yet</h2>
      <p>{message}</p>
      <ul>
        <li>Chrome or Edge 113 and newer have WebGPU; on Linux it may need <code>chrome://flags/#enable-unsafe-webgpu</code>.</li>
        <li>Safari has it from version 26 on, Firefox from 141 on (Windows) and 145 on (macOS).</li>
        <li>If the browser is new enough: update the graphics driver, and turn on “Use graphics acceleration when available” in the browser's system settings.</li>
      </ul>
      <button type="button" class="button" onClick={() => location.reload()}>Try again</button>
    </section>
  );
}
