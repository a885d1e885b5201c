// A job that failed: the service's sentence, and the one act that helps.
import { stored } from "../lib/storage.js";
import { html } from "../vendor/preact.js";
import { draw } from "../state/drawing.js";
import { form, overwrite } from "../state/form.js";
import { promptOf } from "../state/jobs.js";
import { nativeSide } from "../state/models.js";
import { Icon } from "../ui/icon.js";

/** The failure that the user has read. */
export const dismissedFailure = stored("dismissed", "");

const MEMORY = /memory/i;

/** @param {{job: import("../state/jobs.js").Job}} props */
export function FailedJob({ job }) {
  const text = job.errors.join(" ") || "The job failed.";
  const smaller = MEMORY.test(text) ? smallerSize() : null;
  return html`<section class="stage" aria-label="Your job">
    <div class="canvas failed">
      <div class="failed-text" role="alert">
        <${Icon} name="CircleAlert" size=${28} />
        <h2>This image could not be made</h2>
        <p>${text[0].toUpperCase()}${text.slice(1)}</p>
        <p class="muted small clip">${promptOf(job)}</p>
        <div class="row center">
          ${smaller && html`<button type="button" class="primary" onClick=${() => {
            overwrite({ width: smaller[0], height: smaller[1] }, `The size is ${smaller[0]} × ${smaller[1]}.`);
            void draw();
          }}>Try ${smaller[0]} × ${smaller[1]}</button>`}
          <button type="button" onClick=${() => void draw()}>Draw again</button>
          <button type="button" onClick=${() => (dismissedFailure.value = job.uuid)}>Dismiss</button>
        </div>
      </div>
    </div>
  </section>`;
}

/** Three quarters of both sides, in steps of 64. @returns {[number, number] | null} */
function smallerSize() {
  const side = nativeSide(form.value.model);
  const sides = [form.value.width ?? side, form.value.height ?? side];
  const [width, height] = sides.map((each) => Math.max(64, Math.floor((each * 0.75) / 64) * 64));
  return width < sides[0] || height < sides[1] ? [width, height] : null;
}
