/** Small pieces that several views share. */
import type { ComponentChildren } from 'preact';
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { filesOf, imageTypes } from '../files.ts';

interface FileButtonProps {
  readonly label: string;
  readonly accept?: string;
  readonly folder?: boolean;
  readonly multiple?: boolean;
  readonly class?: string;
  readonly onFiles: (files: File[]) => void;
}

/** A button that opens the file dialogue. */
export function FileButton({ label, accept = imageTypes, folder = false, multiple = true, onFiles, class: name = 'button' }: FileButtonProps) {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => { if (folder) input.current!.webkitdirectory = true; }, [folder]);
  return (
    <>
      <button type="button" class={name} onClick={() => input.current!.click()}>{label}</button>
      <input
        ref={input} type="file" hidden multiple={multiple} accept={folder ? undefined : accept} aria-label={label} tabIndex={-1}
        onChange={({ currentTarget }) => {
          onFiles([...currentTarget.files ?? []]);
          // The same file again is a new choice.
          currentTarget.value = '';
        }}
      />
    </>
  );
}

/** Takes drops anywhere on the page, and pastes, while it is shown. */
export function useIncomingFiles(onFiles: (files: File[]) => void): boolean {
  const [over, setOver] = useState(false);
  const handler = useRef(onFiles);
  handler.current = onFiles;
  useEffect(() => {
    const hasFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes('Files') ?? false;
    const onOver = (event: DragEvent): void => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const onLeave = (event: DragEvent): void => { if (event.relatedTarget === null) setOver(false); };
    const onDrop = async (event: DragEvent): Promise<void> => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      setOver(false);
      handler.current(await filesOf(event.dataTransfer!));
    };
    const onPaste = async (event: ClipboardEvent): Promise<void> => {
      if (!event.clipboardData?.types.includes('Files')) return;
      event.preventDefault();
      handler.current(await filesOf(event.clipboardData));
    };
    document.addEventListener('dragover', onOver);
    document.addEventListener('dragleave', onLeave);
    document.addEventListener('drop', onDrop);
    document.addEventListener('paste', onPaste);
    return () => {
      document.removeEventListener('dragover', onOver);
      document.removeEventListener('dragleave', onLeave);
      document.removeEventListener('drop', onDrop);
      document.removeEventListener('paste', onPaste);
    };
  }, []);
  return over;
}

export function Progress({ label, done, total }: { label: string; done: number; total: number }) {
  const id = useId();
  return (
    <div class="progress">
      <label for={id}>{label}</label>
      <progress id={id} value={Math.min(done, total)} max={Math.max(total, 1)} />
    </div>
  );
}

export function Card({ title, children, class: name = '', actions }: { title: string; children: ComponentChildren; class?: string; actions?: ComponentChildren }) {
  const id = useId();
  return (
    <section class={`card ${name}`} aria-labelledby={id}>
      <div class="card-head"><h2 id={id}>{title}</h2>{actions}</div>
      {children}
    </section>
  );
}

/** The URL of a blob while it is shown. */
export function useBlobUrl(blob: Blob | undefined): string | undefined {
  const [url, setUrl] = useState<string>();
  useEffect(() => {
    if (!blob) return setUrl(undefined);
    const made = URL.createObjectURL(blob);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  return url;
}

/** What a promise gives, once it is there and as long as the keys stay. */
export function useLoaded<T>(load: () => Promise<T> | undefined, keys: readonly unknown[]): T | undefined {
  const [loaded, setLoaded] = useState<{ keys: readonly unknown[]; value: T }>();
  useEffect(() => {
    let current = true;
    void load()?.then((value) => { if (current) setLoaded({ keys, value }); });
    return () => { current = false; };
  }, keys);
  return loaded && loaded.keys.every((key, i) => key === keys[i]) ? loaded.value : undefined;
}

/** Whether the tab is in the background. */
export function useHidden(): boolean {
  const [hidden, setHidden] = useState(document.hidden);
  useEffect(() => {
    const update = (): void => setHidden(document.hidden);
    document.addEventListener('visibilitychange', update);
    return () => document.removeEventListener('visibilitychange', update);
  }, []);
  return hidden;
}
