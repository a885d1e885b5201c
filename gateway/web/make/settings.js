// The left column: the form from the prompt to Draw.
import { html, useId, useState } from "../vendor/preact.js";
import { counted, seconds } from "../lib/format.js";
import { draw, isSending, nickname } from "../state/drawing.js";
import { change, form } from "../state/form.js";
import { activeJobs, isSoundOn } from "../state/jobs.js";
import { capabilities, modelNamed, usableModels } from "../state/models.js";
import { stepSeconds } from "../state/workers.js";
import { Field, FieldError } from "../ui/controls.js";
import { Lazy } from "../ui/lazy.js";
import { Prompts } from "./prompt.js";
import { SeedField } from "./seed.js";
import { SizeField } from "./size.js";
import { StartImage } from "./start_image.js";

const COUNTS = [1, 2, 3, 4];

export function Settings() {
  return html`<div class="settings-scroll">
    <${ModelField} />
    <${SizeField} />
    <div class="pair"><${CountField} /><${SeedField} /></div>
    <${StartImage} />
    <${MoreSection} />
    <${Preferences} />
  </div>`;
}

function ModelField() {
  const id = useId();
  const names = usableModels.value;
  const { model } = form.value;
  if (names.length < 2 && !model) return null;
  const own = capabilities.value.default ?? "";
  return html`<${Field} label="Model" field="model" id=${id}>
    <select id=${id} data-field="model" value=${model || own}
      onChange=${(/** @type {any} */ event) => change({ model: event.target.value === own ? "" : event.target.value })}>
      ${model && !names.includes(model) && html`<option value=${model}>${model} (not here)</option>`}
      ${names.map((name) => html`<option key=${name} value=${name}>${name}${modelNamed(name).loaded ? "" : " (loads first)"}</option>`)}
    </select>
  <//>`;
}

function CountField() {
  const { num_images_per_prompt: count } = form.value;
  return html`<fieldset class="field count">
    <legend>Images</legend>
    <div class="segments">
      ${[...COUNTS, ...(COUNTS.includes(count) ? [] : [count])].map(
        (each) => html`<button key=${each} type="button" aria-pressed=${String(each === count)} aria-label=${counted(each, "image")}
          onClick=${() => change({ num_images_per_prompt: each })}>${each}</button>`,
      )}
    </div>
    <${FieldError} field="num_images_per_prompt" id="num_images_per_prompt-error" />
  </fieldset>`;
}

/** The fields of More that differ from the model's own values. */
const MORE_FIELDS = /** @type {const} */ ([
  ...["num_inference_steps", "guidance_scale", "guidance_rescale", "clip_skip", "eta", "scheduler"],
  ...["loras", "hires", "refiner", "vae", "controlnets", "ip_adapter"],
]);

function MoreSection() {
  const [isOpen, setOpen] = useState(false);
  const values = /** @type {Record<string, any>} */ (form.value);
  const changed = MORE_FIELDS.filter((field) => values[field] && values[field].length !== 0).length;
  return html`<details class="section more" onToggle=${(/** @type {any} */ event) => setOpen(event.currentTarget.open)}>
    <summary>More${changed > 0 && html`<span class="badge-count">${counted(changed, "change")}</span>`}</summary>
    ${isOpen && html`<${Lazy} name="More" load=${() => import("./more.js")} />`}
  </details>`;
}

function Preferences() {
  const id = useId();
  return html`<details class="section"><summary>This browser</summary>
    <${Field} label="Name beside your jobs" field="client_name" id=${id}
      help="Others see it in the queue. It is no account, and it may stay empty.">
      <input id=${id} type="text" maxlength="64" data-field="client_name" autocomplete="nickname" value=${nickname.value}
        onInput=${(/** @type {any} */ event) => (nickname.value = event.target.value)} />
    <//>
    <label class="check"><input type="checkbox" checked=${isSoundOn.value}
      onChange=${(/** @type {any} */ event) => (isSoundOn.value = event.target.checked)} /> A sound when my job ends</label>
  </details>`;
}

export function DrawBar() {
  const waiting = activeJobs.value.length;
  return html`<div class="draw-bar">
    <button type="button" class="primary draw" onClick=${() => void draw()} disabled=${isSending.value}
      aria-keyshortcuts="Control+Enter">
      Draw <kbd class="wide-only">Ctrl ↵</kbd>
    </button>
    <p class="small muted draw-note">${waiting > 0 ? `The job will wait behind ${counted(waiting, "job")}` : estimate()}</p>
  </div>`;
}

/** How long a job of this form takes, where it is known. */
function estimate() {
  const perStep = stepSeconds.value;
  if (perStep === null) return "";
  const { num_inference_steps: steps, num_images_per_prompt: count, model } = form.value;
  const each = steps ?? modelNamed(model).defaults?.num_inference_steps ?? 50;
  return `About ${seconds(Math.max(1, perStep * each * count))}`;
}

export { Prompts };
