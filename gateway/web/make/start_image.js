// From an image: the start image, its strength, and the mask over it. A PNG with settings offers them.
import { html, useState } from "../vendor/preact.js";
import { change, form, mode, overwrite } from "../state/form.js";
import { useSettings } from "../state/settings_of_record.js";
import { modelNamed, modesOf } from "../state/models.js";
import { Dialog, NumberField } from "../ui/controls.js";
import { Icon } from "../ui/icon.js";
import { ImageSlot, attempt, keepImage, keepStoredImage, useBlobUrl } from "./image_slot.js";
import { maskEditor } from "./mask_door.js";
import { signal } from "../vendor/preact.js";

/** A dropped PNG with settings, until the user says what it is for. */
const offered = signal(/** @type {{file: File, settings: Record<string, any>} | null} */ (null));

/**
 * Take a file in: one with settings asks what to do with it, any other becomes the start image.
 * @param {File} file
 */
export function takeFile(file) {
  attempt(async () => {
    const [{ pngTexts }, { settingsOf }] = await Promise.all([
      import("../lib/png_text.js"),
      import("../lib/infotext.js"),
    ]);
    const settings = settingsOf(await pngTexts(file));
    if (settings?.prompt) offered.value = { file, settings };
    else await startFrom(file);
  });
}

/** @param {File} file */
async function startFrom(file) {
  const start = await keepImage(file, file.name || "pasted image");
  if (form.value.start) overwrite({ start, mask: null }, "The start image is replaced.");
  else change({ start, mask: null });
}

/** Start from a stored image, with an Undo. @param {string} name */
export async function startFromStored(name) {
  overwrite({ start: await keepStoredImage(name), mask: null }, "The image is the start image.");
}

/** A file that was dropped or pasted anywhere on the page. */
export function watchFiles() {
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    takeFile(file);
  });
  addEventListener("dragover", (event) => {
    if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    const file = event.dataTransfer?.files[0];
    if (!file || event.defaultPrevented) return;
    event.preventDefault();
    takeFile(file);
  });
}

export function StartImage() {
  const { start, mask, strength, model } = form.value;
  const known = modelNamed(model);
  const modes = modesOf(known);
  const [isOpen, setOpen] = useState(false);
  if (!modes.includes("img2img") && !modes.includes("inpaint")) return null;
  const initial = known.strength?.[mode.value] ?? (mask ? 1 : 0.8);
  return html`<details class="section" open=${isOpen || start !== null}
    onToggle=${(/** @type {any} */ event) => setOpen(event.currentTarget.open)}>
    <summary>From an image</summary>
    <${ImageSlot} value=${start} label="Start image" field="image" onChoose=${takeFile}
      onRemove=${() => overwrite({ start: null, mask: null, strength: null }, "The start image is removed.")}>
      ${mask && html`<${MaskThumb} id=${mask} />`}
    <//>
    ${start && html`<div class="row">
        <button type="button" class="grow" onClick=${() => (maskEditor.value = true)} disabled=${!modes.includes("inpaint")}>
          <${Icon} name="Brush" /> ${mask ? "Edit the mask" : "Paint over"}
        </button>
        ${mask && html`<button type="button" onClick=${() => overwrite({ mask: null }, "The mask is removed.")}>
          Remove the mask</button>`}
      </div>
      <${NumberField} field="strength" label="Strength" value=${strength} min=${0} max=${1} step=${0.01}
        initial=${initial} onChange=${(/** @type {number | null} */ value) => change({ strength: value })}
        help="How much to change the image: near 0 keeps it, 1 ignores it. 0.4 to 0.8 is usual." />`}
  </details>`;
}

/** @param {{id: string}} props */
function MaskThumb({ id }) {
  const url = useBlobUrl(id);
  return url && html`<img class="mask-thumb" src=${url} alt="The mask: white is painted again" />`;
}

/** What to do with a PNG that carries settings. It is drawn once, because a file can be dropped on any view. */
export function Offer() {
  const offer = offered.value;
  const close = () => {
    offered.value = null;
  };
  return html`<${Dialog} title="This PNG carries its settings" isOpen=${offer !== null} onClose=${close} class="small-dialog">
    ${offer && html`<p class="quoted">${offer.settings.prompt}</p>
      <div class="dialog-actions stacked">
        <button type="button" class="primary" onClick=${() => {
          useSettings(offer.settings, "The settings of the PNG are in the form.");
          close();
        }}>Use its settings</button>
        <button type="button" onClick=${() => {
          attempt(() => startFrom(offer.file));
          close();
        }}>Start from the image</button>
      </div>`}
  <//>`;
}
