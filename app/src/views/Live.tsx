/**
 * The camera under inspection. One frame is in the worker at a time, and the newest is taken when it is done: those between
 * are dropped, never queued, so that what is shown is as fresh as the device allows. Picture and map are of the same frame.
 */
import { useEffect, useRef, useState } from 'preact/hooks';
import { cameraId } from '../camera.ts';
import { engine } from '../engine-client.ts';
import { megabytes, rate, value } from '../format.ts';
import { judge, type Judgement } from '../judge.ts';
import type { Measured } from '../protocol.ts';
import { codeOf, gpuLost, keepAwake, messageOf } from '../state/app.ts';
import { enqueue, live, opacity } from '../state/inspect.ts';
import { threshold } from '../state/models.ts';
import type { StoredModel } from '../storage.ts';
import { CameraPicker, useCamera } from './CameraTeach.tsx';
import { Histogram } from './Histogram.tsx';
import { HeatLegend, MapView } from './MapView.tsx';
import { useHidden } from './parts.tsx';
import { Opacity, Verdict } from './Verdict.tsx';

interface ShownFrame {
  readonly measured: Measured;
  readonly judgement: Judgement;
  /** Frames done and dropped since the start, and the rate over the last ones. */
  readonly done: number;
  readonly dropped: number;
  readonly perSecond: number;
  /** Held by the engine on the GPU. */
  readonly gpuBytes: number;
}

/** Over how many frames the rate is taken. */
const rateFrames = 15;
/** After how many frames the memory is asked for again. */
const memoryFrames = 25;

export function Live({ model }: { model: StoredModel }) {
  const { video, state, retry } = useCamera(cameraId.value);
  const [frame, setFrame] = useState<ShownFrame>();
  const [frozen, setFrozen] = useState(false);
  const [freezes, setFreezes] = useState(false);
  const [error, setError] = useState<string>();
  const picture = useRef<HTMLCanvasElement>(null!);
  picture.current ??= document.createElement('canvas');
  const freezesNow = useRef(freezes);
  freezesNow.current = freezes;
  const isRunning = state === 'open' && !frozen && error === undefined;

  useEffect(() => {
    if (!isRunning) return;
    const source = video.current!;
    // The frame that is in the worker, kept to be shown with its map.
    const pending = document.createElement('canvas').getContext('2d')!;
    const times: number[] = [];
    let busy = false;
    let dropped = frame?.dropped ?? 0;
    let done = frame?.done ?? 0;
    let gpuBytes = frame?.gpuBytes ?? 0;
    let handle = 0;
    let stopped = false;

    const next = (): void => { if (!stopped) handle = source.requestVideoFrameCallback(() => void take()); };
    const take = async (): Promise<void> => {
      next();
      if (busy) {
        dropped++;
        return;
      }
      busy = true;
      try {
        const bitmap = await createImageBitmap(source);
        resize(pending.canvas, bitmap);
        pending.drawImage(bitmap, 0, 0);
        const measured = await engine.call('inspectFrame', { modelId: model.id, frame: bitmap }, [bitmap]);
        if (stopped) return;
        const shown = picture.current!;
        resize(shown, measured.place);
        shown.getContext('2d')!.drawImage(pending.canvas, 0, 0);
        times.push(performance.now());
        if (times.length > rateFrames) times.shift();
        const perSecond = times.length < 2 ? 0 : ((times.length - 1) * 1000) / (times.at(-1)! - times[0]!);
        if (done % memoryFrames === 0) gpuBytes = await engine.call('gpuBytes');
        const judgement = judge(measured.score, measured.map, model.metadata, threshold.value, measured.place);
        setFrame({ measured, judgement, done: ++done, dropped, perSecond, gpuBytes });
        if (judgement.verdict === 'defective' && freezesNow.current) setFrozen(true);
      } catch (failure) {
        if (!stopped && codeOf(failure) !== 'aborted') setError(messageOf(failure));
      } finally {
        busy = false;
      }
    };
    next();
    return () => {
      stopped = true;
      source.cancelVideoFrameCallback(handle);
    };
  }, [isRunning, model.id]);

  // A screen that goes dark would end the inspection.
  useEffect(() => {
    let end = (): void => undefined;
    void keepAwake(() => new Promise<void>((resolve) => { end = resolve; }));
    return () => end();
  }, []);
  const keep = (): void => {
    if (!frame) return;
    picture.current!.toBlob((blob) => {
      if (blob) enqueue([{ name: `live ${new Date().toISOString().slice(0, 23).replaceAll(':', '.')}.png`, image: blob }]);
    }, 'image/png');
  };
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.key !== ' ' || (event.target as Element).closest('button, input, textarea, select, summary, a')) return;
      event.preventDefault();
      setFrozen((was) => !was);
    };
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, []);

  const hidden = useHidden();
  const { calibration } = model.metadata;
  const scale = { low: calibration.scaleLow, high: calibration.scaleHigh };
  const failure = typeof state === 'object' ? state.error : error;
  const judgement = frame && judge(frame.measured.score, frame.measured.map, model.metadata, threshold.value, frame.measured.place);
  return (
    <section class="card viewer" aria-label="Live inspection">
      <div class="stage">
        <video ref={video} muted playsInline class={frame ? 'behind' : ''} aria-label="Live picture of the camera" aria-hidden={frame !== undefined} />
        {frame && (
          <MapView
            picture={picture.current} alt="Live picture with its anomaly map" place={frame.measured.place} map={frame.measured.map}
            scale={scale} opacity={opacity.value} judgement={judgement}
          />
        )}
        <HeatLegend scale={scale} format={value} mark={{ at: calibration.pixelThreshold, label: `defect from ${value(calibration.pixelThreshold)}` }} />
      </div>
      <div class="side">
        {failure !== undefined && (
          <div class="note error" role="alert">
            <p>{failure}</p>
            <button
              type="button" class="button"
              onClick={() => {
                setError(undefined);
                if (typeof state === 'object') retry();
              }}
            >Try again
            </button>
          </div>
        )}
        {frame ? <Verdict score={frame.measured.score} /> : failure === undefined && <p role="status">{state === 'opening' ? 'Opening the camera…' : 'Preparing the model…'}</p>}
        {gpuLost.value && <p class="note" role="status">The GPU was lost; getting it back…</p>}
        {hidden && <p class="note" role="status">It rests while this tab is hidden: browsers give hidden tabs no frames.</p>}
        {frozen && <p class="note" role="status">Frozen. The space bar goes on.</p>}
        <div class="row">
          <button type="button" class="button" onClick={() => setFrozen(!frozen)} disabled={!frame}>{frozen ? 'Go on' : 'Freeze'}</button>
          <button type="button" class="button" onClick={keep} disabled={!frame}>Keep this frame</button>
          <button type="button" class="button" onClick={() => { live.value = false; }}>Stop</button>
        </div>
        <label class="check"><input type="checkbox" checked={freezes} onChange={({ currentTarget }) => setFreezes(currentTarget.checked)} /> Freeze on a defect</label>
        <CameraPicker />
        <Opacity />
        <Histogram good={calibration.scores ?? []} inspected={frame ? [frame.measured.score] : []} threshold={threshold.value} calibrated={calibration.threshold} shown={frame?.measured.score} />
        <p class="muted small" data-done={frame?.done ?? 0} data-dropped={frame?.dropped ?? 0} data-gpu-bytes={frame?.gpuBytes ?? 0} id="live-rate">
          {frame ? `${frame.perSecond > 0 ? `${rate(frame.perSecond)} frames/s; ` : ''}${frame.done} inspected, ${frame.dropped} dropped. ${megabytes(frame.gpuBytes)} of GPU memory.` : ''}
        </p>
      </div>
    </section>
  );
}

function resize(canvas: HTMLCanvasElement, { width, height }: { width: number; height: number }): void {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}
