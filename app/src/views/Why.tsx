/**
 * "See why": which on-site prototype each patch was compared with, how alike it is to each, and which layers of the encoder
 * saw the difference. All maps share one point with the heat map.
 */
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import type { HeatScale } from '../../../src/browser/index.ts';
import { prototypeColour, prototypeViews, type PointReport } from '../../../src/inspect/prototypes.ts';
import { plural, value } from '../format.ts';
import type { Judgement } from '../judge.ts';
import type { Explanation } from '../protocol.ts';
import { opacity, type Result } from '../state/inspect.ts';
import { layerOpacity, tryAgain, why, whyOpen } from '../state/why.ts';
import type { StoredModel } from '../storage.ts';
import { groupWords, natureOf, percent, shareMoreAlike, type ModelNature } from '../why.ts';
import { Bitmap, HeatLegend, MapView, percentOf, type MapPoint } from './MapView.tsx';

interface WhyProps {
  readonly model: StoredModel;
  readonly result: Result;
  /** URL of the picture. */
  readonly picture: string;
  readonly map: Float32Array;
  readonly judgement: Judgement;
  readonly scale: HeatScale;
  readonly point: MapPoint | undefined;
  readonly report: PointReport | undefined;
  readonly onPoint: (point: MapPoint) => void;
}

type Prototypes = NonNullable<Explanation['prototypes']>;

export const whyHeadingId = 'why';

/** A cosine; with the minus sign that is as wide as a plus. */
const likeness = (similarity: number): string => similarity.toFixed(2).replace('-', '−');

const css = (m: number): string => `rgb(${prototypeColour(m).join(' ')})`;

export const Swatch = ({ m }: { m: number }) => <i class="swatch" style={{ background: css(m) }} aria-hidden="true" />;

export function Why(props: WhyProps) {
  const { model, result } = props;
  const shown = why.value;
  const nature = natureOf(model.metadata);
  return (
    <div class="why">
      <div class="card-head">
        <h2 id={whyHeadingId} tabIndex={-1}>{props.judgement.verdict === 'defective' ? 'Why defective?' : 'Why good?'}</h2>
        <button type="button" class="link" onClick={() => { whyOpen.value = false; }}>Close</button>
      </div>
      {!shown && (
        <div class="progress">
          <label for="why-progress"><span role="status">Inspecting {result.name} once more, with its details. The first time takes some seconds longer.</span></label>
          <progress id="why-progress" />
        </div>
      )}
      {shown && 'error' in shown && (
        <div class="note error" role="alert"><p>{shown.error}</p><button type="button" class="button" onClick={tryAgain}>Try again</button></div>
      )}
      {shown && 'explanation' in shown && (
        <>
          <p class="sr-only" role="status">The explanation of {result.name} is there.</p>
          {shown.explanation.prototypes ? <PrototypePart {...props} prototypes={shown.explanation.prototypes} /> : <NoPrototypes nature={nature} />}
          <GroupPart {...props} explanation={shown.explanation} nature={nature} />
          <Terms model={model} nature={nature} />
        </>
      )}
    </div>
  );
}

function NoPrototypes({ nature }: { nature: ModelNature }) {
  return (
    <p class="note">
      {nature.isMemory
        ? 'This model has no prototypes. It is a memory: it compares each patch with patches of the good parts that it was taught, which it keeps, and learns nothing else. So there is no “which prototype”, only how far each patch is from the nearest one it knows.'
        : 'This model has no prototypes: it was trained with another decoder, to compare with. What it could not rebuild is below.'}
    </p>
  );
}

function PrototypePart({ result, picture, map, judgement, scale, point, report, onPoint, prototypes }: WhyProps & { prototypes: Prototypes }) {
  const [chosen, setChosen] = useState<number>();
  const { legend, scale: range } = prototypes;
  const { views } = result.place;
  return (
    <section class="why-part" aria-labelledby="why-prototypes">
      <div>
        <h3 id="why-prototypes">What each patch was compared with</h3>
        <p class="muted">From this very picture the model made {plural(legend.length, 'prototype')} of what is usual in it, and tries to rebuild every patch from them alone. A patch has the colour of the prototype that it is most like. What is unlike all of them can't be rebuilt: it is the heat.</p>
        {views > 1 && <p class="muted">It was inspected in {views} tiles, and each made prototypes of its own: across tiles one colour means one thing looked for, not one and the same pattern.</p>}
      </div>
      <div class="why-columns">
        <div class="stage">
          <MapView
            picture={picture} alt={chosen === undefined ? `Prototypes of ${result.name}` : `Likeness of ${result.name} to prototype ${chosen + 1}`} place={result.place} map={map} scale={scale}
            layer={chosen === undefined ? prototypes.layer : prototypes.similarities[chosen]!} opacity={layerOpacity.value}
            judgement={judgement.verdict === 'defective' ? judgement : undefined} point={point} box={report?.token?.box} onPoint={onPoint}
          />
          {chosen === undefined
            ? <p class="caption">Each patch in the colour of its prototype.</p>
            : (
              <div class="legend">
                <i class="ramp" style={{ background: `linear-gradient(90deg, #000, ${css(chosen)})` }} aria-hidden="true" />
                <div class="legend-ends"><span>unlike prototype {chosen + 1} ({likeness(range.low)})</span><span>alike ({likeness(range.high)})</span></div>
              </div>
            )}
          <label class="field">Colours over the picture
            <input type="range" min="0" max="1" step="0.05" value={layerOpacity.value} aria-valuetext={percent(layerOpacity.value)} onInput={({ currentTarget }) => { layerOpacity.value = Number(currentTarget.value); }} />
          </label>
        </div>
        <div class="side">
          <ul class="prototypes" aria-label="Prototypes of this picture">
            {legend.map(({ share, similarity, exemplar, patch }, m) => (
              <li key={m}>
                <button type="button" class="prototype" aria-pressed={chosen === m} onClick={() => setChosen(chosen === m ? undefined : m)}>
                  <span class="exemplar" style={{ borderColor: css(m) }} aria-hidden="true">
                    <Bitmap class="" bitmap={exemplar} />
                    <i style={{ left: percentOf(patch.x), top: percentOf(patch.y), width: percentOf(patch.width), height: percentOf(patch.height) }} />
                  </span>
                  <span class="prototype-text">
                    <b><Swatch m={m} /> Prototype {m + 1}</b>
                    <span class="muted">{similarity === null ? 'nearest to none of the patches' : `${percent(share)} of the picture, likeness ${likeness(similarity)}`}</span>
                  </span>
                </button>
              </li>
            ))}
          </ul>
          <p class="muted small">Choose one to see where the picture is like it; choose it again for all. The frame in the small picture is around the patch nearest to it.</p>
          <Point report={report} prototypes={prototypes} />
        </div>
      </div>
    </section>
  );
}

function Point({ report, prototypes: { found, scale: { low, high } } }: { report: PointReport | undefined; prototypes: Prototypes }) {
  if (!report) return <p class="muted">Click a point of any map, or move it with the arrow keys.</p>;
  const { token } = report;
  if (!token) return <p class="muted">The encoder did not see this point: it lies in the border that is cut off.</p>;
  const own = token.similarities[token.prototype]!;
  return (
    <div class="point">
      <h4>At the point</h4>
      <p>
        Most like <Swatch m={token.prototype} /> <b>prototype {token.prototype + 1}</b>{report.value !== undefined && <>; heat {value(report.value)}</>}.{' '}
        {percent(shareMoreAlike(prototypeViews(found), own))} of the patches are more like theirs.
      </p>
      <ol class="bars" aria-label="Likeness to each prototype">
        {token.similarities.map((similarity, m) => (
          <li key={m} class={m === token.prototype ? 'own' : ''}>
            <span aria-hidden="true">{m + 1}</span><span class="sr-only">Prototype {m + 1}: </span>
            <i aria-hidden="true"><b style={{ width: percentOf(Math.min(1, Math.max(0, (similarity - low) / (high - low)))), background: css(m) }} /></i>
            <span>{likeness(similarity)}</span>
          </li>
        ))}
      </ol>
    </div>
  );
}

function GroupPart({ model, result, picture, scale, point, onPoint, explanation, nature }: WhyProps & { explanation: Explanation; nature: ModelNature }) {
  const words = groupWords(model.metadata);
  const { groups, score } = explanation;
  const { calibration } = model.metadata;
  const at = (of: Float32Array): string | undefined => point && value(of[point.y * result.place.mapWidth + point.x]!);
  const what = nature.isMemory ? 'distance' : 'error';
  const strongest = groups.reduce((best, { inScore }, g) => (inScore > groups[best]!.inScore ? g : best), 0);
  return (
    <section class="why-part" aria-labelledby="why-groups">
      <div>
        <h3 id="why-groups">{nature.isMemory ? 'How far it is from the good parts, layer by layer' : 'What could not be rebuilt, layer by layer'}</h3>
        <p class="muted">
          The encoder's layers are compared in {plural(groups.length, 'group')}. {nature.isMeanOfGroups
            ? <>The heat map is the mean of these maps, and the score, {value(score)}, the mean of its hottest 1 %. {groups.length > 1 && <>There, {inWords(words[strongest]!.title)} differ most.</>}</>
            : 'This model (INP-Former++) makes its heat map of more than these, so they do not add up to it.'}
        </p>
      </div>
      <div class="why-maps">
        {groups.map((group, g) => (
          <figure key={g}>
            <MapView
              picture={picture} alt={`${words[g]!.title} of ${result.name}`} place={result.place} map={group.map} scale={scale} opacity={opacity.value}
              point={point} onPoint={onPoint}
            />
            <figcaption>
              <b>{words[g]!.title}</b> <span class="muted">{words[g]!.sees}</span>
              <dl class="figures">
                <Figure title={`Mean ${what}`}>{value(group.mean)}</Figure>
                <Figure title="Worst 1 %">{value(group.highest)}</Figure>
                <Figure title="In the score">{value(group.inScore)}</Figure>
                <Figure title="At the point">{at(group.map) ?? '–'}</Figure>
              </dl>
            </figcaption>
          </figure>
        ))}
      </div>
      <HeatLegend scale={scale} format={value} mark={{ at: calibration.pixelThreshold, label: `defect from ${value(calibration.pixelThreshold)}` }} />
    </section>
  );
}

const inWords = (title: string): string => `the ${title.toLowerCase()}`;

const Figure = ({ title, children }: { title: string; children: ComponentChildren }) => <div><dt>{title}</dt><dd>{children}</dd></div>;

function Terms({ model: { metadata }, nature }: { model: StoredModel; nature: ModelNature }) {
  const words = groupWords(metadata);
  return (
    <details class="small">
      <summary>The terms</summary>
      <dl class="terms">
        {nature.hasPrototypes && (
          <>
            <dt>Prototype</dt><dd>On-site (intrinsic) normal prototype: a vector that learned queries gather by attention from the picture's own features. Prototype 1 is the same query in every picture; what it stands for is found anew in each.</dd>
            <dt>Likeness</dt><dd>Cosine similarity of a patch's features to a prototype: 1 the same direction, 0 nothing in common. Maps and bars share the picture's own scale, from its lowest to its highest.</dd>
          </>
        )}
        {nature.isMemory
          ? <><dt>Distance</dt><dd>1 − cosine similarity of a patch's features to the nearest stored ones.</dd></>
          : <><dt>Error</dt><dd>Reconstruction error: 1 − cosine similarity of the encoder's features and what the decoder made of the prototypes. 0 is rebuilt perfectly.</dd></>}
        <dt>Layers</dt><dd>{words.map(({ title, blocks }) => `${title}: ${blocks}`).join('; ')} of the encoder {metadata.encoder.name}. A patch is {metadata.encoder.architecture.patchSize} × {metadata.encoder.architecture.patchSize} pixels of what the encoder sees.</dd>
      </dl>
    </details>
  );
}
