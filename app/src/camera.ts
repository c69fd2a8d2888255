/** The camera: opened when a view needs it, closed when the view goes, and every refusal in words that help. */
import { signal } from '@preact/signals';
import { remember, remembered } from './state/app.ts';

export class CameraError extends Error {}

export interface Camera {
  readonly stream: MediaStream;
  close(): void;
}

export const cameras = signal<readonly { readonly id: string; readonly label: string }[]>([]);
export const cameraId = signal<string | undefined>(remembered('camera'));

export async function openCamera(): Promise<Camera> {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new CameraError(isSecureContext ? 'This browser gives pages no camera.' : 'Browsers give the camera only to pages served over https, or from localhost.');
  }
  const size = { width: { ideal: 1280 }, height: { ideal: 960 } };
  const open = (video: MediaTrackConstraints): Promise<MediaStream> => navigator.mediaDevices.getUserMedia({ video, audio: false });
  let stream: MediaStream;
  try {
    stream = cameraId.value === undefined
      ? await open({ ...size, facingMode: { ideal: 'environment' } })
      // The one that was chosen may be unplugged.
      : await open({ ...size, deviceId: { exact: cameraId.value } }).catch(() => open(size));
  } catch (error) {
    throw new CameraError(refusal(error));
  }
  // Names are told only to pages that may use a camera.
  const devices = await navigator.mediaDevices.enumerateDevices();
  cameras.value = devices.filter(({ kind }) => kind === 'videoinput').map(({ deviceId, label }, i) => ({ id: deviceId, label: label || `Camera ${i + 1}` }));
  return { stream, close: () => { for (const track of stream.getTracks()) track.stop(); } };
}

export function chooseCamera(id: string): void {
  cameraId.value = id;
  remember('camera', id);
}

function refusal(error: unknown): string {
  switch (error instanceof Error ? error.name : '') {
    case 'NotAllowedError': return 'The camera was refused. Allow it for this page: the camera sign in the address bar, or the site settings of the browser. Then open it again.';
    case 'NotFoundError': return 'No camera was found. Connect one, and open it again; pictures from files work without.';
    case 'NotReadableError': return 'The camera is taken by another program, or does not answer. Close the other program, or plug the camera in anew.';
    default: return `The camera could not be opened: ${error instanceof Error ? error.message : String(error)}`;
  }
}
