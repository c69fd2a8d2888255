/** Good parts from the camera: one at a press, or a series while the part is moved. */
import type { RefObject } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { CameraError, cameraId, cameras, chooseCamera, openCamera, type Camera } from '../camera.ts';
import { addFrame } from '../state/teach.ts';

const seriesLength = 20;
const millisecondsBetween = 400;

/** The camera's picture in a video element, as long as the component is there. */
export function useCamera(chosen: string | undefined): { video: RefObject<HTMLVideoElement | null>; state: 'opening' | 'open' | { error: string }; retry: () => void } {
  const video = useRef<HTMLVideoElement>(null);
  const [state, setState] = useState<'opening' | 'open' | { error: string }>('opening');
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    let camera: Camera | undefined;
    let gone = false;
    setState('opening');
    openCamera().then(async (opened) => {
      camera = opened;
      if (gone) return camera.close();
      opened.stream.getVideoTracks()[0]?.addEventListener('ended', () => setState({ error: 'The camera has gone: it was unplugged, or taken away from this page.' }));
      video.current!.srcObject = opened.stream;
      await video.current!.play().catch(() => undefined);
      if (!gone) setState('open');
    }).catch((error: unknown) => {
      if (!gone) setState({ error: error instanceof CameraError ? error.message : `The camera could not be opened: ${String(error)}` });
    });
    return () => {
      gone = true;
      camera?.close();
    };
  }, [attempt, chosen]);
  return { video, state, retry: () => setAttempt(attempt + 1) };
}

export function CameraPicker() {
  if (cameras.value.length < 2) return null;
  return (
    <label class="field inline">Camera
      <select value={cameraId.value ?? cameras.value[0]!.id} onChange={({ currentTarget }) => chooseCamera(currentTarget.value)}>
        {cameras.value.map(({ id, label }) => <option key={id} value={id}>{label}</option>)}
      </select>
    </label>
  );
}

export function CameraTeach() {
  const { video, state, retry } = useCamera(cameraId.value);
  const [left, setLeft] = useState(0);
  const take = useRef<HTMLButtonElement>(null);
  const count = useRef(0);
  const capture = async (): Promise<void> => {
    if (!video.current || video.current.readyState < 2) return;
    count.current++;
    await addFrame(await createImageBitmap(video.current), `camera ${new Date().toISOString().slice(0, 19).replaceAll(':', '.')} ${String(count.current).padStart(2, '0')}.png`);
  };
  useEffect(() => {
    if (state === 'open') take.current!.focus();
  }, [state]);
  // The space bar takes one wherever the focus is, unless it is on something that the bar works on itself.
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.key !== ' ' || state !== 'open' || (event.target as Element).closest('button, input, textarea, select, summary, a')) return;
      event.preventDefault();
      void capture();
    };
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, [state]);
  useEffect(() => {
    if (left === 0) return;
    const timer = setTimeout(async () => {
      await capture();
      setLeft((now) => Math.max(0, now - 1));
    }, millisecondsBetween);
    return () => clearTimeout(timer);
  }, [left]);

  if (typeof state === 'object') return <div class="note error" role="alert"><p>{state.error}</p><button type="button" class="button" onClick={retry}>Open it again</button></div>;
  return (
    <div class="camera">
      <video ref={video} muted playsInline aria-label="Live picture of the camera" />
      <div class="row">
        <button ref={take} type="button" class="button primary" disabled={state !== 'open' || left > 0} onClick={() => void capture()}>Take one <kbd>space</kbd></button>
        {left > 0
          ? <button type="button" class="button" onClick={() => setLeft(0)}>Stop, {left} to go</button>
          : <button type="button" class="button" disabled={state !== 'open'} onClick={() => setLeft(seriesLength)}>Take {seriesLength} while I move it</button>}
        <CameraPicker />
        <span role="status" class="muted">{state === 'opening' ? 'Opening the camera…' : left > 0 ? 'Move and turn the part a little, as it will come later.' : ''}</span>
      </div>
    </div>
  );
}
