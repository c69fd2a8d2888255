/** The loss, live. The chart's library is fetched when the first training begins. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type uPlot from 'uplot';
import { isDark } from '../state/app.ts';

const height = 180;

export function LossChart({ losses, steps }: { losses: readonly number[]; steps: number }) {
  const holder = useRef<HTMLDivElement>(null);
  const [chart, setChart] = useState<uPlot>();
  const scheme = isDark.value;
  useEffect(() => {
    let made: uPlot | undefined;
    let gone = false;
    const sized = new ResizeObserver(() => made?.setSize({ width: holder.current?.clientWidth ?? 300, height }));
    // Without it the figures beside it say the same.
    import('uplot').then(({ default: Plot }) => {
      if (gone || !holder.current) return;
      const style = getComputedStyle(holder.current);
      const colour = (name: string): string => style.getPropertyValue(name).trim();
      const axis = { stroke: colour('--muted'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui' };
      made = new Plot({
        width: holder.current.clientWidth, height, legend: { show: false }, cursor: { show: false },
        padding: [10, 12, 0, 0],
        scales: { x: { time: false, range: [0, steps] }, y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(high ?? 1, 0.1) * 1.05] } },
        axes: [{ ...axis, size: 28 }, { ...axis, size: 44 }],
        series: [{}, { stroke: colour('--accent'), width: 2, points: { show: false } }],
      }, [[], []], holder.current);
      sized.observe(holder.current);
      setChart(made);
    }).catch(() => undefined);
    return () => {
      gone = true;
      sized.disconnect();
      made?.destroy();
      setChart(undefined);
    };
  }, [steps, scheme]);
  useEffect(() => {
    chart?.setData([losses.map((_, i) => i + 1), losses as number[]]);
  }, [chart, losses]);
  const last = losses.at(-1);
  return <div ref={holder} class="chart" role="img" aria-label={last === undefined ? 'Loss: no steps yet' : `Loss after ${losses.length} of ${steps} steps: ${last.toFixed(4)}, from ${losses[0]!.toFixed(4)} at the start`} />;
}
