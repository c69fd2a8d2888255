/** Scores of the good parts that the threshold was calibrated on, those of the inspected pictures, and the threshold among them, which the slider below moves. */
import { useId } from 'preact/hooks';
import { value } from '../format.ts';
import { moveThreshold } from '../state/models.ts';

interface HistogramProps {
  readonly good: readonly number[];
  readonly inspected: readonly number[];
  readonly threshold: number;
  readonly calibrated: number;
  /** The picture that is shown. */
  readonly shown?: number | undefined;
}

const [width, height, bins] = [320, 96, 24];

export function Histogram({ good, inspected, threshold, calibrated, shown }: HistogramProps) {
  const id = useId();
  const all = [...good, ...inspected, calibrated];
  // The slider's ends hold still while it is moved.
  const low = Math.max(0, Math.min(...all) - 0.15 * calibrated);
  const high = Math.max(calibrated * 1.6, Math.min(Math.max(...all), calibrated * 5)) * 1.04;
  const x = (score: number): number => (width * (Math.min(high, Math.max(low, score)) - low)) / (high - low);
  const bars = Array.from({ length: bins }, () => 0);
  for (const score of good) bars[Math.min(bins - 1, Math.floor((bins * x(score)) / width))]!++;
  const most = Math.max(1, ...bars);
  const step = 10 ** Math.floor(Math.log10((high - low) / 200));
  return (
    <div class="histogram">
      <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={`${good.length} scores of good parts from ${value(Math.min(...good, calibrated))} to ${value(Math.max(...good, 0))}, ${inspected.length} of inspected pictures; threshold ${value(threshold)}`} preserveAspectRatio="none">
        <rect class="beyond" x={x(threshold)} y="0" width={width - x(threshold)} height={height} />
        {bars.map((count, i) => count > 0 && <rect key={i} class="good-bar" x={(i * width) / bins + 0.5} width={width / bins - 1} y={height - 22 - ((height - 30) * count) / most} height={((height - 30) * count) / most} />)}
        <line class="axis" x1="0" x2={width} y1={height - 22} y2={height - 22} />
        {inspected.map((score, i) => <rect key={i} class={score > threshold ? 'dot bad' : 'dot good'} x={x(score) - 1.5} y={height - 17} width="3" height="12" />)}
        {shown !== undefined && <path class="shown" d={`M${x(shown) - 5} ${height}L${x(shown)} ${height - 8}L${x(shown) + 5} ${height}Z`} />}
        <line class="calibrated" x1={x(calibrated)} x2={x(calibrated)} y1="0" y2={height - 22} />
        <line class="threshold" x1={x(threshold)} x2={x(threshold)} y1="0" y2={height} />
      </svg>
      <label for={id}>Threshold <output>{value(threshold)}</output></label>
      <input
        id={id} type="range" min={low} max={high} step={step} value={threshold}
        onInput={({ currentTarget }) => moveThreshold(Number(currentTarget.value))}
      />
      <div class="row small">
        <span class="key"><i class="swatch good-bar" /> good parts</span>
        <span class="key"><i class="swatch inspected" /> inspected</span>
        <button type="button" class="link" disabled={threshold === calibrated} onClick={() => moveThreshold(calibrated)}>Calibrated: {value(calibrated)}</button>
      </div>
    </div>
  );
}
