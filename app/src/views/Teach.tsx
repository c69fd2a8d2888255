/** Teaching: good parts in, settings, training. */
import { useState } from 'preact/hooks';
import { duration, megabytes, plural } from '../format.ts';
import { adapter, isSoftware } from '../state/app.ts';
import {
  addEncoderFile, addFiles, adding, chooseQuality, discardTraining, downloadable, downloadBytes, downloadEncoder, downloading, encoder, encoders, estimates, finished,
  isFewShot, loadSamples, name, own, parts, quality, qualityNames, removeParts, resumable, resumeTraining, settings, startTraining, training, watched, type Quality,
} from '../state/teach.ts';
import { models } from '../state/models.ts';
import { CameraTeach } from './CameraTeach.tsx';
import { Card, FileButton, Progress, useIncomingFiles } from './parts.tsx';
import { Finished, TrainingCard } from './Training.tsx';

export function Teach() {
  const over = useIncomingFiles((files) => void addFiles(files));
  if (training.value) return <TrainingCard running={training.value} />;
  const isFirst = parts.value.length === 0 && models.value.length === 0 && !adding.value;
  return (
    <>
      {resumable.value && (
        <Card title="A training was interrupted" class="callout">
          <p>
            “{resumable.value.name}”, {resumable.value.step > 0 ? `saved after step ${resumable.value.step} of ${resumable.value.settings.steps}` : 'stopped before its first save'}.
          </p>
          <div class="row">
            <button type="button" class="button primary" onClick={() => void resumeTraining()}>{resumable.value.step > 0 ? `Go on from step ${resumable.value.step}` : 'Start it again'}</button>
            <button type="button" class="button" onClick={() => void discardTraining()}>Discard it</button>
          </div>
        </Card>
      )}
      {finished.value && <Finished {...finished.value} />}
      {isFirst && <Welcome />}
      <Parts over={over} />
      {parts.value.length > 0 && <Settings />}
    </>
  );
}

function Welcome() {
  return (
    <section class="welcome" aria-label="How it works">
      <h2 class="hero">Show it good parts. It finds the bad ones.</h2>
      <ol>
        <li><b>Teach</b> with pictures of good parts, from files or the camera. A few dozen are best, one is enough to begin.</li>
        <li><b>Train</b>: on this device, in seconds with a GPU, in minutes without.</li>
        <li><b>Inspect</b> files or the live camera: score, verdict, and where the defect is.</li>
      </ol>
      <p class="muted">Pictures and models stay on this device. Nothing is sent anywhere.</p>
    </section>
  );
}

function Parts({ over }: { over: boolean }) {
  const [camera, setCamera] = useState(false);
  const shown = parts.value;
  return (
    <Card
      title="Good parts" class={over ? 'over' : ''}
      actions={shown.length > 0 && (
        <span class="row">
          <span class="count" role="status">{plural(shown.length, 'part')}</span>
          <button type="button" class="link" onClick={() => void removeParts(shown.map(({ id }) => id))}>Remove all</button>
        </span>
      )}
    >
      {shown.length === 0 && <p class="muted">Drop pictures or a folder here, paste one, or choose:</p>}
      <div class="row">
        <FileButton label="Choose pictures" onFiles={(files) => void addFiles(files)} />
        <FileButton label="Choose a folder" folder onFiles={(files) => void addFiles(files)} />
        <button type="button" class="button" aria-expanded={camera} onClick={() => setCamera(!camera)}>{camera ? 'Close the camera' : 'Use the camera'}</button>
        <button type="button" class={shown.length === 0 ? 'button primary' : 'button'} disabled={adding.value !== undefined} onClick={() => void loadSamples()}>Load the sample set</button>
      </div>
      {camera && <CameraTeach />}
      {adding.value && <Progress label={`${adding.value.what}: ${adding.value.done} of ${adding.value.total}`} done={adding.value.done} total={adding.value.total} />}
      {shown.length > 0 && (
        <ul class="thumbnails" aria-label="Good parts">
          {shown.map((part) => (
            <li key={part.id}>
              <img src={part.url} alt={part.name} title={part.name} loading="lazy" decoding="async" />
              <button type="button" aria-label={`Remove ${part.name}`} onClick={() => void removeParts([part.id])}>×</button>
            </li>
          ))}
        </ul>
      )}
      {isFewShot.value && (
        <p class="note" role="status">
          {plural(shown.length, 'part')}: this will be few-shot training, in which each picture is also turned, shifted and mirrored. It works best where parts always lie alike; from 9 pictures on, plain training is used.
        </p>
      )}
    </Card>
  );
}

const qualityWords: Readonly<Record<Quality, string>> = { quick: 'A first look', normal: 'For most parts', thorough: 'Small defects, fine textures' };

function Settings() {
  return (
    <Card title="Training">
      <div class="settings">
        <label class="field">Name<input type="text" value={name.value} placeholder={`Parts of ${new Date().toLocaleDateString()}`} maxLength={80} onInput={({ currentTarget }) => { name.value = currentTarget.value; }} /></label>
        <fieldset>
          <legend>Quality</legend>
          <div class="choices">
            {qualityNames.map((of) => (
              <label key={of} class="choice">
                <input type="radio" name="quality" value={of} checked={quality.value === of} onChange={() => chooseQuality(of)} />
                <span><b>{of[0]!.toUpperCase() + of.slice(1)}</b><span class="muted">{qualityWords[of]}</span><span class="estimate">{estimates.value[of] === undefined ? 'measuring…' : `about ${duration(estimates.value[of])}`}</span></span>
              </label>
            ))}
          </div>
          {isSoftware() && <p class="note">This browser computes on the processor, without a GPU: training is slow here, so “Quick” is chosen.</p>}
        </fieldset>
        <EncoderChoice />
        <Advanced />
      </div>
      <div class="row train-row">
        <button type="button" class="button primary large" disabled={adapter.value.status !== 'ready' || adding.value !== undefined} onClick={() => void startTraining()}>
          Train on {plural(parts.value.length, 'part')}
        </button>
      </div>
    </Card>
  );
}

function EncoderChoice() {
  const stored = encoders.value;
  const has = stored.some(({ name }) => name === downloadable.name);
  return (
    <fieldset>
      <legend>Encoder</legend>
      <div class="choices">
        <label class="choice">
          <input type="radio" name="encoder" checked={encoder.value === 'tiny'} onChange={() => { encoder.value = 'tiny'; }} />
          <span><b>tiny</b><span class="muted">Comes with the page; fast</span></span>
        </label>
        {stored.map(({ sha256, name, file }) => (
          <label key={sha256} class="choice">
            <input type="radio" name="encoder" checked={encoder.value === sha256} onChange={() => { encoder.value = sha256; }} />
            <span><b>{name}</b><span class="muted">On this device, {megabytes(file.size)}</span></span>
          </label>
        ))}
      </div>
      {downloading.value
        ? (
          <div class="row">
            <Progress label={`Downloading ${downloadable.name}: ${megabytes(downloading.value.received)} of ${megabytes(downloading.value.total)}`} done={downloading.value.received} total={downloading.value.total} />
            <button type="button" class="button" onClick={() => downloading.value!.controller.abort()}>Stop</button>
          </div>
        )
        : (
          <div class="row">
            {!has && <button type="button" class="button" onClick={() => void downloadEncoder()}>Download {downloadable.name} ({megabytes(downloadBytes)}, once)</button>}
            <FileButton label="Open a weights file" accept=".safetensors" multiple={false} onFiles={([file]) => { if (file) void addEncoderFile(file); }} />
          </div>
        )}
      {!has && <p class="muted small">{downloadable.name} ({downloadable.description}) finds more, and takes about eight times as long. It is fetched from huggingface.co, which learns nothing but that.</p>}
    </fieldset>
  );
}

function Advanced() {
  const number = (label: string, key: keyof typeof own.value, hint: string, step: number, most: number) => (
    <label class="field">{label}
      <input
        type="number" min={step} max={most} step={step} value={settings.value[key]}
        onChange={({ currentTarget }) => {
          const given = Math.round(currentTarget.valueAsNumber / step) * step;
          const next = { ...own.value };
          if (Number.isFinite(given) && given >= step) next[key] = Math.min(most, given);
          else delete next[key];
          own.value = next;
          currentTarget.value = String(settings.value[key]);
        }}
      />
      <span class="muted small">{hint}</span>
    </label>
  );
  return (
    <details>
      <summary>More settings</summary>
      <div class="fields">
        {number('Size', 'size', 'pixels; multiples of 14. Larger finds smaller defects.', 14, 980)}
        {number('Steps', 'steps', 'of training', 1, 100_000)}
        {number('Batch', 'batchSize', 'pictures a step', 1, 64)}
      </div>
      <div class="row">
        <span>Picture to watch while it trains: <b>{watched.value?.name ?? parts.value[0]?.name}</b></span>
        <FileButton label="Choose another" multiple={false} class="link" onFiles={([file]) => { if (file) watched.value = { name: file.name, image: file }; }} />
      </div>
    </details>
  );
}
