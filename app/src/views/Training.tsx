/** A training while it runs, and what it came to. */
import { useEffect, useMemo, useState } from 'preact/hooks';
import { duration, plural, rate, value } from '../format.ts';
import { gpuLost, show } from '../state/app.ts';
import { exportModel, model, samples } from '../state/models.ts';
import { enqueue } from '../state/inspect.ts';
import { cancelTraining, preview, setPaused, type RunningTraining } from '../state/teach.ts';
import { LossChart } from './LossChart.tsx';
import { MapView } from './MapView.tsx';
import { Card, Progress, useHidden } from './parts.tsx';

const phases = [
  ['encoding', 'Looking at the pictures'], ['training', 'Training'], ['calibrating', 'Calibrating the threshold'],
] as const;

export function TrainingCard({ running }: { running: RunningTraining }) {
  const { progress, settings, losses, paused, saved } = running;
  const phase = progress?.phase ?? 'preparing';
  const label = gpuLost.value ? 'The GPU was lost; getting it back' : paused ? 'Paused' : phase === 'preparing' ? 'Preparing' : phase === 'saving' ? 'Saving the model' : phases.find(([key]) => key === phase)?.[1] ?? phase;
  const hidden = useHidden();
  return (
    <Card title={`Training “${running.name}”`} class="training">
      <ol class="phases" aria-label="Phases">
        {phases.map(([key, title], i) => {
          const now = phases.findIndex(([other]) => other === phase);
          const done = phase === 'saving' || i < now;
          return <li key={key} class={done ? 'done' : i === now ? 'now' : ''} aria-current={i === now ? 'step' : undefined}>{title}</li>;
        })}
      </ol>
      <Progress label={`${label}${progress && progress.total > 1 ? `: ${progress.done} of ${progress.total} ${phase === 'training' ? 'steps' : 'pictures'}` : '…'}`} done={progress?.done ?? 0} total={progress?.total ?? 1} />
      <p class="sr-only" role="status">{label}</p>
      <div class="columns">
        <div>
          <h3>Loss</h3>
          <LossChart losses={losses} steps={settings.steps} />
          <dl class="figures">
            <div><dt>Speed</dt><dd>{progress && progress.imagesPerSecond > 0 && !paused ? `${rate(progress.imagesPerSecond)} images/s` : '–'}</dd></div>
            <div><dt>Time left</dt><dd>{paused ? 'paused' : progress && phase !== 'preparing' ? duration(progress.secondsLeft) : '…'}</dd></div>
            <div><dt>Loss</dt><dd>{losses.length > 0 ? value(losses.at(-1)!) : '–'}</dd></div>
            <div><dt>Saved at step</dt><dd>{saved > 0 ? saved : '–'}</dd></div>
          </dl>
        </div>
        <PreviewMap />
      </div>
      <div class="row">
        <button type="button" class="button" onClick={() => setPaused(!paused)}>{paused ? 'Go on' : 'Pause'}</button>
        <button type="button" class="button" onClick={cancelTraining}>Cancel</button>
        <span class="muted small">{hidden ? 'It goes on while this tab is hidden; keep the tab open.' : 'Encoder '}{!hidden && `${settings.encoderName}, ${settings.size} pixels, ${plural(running.images, 'picture')}, ${settings.steps} steps of ${settings.batchSize}. A reload goes on from the last save.`}</span>
      </div>
    </Card>
  );
}

function PreviewMap() {
  const shown = preview.value;
  const [size, setSize] = useState({ width: 1, height: 1 });
  const url = shown?.url;
  useEffect(() => {
    if (!url) return;
    const image = new Image();
    image.src = url;
    void image.decode().then(() => setSize({ width: image.naturalWidth, height: image.naturalHeight }), () => undefined);
  }, [url]);
  // The model is not calibrated yet: the scale is that of the untrained one, so that what it learns turns dark.
  const first = useMemo(() => ({ high: 0 }), [url]);
  if (shown && first.high === 0) first.high = median(shown.map);
  return (
    <div>
      <h3>What it would find now</h3>
      {shown
        ? (
          <>
            <MapView picture={shown.url} alt={`Map of the watched picture after ${shown.step} steps`} place={{ ...size, mapWidth: shown.mapWidth, mapHeight: shown.mapHeight, x: 0, y: 0, scaleX: size.width / shown.mapWidth, scaleY: size.height / shown.mapHeight, views: 1 }} map={shown.map} scale={{ low: 0, high: first.high }} opacity={0.8} />
            <p class="muted small">After {plural(shown.step, 'step')}. What it can explain turns dark; what stays bright is unlike the good parts.</p>
          </>
        )
        : <div class="placeholder">The map of one picture appears here, and improves.</div>}
    </div>
  );
}

function median(map: Float32Array): number {
  return Float32Array.from(map).sort()[map.length >> 1]!;
}

export function Finished({ modelId, skipped, outliers }: { modelId: string; skipped: readonly string[]; outliers: readonly string[] }) {
  const trained = model.value;
  if (trained?.id !== modelId) return null;
  const { calibration, training } = trained.metadata;
  return (
    <Card title={`“${trained.name}” is ready`} class="callout">
      <p role="status">
        Trained on {training.shots === undefined ? plural(training.images, 'picture') : `${plural(training.shots, 'picture')} in ${training.images} views (few-shot)`}, {training.steps} steps. Threshold {value(calibration.threshold)}: {calibration.rule}.
      </p>
      {skipped.length > 0 && <p class="note">Left out: {skipped.join(' ')}</p>}
      {outliers.length > 0 && <p class="note">Look at {outliers.join(', ')}: far above the other good parts. The threshold leaves {outliers.length === 1 ? 'it' : 'them'} aside.</p>}
      <div class="row">
        {trained.fromSamples && samples.value.length > 0
          ? <button type="button" class="button primary" onClick={() => { show('inspect'); enqueue(samples.value); }}>Inspect the sample parts</button>
          : <button type="button" class="button primary" onClick={() => show('inspect')}>Inspect parts</button>}
        <button type="button" class="button" onClick={() => void exportModel(trained)}>Export the model</button>
      </div>
    </Card>
  );
}
