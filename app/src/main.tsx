/** The page: what storage holds is shown at once, the engine starts beside it, and the service worker keeps the page for later. */
import { render } from 'preact';
import { report, startEngine } from './state/app.ts';
import { loadModels } from './state/models.ts';
import { loadTeaching } from './state/teach.ts';
import { Shell } from './views/Shell.tsx';

void startEngine();
Promise.all([loadTeaching(), loadModels()]).catch((error: unknown) => {
  report(new Error(`This browser does not let the page keep anything (${error instanceof Error ? error.message : String(error)}): leave private browsing, or allow site data.`));
}).finally(() => {
  render(<Shell />, document.getElementById('app')!);
  document.documentElement.dataset['ready'] = 'true';
});

if (import.meta.env.PROD && 'serviceWorker' in navigator) {
  // Without it the page works all the same, while the network is there.
  navigator.serviceWorker.register('./service-worker.js').catch(() => undefined);
}
