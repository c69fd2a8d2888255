/** What stills and live view have in common: the verdict, and how strong the heat is shown. */
import { value } from '../format.ts';
import { opacity } from '../state/inspect.ts';
import { threshold } from '../state/models.ts';

export function Verdict({ score, name }: { score: number; name?: string }) {
  const isDefective = score > threshold.value;
  return (
    <div class={isDefective ? 'verdict bad' : 'verdict good'} role="status">
      <span class="sign" aria-hidden="true">{isDefective ? '✕' : '✓'}</span>
      <span><strong>{isDefective ? 'Defective' : 'Good'}</strong><span>score {value(score)}, threshold {value(threshold.value)}</span></span>
      {name && <span class="file" title={name}>{name}</span>}
    </div>
  );
}

export function Opacity() {
  return (
    <label class="field">Heat
      <input type="range" min="0" max="1" step="0.05" value={opacity.value} aria-valuetext={`${Math.round(100 * opacity.value)} %`} onInput={({ currentTarget }) => { opacity.value = Number(currentTarget.value); }} />
    </label>
  );
}
