/**
 * A picture with its anomaly map: heat on the model's fixed scale, outlines of what counts as a defect, and one point
 * whose value is asked for, set by pointer or arrow keys. The layers lie over each other and are scaled by the browser.
 */
import { useLayoutEffect, useMemo, useRef } from 'preact/hooks';
import { colorize, type HeatScale } from '../../../src/browser/index.ts';
import { contours } from '../contours.ts';
import type { Judgement } from '../judge.ts';
import type { MapPlace } from '../protocol.ts';

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
  /** In place of a map: a canvas with a pixel for each of its values, which stay squares. */
  readonly grid?: HTMLCanvasElement | undefined;
  readonly scale: HeatScale;
  readonly opacity: number;
  readonly judgement?: Pick<Judgement, 'mask' | 'level'> | undefined;
  readonly point?: MapPoint | undefined;
  readonly onPoint?: ((point: MapPoint) => void) | undefined;
}

const percent = (share: number): string => `${100 * share}%`;

/** Where the map's layers lie over the picture. */
function layerStyle({ width, height, mapWidth, mapHeight, x, y, scaleX, scaleY }: MapPlace) {
  return { left: percent(x / width), top: percent(y / height), width: percent((mapWidth * scaleX) / width), height: percent((mapHeight * scaleY) / height) };
}

export function MapView({ picture, alt, place, map, grid, scale, opacity, judgement, point, onPoint }: MapViewProps) {
  const { width, height, mapWidth, mapHeight } = place;
  const heat = useRef<HTMLCanvasElement>(null);
  const drawn = useRef<HTMLDivElement>(null);
  const squares = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    if (!map || !heat.current) return;
    heat.current.width = mapWidth;
    heat.current.height = mapHeight;
    const pixels = colorize(map, mapWidth, mapHeight, scale, { fade: true }) as Uint8ClampedArray<ArrayBuffer>;
    heat.current.getContext('2d')!.putImageData(new ImageData(pixels, mapWidth, mapHeight), 0, 0);
  }, [map, mapWidth, mapHeight, scale.low, scale.high]);
  useLayoutEffect(() => {
    if (typeof picture !== 'string') drawn.current?.replaceChildren(picture);
  }, [picture]);
  useLayoutEffect(() => {
    if (grid) squares.current?.replaceChildren(grid);
  }, [grid]);
  const outline = useMemo(() => (map && judgement ? contours(map, judgement.mask, judgement.level, mapWidth, mapHeight) : ''), [map, judgement, mapWidth, mapHeight]);
  const layer = layerStyle(place);

  const clamped = (x: number, y: number): MapPoint => ({ x: Math.min(mapWidth - 1, Math.max(0, Math.round(x))), y: Math.min(mapHeight - 1, Math.max(0, Math.round(y))) });
  const at = (event: PointerEvent): void => {
    const box = (squares.current ?? heat.current!).getBoundingClientRect();
    onPoint?.(clamped(((event.clientX - box.left) / box.width) * mapWidth - 0.5, ((event.clientY - box.top) / box.height) * mapHeight - 0.5));
  };
  const onKey = (event: KeyboardEvent): void => {
    const direction = ({ ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] } as const)[event.key as 'ArrowLeft'];
    if (!direction || !onPoint) return;
    event.preventDefault();
    const step = event.shiftKey || grid ? 1 : 8;
    const from = point ?? { x: mapWidth / 2, y: mapHeight / 2 };
    onPoint(clamped(from.x + step * direction[0], from.y + step * direction[1]));
  };

  return (
    <div
      class={onPoint ? 'map asks' : 'map'} style={{ aspectRatio: `${width} / ${height}` }} role={onPoint ? 'application' : 'group'}
      aria-label={onPoint ? `${alt}. Arrow keys move the point whose value is shown.` : alt} tabIndex={onPoint ? 0 : undefined}
      onPointerDown={onPoint && at} onPointerMove={onPoint && ((event) => { if (event.buttons & 1) at(event); })} onKeyDown={onKey}
    >
      {typeof picture === 'string' ? <img src={picture} alt={onPoint ? '' : alt} draggable={false} /> : <div ref={drawn} class="drawn" />}
      {(map ?? grid) && (
        <>
          {grid && <div ref={squares} class="heat squares" style={{ ...layer, opacity }} aria-hidden="true" />}
          {map && <canvas ref={heat} class="heat" style={{ ...layer, opacity }} aria-hidden="true" />}
          <svg class="outline" style={layer} viewBox={`0 0 ${mapWidth} ${mapHeight}`} preserveAspectRatio="none" aria-hidden="true">
            <path class="outline-under" d={outline} />
            <path class="outline-over" d={outline} />
            {point && grid && <rect class="cross" x={point.x} y={point.y} width="1" height="1" />}
            {point && map && <path class="cross" d={`M${point.x + 0.5} 0V${point.y - 5}M${point.x + 0.5} ${point.y + 6}V${mapHeight}M0 ${point.y + 0.5}H${point.x - 5}M${point.x + 6} ${point.y + 0.5}H${mapWidth}`} />}
          </svg>
        </>
      )}
    </div>
  );
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
        {mark && <i class="legend-mark" style={{ left: percent(share!) }} />}
      </div>
      <div class="legend-ends"><span>{format(scale.low)} normal</span>{mark && <span>{mark.label}</span>}<span>{format(scale.high)}</span></div>
    </div>
  );
}
