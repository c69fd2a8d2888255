/** Files on their way in (chosen, dropped, pasted; folders with all that lies in them) and out (downloads). */
import { IMAGE_EXTENSIONS } from '../../src/data/paths.ts';

/** For the file dialogue. */
export const imageTypes = ['image/*', ...IMAGE_EXTENSIONS.map((extension) => `.${extension}`)].join(',');

export interface Sorted {
  readonly images: File[];
  /** Model files and encoders. */
  readonly weights: File[];
  readonly others: File[];
}

/** By name, as on the command line; hidden files (.DS_Store) are nobody's. */
export function sortFiles(files: Iterable<File>): Sorted {
  const sorted: Sorted = { images: [], weights: [], others: [] };
  for (const file of [...files].filter(({ name }) => !name.startsWith('.')).sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }))) {
    const extension = /\.(\w+)$/.exec(file.name)?.[1]?.toLowerCase() ?? '';
    if (extension === 'safetensors') sorted.weights.push(file);
    else if (file.type.startsWith('image/') || IMAGE_EXTENSIONS.includes(extension)) sorted.images.push(file);
    else sorted.others.push(file);
  }
  return sorted;
}

/** All files of a drop or a paste, those in folders included. */
export async function filesOf(transfer: DataTransfer): Promise<File[]> {
  // The list is emptied when the event is over, so all entries are taken before anything is awaited.
  const entries = [...transfer.items].filter(({ kind }) => kind === 'file').map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found: File[] = [];
  const visit = async (entry: FileSystemEntry): Promise<void> => {
    if (entry.isFile) found.push(await new Promise<File>((resolve, reject) => { (entry as FileSystemFileEntry).file(resolve, reject); }));
    else {
      const reader = (entry as FileSystemDirectoryEntry).createReader();
      for (;;) {
        // Hands out a hundred at a time, and none at the end.
        const some = await new Promise<FileSystemEntry[]>((resolve, reject) => { reader.readEntries(resolve, reject); });
        if (some.length === 0) break;
        for (const child of some) await visit(child);
      }
    }
  };
  for (const entry of entries) {
    if (entry instanceof File) found.push(entry);
    else if (entry) await visit(entry);
  }
  return found;
}

export function download(content: Blob, name: string): void {
  const url = URL.createObjectURL(content);
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  // The browser has taken it by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
