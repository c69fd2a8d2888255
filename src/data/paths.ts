/**
 * Relative paths with forward slashes, as a folder's listing has them: which are images, in which order, and how to take
 * them apart. Shared by every layout, by Node's folders and by a page's dropped directory.
 */
export const IMAGE_EXTENSIONS: readonly string[] = ['png', 'jpg', 'jpeg', 'webp', 'bmp', 'tif', 'tiff'];

/** Whether a file is taken for an image: by its extension, in any case, unless it or a folder on its path is hidden (starts with a dot). */
export function isImagePath(path: string): boolean {
  if (path.split('/').some((part) => part.startsWith('.'))) return false;
  const dot = path.lastIndexOf('.');
  return dot > path.lastIndexOf('/') && IMAGE_EXTENSIONS.includes(path.slice(dot + 1).toLowerCase());
}

/** Plain code-point order: the same everywhere, whatever the locale or file system. */
export function compareCodePoints(a: string, b: string): number {
  for (let i = 0; i < a.length && i < b.length; i++) {
    const difference = a.codePointAt(i)! - b.codePointAt(i)!;
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/** The images among the paths, in code-point order. */
export function imagesOf(listing: readonly string[]): string[] {
  return listing.filter(isImagePath).sort(compareCodePoints);
}

/** The path without its extension. */
export function stem(path: string): string {
  const dot = path.lastIndexOf('.');
  return dot > path.lastIndexOf('/') ? path.slice(0, dot) : path;
}

/** The path's folder, '' at the top. */
export function folderOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}

/** The path's last part. */
export function fileName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Names of the folders at the top of the listing, in code-point order. */
export function topFolders(listing: readonly string[]): string[] {
  return [...new Set(listing.filter((path) => path.includes('/')).map((path) => path.slice(0, path.indexOf('/'))))].sort(compareCodePoints);
}

/** The paths below `folder`, relative to it. */
export function below(listing: readonly string[], folder: string): string[] {
  const start = `${folder}/`;
  return listing.filter((path) => path.startsWith(start)).map((path) => path.slice(start.length));
}
