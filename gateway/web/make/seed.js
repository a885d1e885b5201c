// The seed: free it is new for each job, locked it stays; the dice roll another one.
import { html } from "../vendor/preact.js";
import { randomSeed } from "../lib/random.js";
import { shownImage } from "../state/drawing.js";
import { change, fieldErrors, form } from "../state/form.js";
import { itemNamed, newest } from "../state/results.js";
import { FieldError, IconButton } from "../ui/controls.js";

export function SeedField() {
  const { seed } = form.value;
  const isLocked = seed !== null;
  return html`<div class="field seed">
    <div class="field-head"><label for="seed">Seed</label></div>
    <div class="joined">
      <input id="seed" type="text" inputmode="numeric" pattern="[0-9]*" placeholder="random"
        value=${seed ?? ""} data-field="seed" aria-describedby="seed-error"
        aria-invalid=${Boolean(fieldErrors.value.seed)}
        onInput=${(/** @type {any} */ event) => {
          const digits = event.target.value.replace(/\D/g, "");
          change({ seed: digits === "" ? null : Math.min(Number(digits), Number.MAX_SAFE_INTEGER - 16) });
          event.target.value = digits;
        }} />
      <${IconButton} icon="Dices" label="Roll a new seed and keep it" onClick=${() => change({ seed: randomSeed() })} />
      <${IconButton} icon=${isLocked ? "Lock" : "LockOpen"} pressed=${isLocked}
        label=${isLocked ? "Unlock: a new seed each time" : "Lock the seed of the image shown"}
        onClick=${() => change({ seed: isLocked ? null : lastSeed() })} />
    </div>
    <${FieldError} field="seed" id="seed-error" />
  </div>`;
}

/** The seed of the image that is shown, else a new one. */
function lastSeed() {
  const item = shownImage.value ? itemNamed(shownImage.value) : newest.value[0];
  return item?.seed ?? randomSeed();
}
