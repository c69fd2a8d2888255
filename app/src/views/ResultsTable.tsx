/** All results: sorted by a column, filtered by verdict and name, exported as shown. */
import { value } from '../format.ts';
import { verdictOf } from '../judge.ts';
import { counts, exporting, exportResults, filter, live, search, selectedId, sortBy, sorting, table, type Column } from '../state/inspect.ts';
import { threshold } from '../state/models.ts';
import { Progress } from './parts.tsx';

export function ResultsTable() {
  const rows = table.value;
  const head = (column: Column, title: string) => {
    const { column: by, descending } = sorting.value;
    return (
      <th scope="col" aria-sort={by === column ? (descending ? 'descending' : 'ascending') : 'none'}>
        <button type="button" onClick={() => sortBy(column)}>{title}<span aria-hidden="true">{by === column ? (descending ? ' ↓' : ' ↑') : ''}</span></button>
      </th>
    );
  };
  return (
    <>
      <div class="row tools">
        <fieldset class="segmented">
          <legend class="sr-only">Show</legend>
          {(['all', 'good', 'defective'] as const).map((which) => (
            <label key={which}><input type="radio" name="filter" checked={filter.value === which} onChange={() => { filter.value = which; }} /><span>{which[0]!.toUpperCase() + which.slice(1)} {counts.value[which]}</span></label>
          ))}
        </fieldset>
        <label class="field inline"><span class="sr-only">Find by name</span><input type="search" placeholder="Find by name" value={search.value} onInput={({ currentTarget }) => { search.value = currentTarget.value; }} /></label>
        <span class="row end">
          {(['csv', 'json', 'zip'] as const).map((format) => (
            <button key={format} type="button" class="button" disabled={rows.length === 0 || exporting.value !== undefined} onClick={() => void exportResults(format)}>{format === 'zip' ? 'ZIP of overlays' : format.toUpperCase()}</button>
          ))}
        </span>
      </div>
      {exporting.value && <Progress label={`Exporting ${exporting.value.done} of ${exporting.value.total}`} {...exporting.value} />}
      <div class="table">
        <table>
          <caption class="sr-only">Results</caption>
          <thead><tr>{head('order', '#')}{head('name', 'Picture')}{head('score', 'Score')}<th scope="col">Verdict</th></tr></thead>
          <tbody>
            {rows.map((row, i) => {
              const verdict = verdictOf(row.score, threshold.value);
              return (
                <tr key={row.id} class={row.id === selectedId.value ? 'selected' : ''}>
                  <td class="number">{row.order + 1}</td>
                  <td>
                    <button
                      type="button" class="pick" aria-pressed={row.id === selectedId.value} data-index={i}
                      onClick={() => {
                        live.value = false;
                        selectedId.value = row.id;
                      }}
                    >
                      <img src={row.thumbnailUrl} alt="" loading="lazy" /><span>{row.name}</span>
                    </button>
                  </td>
                  <td class="number">{value(row.score)}</td>
                  <td><span class={`badge ${verdict === 'good' ? 'good' : 'bad'}`}>{verdict === 'good' ? '✓ Good' : '✕ Defective'}</span></td>
                </tr>
              );
            })}
          </tbody>
        </table>
        {rows.length === 0 && <p class="muted">None of the results fits the filter.</p>}
      </div>
    </>
  );
}
