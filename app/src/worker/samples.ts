/** The sample set: parts that are drawn, so that a person without data of their own sees everything work. Their defects are plain ones. */
import { defectKindsOf, renderSample, type DefectOptions } from '../../../src/data/procedural.ts';
import type { Picture, SampleSet } from '../protocol.ts';
import { tell } from './events.ts';
import { pngOf } from './pictures.ts';

const texture = 'brushed-metal';
const side = 224;
const taught = 20;
const testGood = 5;
const strengths = [0.75, 1];

export async function samples(): Promise<SampleSet> {
  const defects = strengths.flatMap((strength) => defectKindsOf(texture).map((kind): DefectOptions => ({ kind, strength, extent: strength })));
  const total = taught + testGood + defects.length;
  let done = 0;
  const draw = async (name: string, defect: DefectOptions | 'none' = 'none'): Promise<Picture> => {
    const picture = { name: `${name}.png`, image: await pngOf(renderSample({ texture, seed: name, size: side, defect }).image) };
    tell({ kind: 'samples', done: ++done, total });
    return picture;
  };
  const several = async (count: number, name: string): Promise<Picture[]> => {
    const pictures: Picture[] = [];
    for (let i = 1; i <= count; i++) pictures.push(await draw(`${name} ${String(i).padStart(2, '0')}`));
    return pictures;
  };
  const good = await several(taught, 'taught');
  const test = await several(testGood, 'good');
  for (const [i, defect] of defects.entries()) test.push(await draw(`${defect.kind} ${String(i + 1).padStart(2, '0')}`, defect));
  return { good, test };
}
