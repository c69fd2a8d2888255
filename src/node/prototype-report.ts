/**
 * The HTML file of `inspect --prototypes`: each image with its prototypes, what share of it each stands for and how similar
 * it is to each, the two groups' reconstruction errors, and other models beside. Like report.ts it needs nothing beside itself.
 */
import type { Colour, HeatScale } from '../inspect/heatmap.ts';
import { escapeHtml, STYLE } from './report.ts';

/** Of one image by one model; pictures as data URIs. */
export interface PrototypeModel {
  readonly name: string;
  readonly score: number;
  readonly verdict: 'good' | 'defective' | 'unjudged';
  readonly legend: readonly { readonly colour: Colour; readonly share: number; readonly similarity: number | null }[];
  /** exp of the entropy of the shares. */
  readonly inUse: number;
  /** Mean cosine similarity of the tokens to their prototype. */
  readonly similarity: number;
  /** Adjusted Rand index with the first model's partition. */
  readonly agreement: number | null;
  /** Of the similarity maps. */
  readonly range: HeatScale;
  /** Number of tiles; 0 for an image that was seen as a whole. */
  readonly tiles: number;
  readonly heatmap: string;
  readonly prototypes: string;
  readonly groups: readonly string[];
  readonly similarities: readonly string[];
}

export interface PrototypeEntry {
  readonly name: string;
  readonly source: string;
  readonly models: readonly PrototypeModel[];
}

/** @param images how many there are, with those that the file leaves out */
export function renderPrototypeReport(entries: readonly PrototypeEntry[], images: number): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>On-site prototypes</title>
<style>${STYLE}${MORE_STYLE}</style>
</head>
<body>
<header>
<h1>On-site prototypes</h1>
<p>The model makes a few prototypes of what is normal from each image itself, and rebuilds the image's features from them alone. Each patch has the colour of the prototype that it is most similar to. What the prototypes can't rebuild is anomalous: the reconstruction errors of the two groups of encoder blocks add up to the heat map. Colours stay distinct for colour-blind eyes; prototype 1 is the same learned query in every image, but what it stands for is found anew in each.</p>
</header>
<main>
${entries.map(renderEntry).join('\n')}
${images > entries.length ? `<p class="note">The first ${entries.length} of ${images} images; the others are on their sheets, NAME.prototypes.png.</p>` : ''}
</main>
</body>
</html>
`;
}

function renderEntry({ name, source, models }: PrototypeEntry): string {
  return `<section class="card">
<h2>${escapeHtml(name)}</h2>
${models.length > 1 ? comparisonTable(models) : ''}
${models.map((model, i) => renderModel(model, i === 0 ? source : undefined, name, models.length > 1)).join('\n')}
</section>`;
}

function comparisonTable(models: readonly PrototypeModel[]): string {
  return `<div class="scroll"><table>
<thead><tr><th scope="col">Model</th><th scope="col">prototypes</th><th scope="col">in use</th><th scope="col">similarity to the nearest</th><th scope="col">agreement with the first</th><th scope="col">score</th><th scope="col">verdict</th></tr></thead>
<tbody>${models.map(({ name, legend, inUse, similarity, agreement, score, verdict }) => `<tr><th scope="row">${escapeHtml(name)}</th><td>${legend.length}</td><td>${inUse.toFixed(1)}</td><td>${similarity.toFixed(3)}</td><td>${agreement === null ? '–' : agreement.toFixed(2)}</td><td>${score.toFixed(4)}</td><td>${verdict}</td></tr>`).join('\n')}</tbody>
</table></div>
<p class="note">In use: the exponential of the entropy of the shares. Agreement: adjusted Rand index, 1 for the same parts, 0 for chance; prototypes that overlap have one colour.</p>`;
}

function renderModel(model: PrototypeModel, source: string | undefined, image: string, isCompared: boolean): string {
  const { name, score, verdict, legend, inUse, range, tiles, heatmap, prototypes, groups, similarities } = model;
  const picture = (uri: string, alt: string, caption: string) => `<figure><img src="${escapeHtml(uri)}" alt="${escapeHtml(alt)}" loading="lazy"><figcaption>${caption}</figcaption></figure>`;
  return `${isCompared ? `<h3>${escapeHtml(name)}: ${legend.length} prototypes</h3>` : ''}
<p><span class="${verdict}-text">${verdict}</span>, score ${score.toFixed(4)}; ${inUse.toFixed(1)} of ${legend.length} prototypes in use.${tiles > 0 ? ` Seen in ${tiles} tiles, each with prototypes of its own: one colour means one learned query, not one prototype, across tiles.` : ''}</p>
<div class="pictures">
${source === undefined ? '' : picture(source, image, 'Image')}
${picture(prototypes, `Which patch of ${image} belongs to which prototype`, 'Prototypes')}
${picture(heatmap, `Heat map of ${image}`, 'Heat map')}
${groups.map((uri, g) => picture(uri, `Reconstruction error of group ${g + 1}`, `Reconstruction error, group ${g + 1}${groups.length === 2 ? (g === 0 ? ' (earlier blocks)' : ' (later blocks)') : ''}`)).join('\n')}
</div>
<div class="pictures small">
${similarities.map((uri, m) => {
    const { colour, share, similarity } = legend[m]!;
    return picture(uri, `Similarity of ${image} to prototype ${m + 1}`, `<span class="key" style="background:rgb(${colour.join(',')})"></span>${m + 1}: ${(100 * share).toFixed(0)} %${similarity === null ? '' : `, similarity ${similarity.toFixed(2)}`}`);
  }).join('\n')}
</div>
<p class="note">Similarity to each prototype, from black at a cosine of ${range.low.toFixed(2)} to the full colour at ${range.high.toFixed(2)}; the share of the image that is nearest to it, and how near on average.</p>`;
}

const MORE_STYLE = `
h3 { margin: 20px 0 4px; font-size: 15px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(200px, 100%), 1fr)); gap: 12px; margin: 8px 0; }
.pictures.small { grid-template-columns: repeat(auto-fill, minmax(min(130px, 45%), 1fr)); }
figure { margin: 0; } figure img { width: 100%; display: block; border-radius: 6px; }
.note { color: var(--soft); font-size: 13px; }
.pictures .key { margin-left: 0; }
`;
