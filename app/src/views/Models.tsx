/** What is kept on this device: models, encoders, and how much room they take. */
import { useState } from 'preact/hooks';
import { sizeInWords } from '../../../src/browser/index.ts';
import { date, megabytes, plural, value } from '../format.ts';
import { show } from '../state/app.ts';
import { chooseModel, deleteModel, exportModel, importModel, model, models, renameModel, usage } from '../state/models.ts';
import { deleteEncoder, encoders } from '../state/teach.ts';
import type { StoredModel } from '../storage.ts';
import { sortFiles } from '../files.ts';
import { Card, FileButton, useBlobUrl, useIncomingFiles } from './parts.tsx';

export function Models() {
  const open = async (files: Iterable<File>): Promise<void> => { for (const file of sortFiles(files).weights) await importModel(file); };
  const over = useIncomingFiles((files) => void open(files));
  return (
    <>
      <Card title="Models on this device" class={over ? 'over' : ''} actions={<span class="muted small">{usage.value.quota > 0 && `${megabytes(usage.value.used)} of ${megabytes(usage.value.quota)} used`}</span>}>
        {models.value.length === 0
          ? <p class="muted">None yet: what you teach is kept here. A model file, exported here or written by <code>inp-former train</code>, can be opened or dropped.</p>
          : <ul class="models">{models.value.map((of) => <Model key={of.id} of={of} />)}</ul>}
        <div class="row"><FileButton label="Open a model file" accept=".safetensors" onFiles={(files) => void open(files)} /></div>
      </Card>
      {encoders.value.length > 0 && (
        <Card title="Encoders">
          <ul class="plain">
            {encoders.value.map(({ sha256, name, file }) => (
              <li key={sha256} class="row"><span><b>{name}</b> <span class="muted">{megabytes(file.size)}</span></span><button type="button" class="button end" onClick={() => void deleteEncoder(sha256)} aria-label={`Delete the encoder ${name}`}>Delete</button></li>
            ))}
          </ul>
        </Card>
      )}
      <p class="muted small">All of this lies in this browser's storage for this page. Clearing the site's data deletes it: export what you want to keep.</p>
    </>
  );
}

function Model({ of }: { of: StoredModel }) {
  const [asks, setAsks] = useState(false);
  const { encoder, training, resize } = of.metadata;
  return (
    <li class={model.value?.id === of.id ? 'model current' : 'model'}>
      <div class="model-thumbnails" aria-hidden="true">{of.thumbnails.map((thumbnail, i) => <Thumbnail key={i} of={thumbnail} />)}</div>
      <div class="model-text">
        <input type="text" class="title" value={of.name} maxLength={80} aria-label={`Name of the model ${of.name}`} onChange={({ currentTarget }) => void renameModel(of.id, currentTarget.value.trim() || of.name)} />
        <p class="muted small">{date(of.created)} · encoder {encoder.name} · {sizeInWords(resize, ' × ')} px · {plural(training.images, 'picture')}, {training.steps} steps · threshold {value(of.threshold)} · {megabytes(of.file.size)}</p>
        <div class="row">
          <button type="button" class="button primary" onClick={() => void chooseModel(of.id).then(() => show('inspect'))}>Inspect with it</button>
          <button type="button" class="button" onClick={() => void exportModel(of)}>Export</button>
          {asks
            ? <><button type="button" class="button danger" onClick={() => void deleteModel(of.id)}>Delete for good</button><button type="button" class="button" onClick={() => setAsks(false)}>Keep it</button></>
            : <button type="button" class="button" onClick={() => setAsks(true)} aria-label={`Delete ${of.name}`}>Delete</button>}
        </div>
      </div>
    </li>
  );
}

function Thumbnail({ of }: { of: Blob }) {
  const url = useBlobUrl(of);
  return url ? <img src={url} alt="" /> : <i />;
}
