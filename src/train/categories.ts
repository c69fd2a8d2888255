/**
 * A threshold for each category of a unified model: who inspects with it knows which thing lies before the camera, and
 * scores of different things differ. Apart, because few trainings have categories.
 */
import type { ImageSource } from '../data/image.ts';
import { InputError } from '../errors.ts';
import { calibrate, type CalibrationInput } from '../inspect/calibration.ts';
import type { RawInspection } from '../inspect/inspector.ts';
import type { CategoryRecord } from '../inspect/model-file.ts';

/**
 * @param results of the calibration images
 * @param used images that were trained on
 * @throws InputError where a category that was trained on has no result
 */
export function calibrateCategories(results: readonly (Pick<RawInspection, 'score' | 'map'> & ImageSource)[], used: readonly ImageSource[], about: Pick<CalibrationInput, 'heldOut' | 'what'>): CategoryRecord[] {
  const names = [...new Set(used.map(({ category }) => category))].filter((name) => name !== undefined);
  return names.map((name) => {
    const own = results.filter(({ category }) => category === name);
    if (own.length === 0) throw new InputError(`No calibration image of ${name} can be read, or none was given. Give each category at least one.`, { code: 'no-images' });
    return {
      name,
      images: used.filter(({ category }) => category === name).length,
      calibration: calibrate({ scores: own.map(({ score }) => score), maps: own.map(({ map }) => map), ...about }),
    };
  });
}
