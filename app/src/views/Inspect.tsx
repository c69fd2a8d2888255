/** Inspection: pictures in, the chosen one with its map and verdict, and the table of all. */
import { useEffect, useMemo, useState } from 'preact/hooks';
import { hasPrototypes, inspectPoint } from '../../../src/inspect/prototypes.ts';
import { plural, value } from '../format.ts';
import { judge } from '../judge.ts';
import { show } from '../state/app.ts';
import {
  clearResults, counts, enqueue, inspectFiles, live, opacity, queue, results, selected, selectNext, stopQueue, type Result,
} from '../state/inspect.ts';
import { why, whyOpen } from '../state/why.ts';
import { chooseModel, importModel, model, models, samples, threshold } from '../state/models.ts';
import type { StoredModel } from '../storage.ts';
import { Histogram } from './Histogram.tsx';
import { Live } from './Live.tsx';
import { HeatLegend, MapView, type MapPoint } from './MapView.tsx';
import { Card, FileButton, Progress, useBlobUrl, useIncomingFiles, useLoaded } from './parts.tsx';
import { ResultsTable } from './ResultsTable.tsx';
import { Opacity, Verdict } from './Verdict.tsx';
import { Swatch, Why, whyHeadingId } from './Why.tsx';

export function Inspect() {
  const over = useIncomingFiles((files) => void inspectFiles(files));
  const of = model.value;
  if (!of) {
    return (
      <Card title="No model yet" class={over ? 'over' : ''}>
        <p>Teach one from good parts, or open a model file that was exported here or written by <code>inp-former train</code>.</p>
        <div class="row">
          <button type="button" class="button primary" onClick={() => show('teach')}>Teach</button>
          <FileButton label="Open a model file" accept=".safetensors" multiple={false} onFiles={([file]) => { if (file) void importModel(file); }} />
        </div>
      </Card>
    );
  }
  return (
    <>
      <Card title="Inspect" class={over ? 'over' : ''}>
        <div class="row">
          <label class="field inline">Model
            <select value={of.id} onChange={({ currentTarget }) => void chooseModel(currentTarget.value)}>
              {models.value.map(({ id, name }) => <option key={id} value={id}>{name}</option>)}
            </select>
          </label>
          <FileButton label="Choose pictures" onFiles={(files) => void inspectFiles(files)} />
          <FileButton label="Choose a folder" folder onFiles={(files) => void inspectFiles(files)} />
          <button type="button" class="button" aria-pressed={live.value} onClick={() => { live.value = !live.value; }}>{live.value ? 'Stop the camera' : 'Go live'}</button>
          {of.fromSamples && samples.value.length > 0 && results.value.length === 0 && <button type="button" class="button primary" onClick={() => enqueue(samples.value)}>Inspect the sample parts</button>}
        </div>
        {queue.value && (
          <div class="row">
            <Progress label={`Inspecting ${Math.min(queue.value.done + 1, queue.value.total)} of ${queue.value.total}`} {...queue.value} />
            <button type="button" class="button" onClick={stopQueue}>Stop</button>
          </div>
        )}
        {results.value.length === 0 && !live.value && !queue.value && <p class="muted">Drop pictures or a folder anywhere on this page, or paste one.</p>}
      </Card>
      {live.value && <Live model={of} />}
      {!live.value && selected.value && <Viewer key={selected.value.id} model={of} result={selected.value} />}
      {results.value.length > 0 && (
        <Card
          title="Results"
          actions={<span class="row"><span class="count" role="status">{plural(counts.value.defective, 'defective', 'defective')} of {counts.value.all}</span><button type="button" class="link" onClick={clearResults}>Clear</button></span>}
        >
          <ResultsTable />
        </Card>
      )}
    </>
  );
}

function Viewer({ model, result }: { model: StoredModel; result: Result }) {
  const url = useBlobUrl(result.image);
  const map = useLoaded(() => result.map.arrayBuffer().then((buffer) => new Float32Array(buffer)), [result.map]);
  const [point, setPoint] = useState<MapPoint>();
  const { calibration } = model.metadata;
  const scale = { low: calibration.scaleLow, high: calibration.scaleHigh };
  const judgement = useMemo(() => map && judge(result.score, map, model.metadata, threshold.value, result.place), [map, threshold.value]);
  const { place } = result;
  const found = why.value && 'explanation' in why.value ? why.value.explanation.prototypes?.found : undefined;
  const report = point && map && inspectPoint(
    { map, mapWidth: place.mapWidth, mapHeight: place.mapHeight, placement: place, ...found }, place.x + (point.x + 0.5) * place.scaleX, place.y + (point.y + 0.5) * place.scaleY,
  );
  const prototype = report?.token?.prototype;
  const seeWhy = (): void => {
    whyOpen.value = true;
    // Once it is there.
    requestAnimationFrame(() => {
      const heading = document.getElementById(whyHeadingId);
      heading?.scrollIntoView({ block: 'start' });
      heading?.focus({ preventScroll: true });
    });
  };
  // The hottest pixel is what "why" is asked of first.
  useEffect(() => {
    if (whyOpen.value && map) setPoint((now) => now ?? hottest(map, place.mapWidth));
  }, [whyOpen.value, map]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if ((event.target as Element).closest('input, select, textarea, .map')) return;
      if (event.key === 'j' || event.key === 'ArrowRight') selectNext(1);
      else if (event.key === 'k' || event.key === 'ArrowLeft') selectNext(-1);
    };
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, []);
  return (
    <section class="card viewer" aria-label={`Inspection of ${result.name}`}>
      <div class="stage">
        {url && map && (
          <MapView
            picture={url} alt={`${result.name} with its anomaly map`} place={result.place} map={map} scale={scale}
            opacity={opacity.value} judgement={judgement} point={point} onPoint={setPoint}
          />
        )}
        <HeatLegend scale={scale} format={value} mark={{ at: calibration.pixelThreshold, label: `defect from ${value(calibration.pixelThreshold)}` }} />
      </div>
      <div class="side">
        <Verdict score={result.score} name={result.name} />
        <Opacity />
        <Histogram good={calibration.scores ?? []} inspected={results.value.map(({ score }) => score)} threshold={threshold.value} calibrated={calibration.threshold} shown={result.score} />
        <p class="readout" role="status">
          {point && map
            ? <>Value here: <b>{value(map[point.y * place.mapWidth + point.x]!)}</b>{prototype !== undefined && <>, compared with <Swatch m={prototype} /> prototype {prototype + 1}</>}</>
            : <span class="muted">Click the map for the value at a point.</span>}
        </p>
        {point && !whyOpen.value && hasPrototypes(model.metadata) && <button type="button" class="link left" onClick={seeWhy}>Which prototype was it compared with?</button>}
        <button type="button" class="button" aria-expanded={whyOpen.value} onClick={() => { if (whyOpen.value) whyOpen.value = false; else seeWhy(); }}>{whyOpen.value ? 'Close the explanation' : 'See why'}</button>
        {judgement && judgement.verdict === 'defective' && judgement.regions.length > 0 && (
          <details open>
            <summary>{plural(judgement.regions.length, 'region')}</summary>
            <ul class="regions">{judgement.regions.slice(0, 8).map(({ source: { x, y, width, height }, peak, map: box }) => (
              <li key={`${x} ${y}`}><button type="button" class="link" onClick={() => setPoint({ x: Math.round(box.x + box.width / 2), y: Math.round(box.y + box.height / 2) })}>{width} × {height} at {x}, {y}</button> <span class="muted">peak {value(peak)}</span></li>
            ))}
            </ul>
          </details>
        )}
      </div>
      {whyOpen.value && url && map && judgement && (
        <Why model={model} result={result} picture={url} map={map} judgement={judgement} scale={scale} point={point} report={report} onPoint={setPoint} />
      )}
    </section>
  );
}

function hottest(map: Float32Array, width: number): MapPoint {
  let best = 0;
  for (let i = 1; i < map.length; i++) if (map[i]! > map[best]!) best = i;
  return { x: best % width, y: Math.floor(best / width) };
}
