/**
 * A picture with its anomaly map: heat on the model's fixed scale, outlines of what counts as a defect, and one point
 * whose value is asked for, set by pointer or arrow keys. The layers lie over each other and are scaled by the browser.
 */
import { useLayoutEffect, useMemo, useRef } from 'preact/hooks';
import { colorize, type HeatScale } from '../../../src/browser/index.ts';
import { contours } from '../contours.ts';
import type { Judgement } from '../judge.ts';
import type { MapPlace } from '../protocol.ts';
import type { Rectangle } from '../why.ts';

export interface MapPoint {
  /** In the map's pixels. */
  readonly x: number;
  readonly y: number;
}

interface MapViewProps {
  /** A URL, or what was drawn already. */
  readonly picture: string | HTMLCanvasElement;
  readonly alt: string;
  readonly place: MapPlace;
  readonly map?: Float32Array | undefined;
  /** Drawn over the whole picture, which is grey then, in place of the map's heat. */
  readonly layer?: ImageBitmap | undefined;
  readonly scale: HeatScale;
  readonly opacity: number;
  readonly judgement?: Pick<Judgement, 'mask' | 'level'> | undefined;
  readonly point?: MapPoint | undefined;
  /** What is framed, in the picture's pixels. */
  readonly box?: Rectangle | undefined;
  readonly onPoint?: ((point: MapPoint) => void) | undefined;
}

/** For styles. */
export const percentOf = (share: number): string => `${100 * share}%`;

/** Where the map's layers lie over the picture. */
function layerStyle({ width, height, mapWidth, mapHeight, x, y, scaleX, scaleY }: MapPlace) {
  return { left: percentOf(x / width), top: percentOf(y / height), width: percentOf((mapWidth * scaleX) / width), height: percentOf((mapHeight * scaleY) / height) };
}

export function MapView({ picture, alt, place, map, layer, scale, opacity, judgement, point, box, onPoint }: MapViewProps) {
  const { width, height, mapWidth, mapHeight } = place;
  const heat = useRef<HTMLCanvasElement>(null);
  const drawn = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    if (!map || layer || !heat.current) return;
    heat.current.width = mapWidth;
    heat.current.height = mapHeight;
    const pixels = colorize(map, mapWidth, mapHeight, scale, { fade: true }) as Uint8ClampedArray<ArrayBuffer>;
    heat.current.getContext('2d')!.putImageData(new ImageData(pixels, mapWidth, mapHeight), 0, 0);
  }, [map, layer === undefined, mapWidth, mapHeight, scale.low, scale.high]);
  useLayoutEffect(() => {
    if (typeof picture !== 'string') drawn.current?.replaceChildren(picture);
  }, [picture]);
  const outline = useMemo(() => (map && judgement ? contours(map, judgement.mask, judgement.level, mapWidth, mapHeight) : ''), [map, judgement, mapWidth, mapHeight]);
  const placed = layerStyle(place);

  const clamped = (x: number, y: number): MapPoint => ({ x: Math.min(mapWidth - 1, Math.max(0, Math.round(x))), y: Math.min(mapHeight - 1, Math.max(0, Math.round(y))) });
  const at = (event: PointerEvent): void => {
    const shown = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const [x, y] = [((event.clientX - shown.left) / shown.width) * width, ((event.clientY - shown.top) / shown.height) * height];
    onPoint?.(clamped((x - place.x) / place.scaleX - 0.5, (y - place.y) / place.scaleY - 0.5));
  };
  const onKey = (event: KeyboardEvent): void => {
    const direction = ({ ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] } as const)[event.key as 'ArrowLeft'];
    if (!direction || !onPoint) return;
    event.preventDefault();
    const step = event.shiftKey ? 1 : 8;
    const from = point ?? { x: mapWidth / 2, y: mapHeight / 2 };
    onPoint(clamped(from.x + step * direction[0], from.y + step * direction[1]));
  };

  return (
    <div
      class={`map ${onPoint ? 'asks' : ''} ${layer ? 'layered' : ''}`} style={{ aspectRatio: `${width} / ${height}`, '--aspect': width / height }} role={onPoint ? 'application' : 'group'}
      aria-label={onPoint ? `${alt}. Arrow keys move the point whose value is shown.` : alt} tabIndex={onPoint ? 0 : undefined}
      onPointerDown={onPoint && at} onPointerMove={onPoint && ((event) => { if (event.buttons & 1) at(event); })} onKeyDown={onKey}
    >
      {typeof picture === 'string' ? <img src={picture} alt={onPoint ? '' : alt} draggable={false} /> : <div ref={drawn} class="drawn" />}
      {layer && <Bitmap class="layer" bitmap={layer} opacity={opacity} />}
      {map && (
        <>
          {!layer && <canvas ref={heat} class="heat" style={{ ...placed, opacity }} aria-hidden="true" />}
          <svg class="outline" style={placed} viewBox={`0 0 ${mapWidth} ${mapHeight}`} preserveAspectRatio="none" aria-hidden="true">
            <path class="outline-under" d={outline} />
            <path class="outline-over" d={outline} />
            {box && ['patch-under', 'patch-over'].map((name) => (
              <rect key={name} class={name} x={(box.x - place.x) / place.scaleX} y={(box.y - place.y) / place.scaleY} width={box.width / place.scaleX} height={box.height / place.scaleY} />
            ))}
            {point && <path class="cross" d={`M${point.x + 0.5} 0V${point.y - 5}M${point.x + 0.5} ${point.y + 6}V${mapHeight}M0 ${point.y + 0.5}H${point.x - 5}M${point.x + 6} ${point.y + 0.5}H${mapWidth}`} />}
          </svg>
        </>
      )}
    </div>
  );
}

/** A picture that the worker has drawn. */
export function Bitmap({ bitmap, class: name, opacity = 1 }: { bitmap: ImageBitmap; class: string; opacity?: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    const context = canvas.current!.getContext('2d')!;
    context.clearRect(0, 0, bitmap.width, bitmap.height);
    context.drawImage(bitmap, 0, 0);
  }, [bitmap]);
  return <canvas ref={canvas} class={name} width={bitmap.width} height={bitmap.height} style={{ opacity }} aria-hidden="true" />;
}

/** The scale that every map of a model is shown on. */
export function HeatLegend({ scale, mark, format }: { scale: HeatScale; mark?: { at: number; label: string }; format: (x: number) => string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    const ramp = Float32Array.from({ length: 256 }, (_, i) => i / 255);
    const pixels = colorize(ramp, 256, 1, { low: 0, high: 1 }) as Uint8ClampedArray<ArrayBuffer>;
    canvas.current!.getContext('2d')!.putImageData(new ImageData(pixels, 256, 1), 0, 0);
  }, []);
  const share = mark && Math.min(1, Math.max(0, (mark.at - scale.low) / (scale.high - scale.low)));
  return (
    <div class="legend">
      <div class="legend-bar">
        <canvas ref={canvas} width={256} height={1} aria-hidden="true" />
        {mark && <i class="legend-mark" style={{ left: percentOf(share!) }} />}
      </div>
      <div class="legend-ends"><span>{format(scale.low)} normal</span>{mark && <span>{mark.label}</span>}<span>{format(scale.high)}</span></div>
    </div>
  );
}
