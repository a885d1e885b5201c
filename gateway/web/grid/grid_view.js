// The view Grid: two axes over the form of Make, count and time before the start, one labelled PNG.
import { html, useEffect, useId } from "../vendor/preact.js";
import { imageUrl } from "../lib/api.js";
import { counted, seconds } from "../lib/format.js";
import { attempt } from "../make/image_slot.js";
import { saveBlob } from "../state/collection.js";
import { change, form } from "../state/form.js";
import { jobs } from "../state/jobs.js";
import { modelNamed, usableModels } from "../state/models.js";
import { samplersOf } from "../state/samplers.js";
import { stepSeconds } from "../state/workers.js";
import { Icon } from "../ui/icon.js";
import { gridPng } from "./grid_png.js";
import { cancelGrid, doneCount, grid, lookUpCells, settings, startGrid, stateOf } from "./grid_state.js";
import { AXES, obstacle, parseValues, planOf } from "./plan.js";

/** @param {string} field @param {string} text @returns {import("./plan.js").Axis} */
function axisOf(field, text) {
  const about = AXES.find((each) => each.field === field) ?? AXES[0];
  return { field: about.field, label: about.label, values: parseValues(about.kind, text) };
}

export function GridView() {
  useEffect(() => void lookUpCells(), []);
  const { columnField, columnText, rowField, rowText } = settings.value;
  const columns = axisOf(columnField, columnText);
  const rows = rowField ? axisOf(rowField, rowText) : null;
  const problem = obstacle(columns, rows, form.value.prompt);
  const plan = problem ? [] : planOf(columns, rows, form.value.prompt);
  return html`<div class="page-view"><div class="page-body">
    <div class="page-head"><h1>Grid</h1><p class="muted">Vary two settings at once. Everything else comes from the form in <a href="#make">Make</a>.</p></div>
    <section class="panel">
      <div class="field"><label for="grid-prompt">Prompt</label>
        <textarea id="grid-prompt" rows="2" maxlength="4000" placeholder="What to draw" value=${form.value.prompt}
          onInput=${(/** @type {any} */ event) => change({ prompt: event.target.value })}></textarea></div>
      <div class="panels">
        <${AxisFields} title="Across" field=${columnField} text=${columnText}
          onChange=${(/** @type {any} */ next) => (settings.value = { ...settings.value, columnField: next.field, columnText: next.text })} />
        <${AxisFields} title="Down" field=${rowField} text=${rowText} canBeNone=${true}
          onChange=${(/** @type {any} */ next) => (settings.value = { ...settings.value, rowField: next.field, rowText: next.text })} />
      </div>
      <div class="row">
        <button type="button" class="primary" disabled=${problem !== ""} onClick=${() => attempt(() => startGrid(columns, rows, plan))}>Draw the grid</button>
        <span class="muted" role="status">${problem || planText(plan)}</span>
      </div>
    </section>
    ${grid.value && html`<${Result} grid=${grid.value} />`}
  </div></div>`;
}

/** @param {import("./plan.js").Plan[]} plan */
function planText(plan) {
  const perStep = stepSeconds.value;
  const own = modelNamed(form.value.model).defaults?.num_inference_steps ?? 50;
  const steps = plan.reduce((sum, { changes }) => sum + (changes.num_inference_steps ?? form.value.num_inference_steps ?? own), 0);
  return `${counted(plan.length, "image")}${perStep ? `, about ${seconds(perStep * steps)}` : ""}`;
}

/**
 * @param {{title: string, field: string, text: string, canBeNone?: boolean,
 *   onChange: (next: {field: string, text: string}) => void}} props
 */
function AxisFields({ title, field, text, canBeNone = false, onChange }) {
  const id = useId();
  const about = AXES.find((each) => each.field === field);
  const choices = field === "model" ? usableModels.value : samplersOf(modelNamed(form.value.model).schedulers ?? []).map((each) => each.value);
  const chosen = parseValues("choice", text);
  return html`<fieldset class="axis">
    <legend class="visually-hidden">${title}</legend>
    <label for=${`${id}-f`}><strong>${title}</strong></label>
    <select id=${`${id}-f`} value=${field} onChange=${(/** @type {any} */ event) => onChange({ field: event.target.value, text: "" })}>
      ${canBeNone && html`<option value="">Nothing (one row)</option>`}
      ${AXES.map((each) => html`<option key=${each.field} value=${each.field}>${each.label}</option>`)}
    </select>
    ${about?.kind === "choice"
      ? html`<div class="choices">${choices.map((name) => html`<label key=${name} class="check"><input type="checkbox" checked=${chosen.includes(name)}
          onChange=${(/** @type {any} */ event) => {
            const next = event.target.checked ? [...chosen, name] : chosen.filter((each) => each !== name);
            onChange({ field, text: next.join(", ") });
          }} />${name}</label>`)}</div>`
      : about && html`<label class="visually-hidden" for=${`${id}-v`}>${title}, values</label>
        <input id=${`${id}-v`} type="text" value=${text} placeholder=${about.hint}
          onInput=${(/** @type {any} */ event) => onChange({ field, text: event.target.value })} />
        <span class="small muted">${about.hint}</span>`}
  </fieldset>`;
}

/** @param {{grid: import("./grid_state.js").Grid}} props */
function Result({ grid: shown }) {
  const { columns, rows, cells, batch } = shown;
  const isDone = doneCount.value === cells.length;
  const download = async () => {
    const urls = cells.map((cell) => (cell.uuid && stateOf(cell) === "succeeded" ? imageUrl(cell.uuid) : null));
    const title = `${shown.prompt} (${shown.columnLabel}${shown.rowLabel ? ` × ${shown.rowLabel}` : ""})`;
    saveBlob(await gridPng({ columns, rows, title, urls }), `${batch}.png`);
  };
  return html`<section class="panel" aria-label="The grid">
    <div class="page-head">
      <h2>${shown.columnLabel}${shown.rowLabel && ` × ${shown.rowLabel}`}</h2>
      <span class="muted small" role="status">${isDone ? "done" : `${doneCount.value} of ${cells.length}`}</span>
      <span class="spacer"></span>
      ${!isDone && html`<button type="button" onClick=${() => void cancelGrid()}>Cancel the rest</button>`}
      <button type="button" onClick=${() => attempt(download)} disabled=${doneCount.value === 0}><${Icon} name="Download" size=${16} /> One PNG</button>
    </div>
    ${!isDone && html`<progress max=${cells.length} value=${doneCount.value} aria-label="Progress of the grid"></progress>`}
    <div class="table-scroll" tabindex="0" role="region" aria-label="Images of the grid"><table class="grid-table">
      <thead><tr>${rows.some(Boolean) && html`<td></td>`}${columns.map((text) => html`<th scope="col" key=${text}>${text}</th>`)}</tr></thead>
      <tbody>${rows.map((text, row) => html`<tr key=${text}>${rows.some(Boolean) && html`<th scope="row">${text}</th>`}
        ${columns.map((column, at) => html`<td key=${column}><${GridCell} cell=${cells[row * columns.length + at]} label=${[column, text].filter(Boolean).join(", ")} /></td>`)}</tr>`)}</tbody>
    </table></div>
  </section>`;
}

/** @param {{cell: import("./grid_state.js").Cell, label: string}} props */
function GridCell({ cell, label }) {
  const state = stateOf(cell);
  if (state === "succeeded" && cell.uuid) {
    return html`<a href=${`#picture/${cell.uuid}-1`}><img src=${imageUrl(`${cell.uuid}-1`, { px: 256 })} alt=${label} loading="lazy" /></a>`;
  }
  const job = cell.uuid ? jobs.value.get(cell.uuid) : undefined;
  return html`<div class=${`grid-wait ${state}`}>${state === "running" ? `${job?.step ?? 0}/${job?.steps ?? "?"}` : state === "queued" ? "waits" : state}</div>`;
}
