// What can be done with one stored image.
import { html, signal } from "../vendor/preact.js";
import { copyText } from "../lib/clipboard.js";
import { go } from "../lib/router.js";
import { maskEditor } from "../make/mask_door.js";
import { attempt } from "../make/image_slot.js";
import { startFromStored } from "../make/start_image.js";
import { downloadImage, starImages, trashImages } from "../state/collection.js";
import { draw, shownImage, submit } from "../state/drawing.js";
import { change, overwrite } from "../state/form.js";
import { capabilities } from "../state/models.js";
import { notify } from "../state/notices.js";
import { drawnRecordOf, parseName } from "../state/records.js";
import { itemNamed, newest } from "../state/results.js";
import { useSettings } from "../state/settings_of_record.js";
import { IconButton } from "../ui/controls.js";
import { Icon } from "../ui/icon.js";

/** The images that the next comparison is made of. */
export const compared = signal(/** @type {string[]} */ ([]));

/** @param {string} name */
export function useAll(name) {
  attempt(async () => {
    const record = await drawnRecordOf(name);
    useSettings(record, record.image
      ? "The settings are in the form. The start image is not; use “Use as start” for one."
      : "All settings of the image are in the form.");
    go("make");
  });
}

/** @param {string} name */
function usePrompt(name) {
  attempt(async () => {
    const { prompt, negative_prompt: negative = "" } = await drawnRecordOf(name);
    overwrite({ prompt, negative_prompt: negative ?? "" }, "The prompt is in the form.");
  });
}

/** @param {string} name */
function useSeed(name) {
  attempt(async () => {
    const { seed } = await drawnRecordOf(name);
    if (seed === undefined || seed === null) throw new Error("This image has no seed.");
    overwrite({ seed }, `The seed is ${seed}.`);
  });
}

/** The same settings with a new seed, drawn at once. @param {string} name */
export function vary(name) {
  attempt(async () => {
    const record = await drawnRecordOf(name);
    useSettings(record, "A variation is in the queue; its settings are in the form.", { seed: null });
    go("make");
    await draw();
    change({ seed: null });
  });
}

/** @param {string} name */
function startHere(name) {
  attempt(async () => {
    await startFromStored(name);
    go("make");
  });
}

/** @param {string} name */
function paintOver(name) {
  attempt(async () => {
    await startFromStored(name);
    go("make");
    maskEditor.value = true;
  });
}

/** An upscaler of the service's own files draws detail; Lanczos is always there. */
function upscaler() {
  const own = capabilities.value.upscalers?.find((each) => !["latent", "lanczos"].includes(each));
  return own ?? "lanczos";
}

/** @param {string} name */
async function upscale(name) {
  const { uuid, index } = parseName(name);
  const body = { generation_uuid: uuid, image_index: index, scale: 2, upscaler: upscaler() };
  const title = itemNamed(name)?.prompt ?? "Upscaling";
  const accepted = await submit(body, { path: "image/upscale", title });
  if (accepted) {
    notify("Upscaling; the larger image appears beside the newest.");
    go("make");
  }
}

/** @param {string} name */
async function copyLink(name) {
  const url = `${location.origin}${location.pathname}#picture/${name}`;
  notify((await copyText(url)) ? "The link is copied." : `Copy this link: ${url}`);
}

/** Delete, and show what comes next. @param {string} name @param {(() => void) | undefined} onGone */
export async function trash(name, onGone) {
  if (shownImage.value === name) shownImage.value = null;
  await trashImages([name]);
  onGone?.();
}

/** @param {string} name */
export function addToComparison(name) {
  const others = compared.value.filter((each) => each !== name);
  if (others.length === 0) {
    const next = newest.value.find((each) => each.name !== name);
    compared.value = [name];
    notify("Choose a second image to compare with.", next && {
      act: { label: "Compare with the newest", act: () => go(`compare/${next.name}/${name}`) },
    });
    return;
  }
  compared.value = [];
  go(`compare/${others[0]}/${name}`);
}

/**
 * The keys of an image that is shown.
 * @param {string} name
 * @param {() => void} [onGone]
 * @returns {Record<string, () => void>}
 */
export function imageKeys(name, onGone) {
  return {
    s: () => void starImages([name], !itemNamed(name)?.star),
    d: () => downloadImage(name),
    u: () => useAll(name),
    v: () => vary(name),
    c: () => addToComparison(name),
    Delete: () => void trash(name, onGone),
  };
}

/**
 * @param {{name: string, item?: import("../state/results.js").Item, isCompact?: boolean,
 *   onGone?: () => void}} props
 */
export function ImageActions({ name, item, isCompact = false, onGone }) {
  const isStarred = item?.star ?? false;
  return html`<div class=${`actions ${isCompact ? "compact" : ""}`} role="toolbar" aria-label="What to do with the image">
    <div class="action-group">
      <${Labelled} icon="RotateCcw" label="Use all" title="Put all its settings into the form" onClick=${() => useAll(name)} />
      <${Labelled} label="Prompt" title="Use its prompt" onClick=${() => usePrompt(name)} />
      <${Labelled} label="Seed" title="Use its seed" onClick=${() => useSeed(name)} />
    </div>
    <div class="action-group">
      <${Labelled} icon="Shuffle" label="Vary" title="Draw the same with another seed" onClick=${() => vary(name)} />
      <${Labelled} icon="ImagePlus" label="Use as start" title="Start the next image from it" onClick=${() => startHere(name)} />
      <${Labelled} icon="Brush" label="Paint over" title="Repaint a part of it" onClick=${() => paintOver(name)} />
      <${Labelled} icon="Scaling" label="Upscale" title=${`Make it twice as large, with ${upscaler()}`} onClick=${() => void upscale(name)} />
    </div>
    <div class="action-group icons">
      <${IconButton} icon="Star" label=${isStarred ? "Remove the star" : "Star"} keys="S" pressed=${isStarred} filled=${isStarred}
        onClick=${() => void starImages([name], !isStarred)} />
      <${IconButton} icon="Columns2" label="Compare" keys="C" onClick=${() => addToComparison(name)} />
      <${IconButton} icon="Download" label="Download" keys="D" onClick=${() => downloadImage(name)} />
      <${IconButton} icon="Link" label="Copy the link" onClick=${() => void copyLink(name)} />
      <${IconButton} icon="Trash2" label="Delete" keys="Del" danger=${true} onClick=${() => void trash(name, onGone)} />
    </div>
  </div>`;
}

/** @param {{icon?: any, label: string, title: string, onClick: () => void}} props */
function Labelled({ icon, label, title, onClick }) {
  return html`<button type="button" title=${title} onClick=${onClick}>
    ${icon && html`<${Icon} name=${icon} size=${16} />`}<span>${label}</span>
  </button>`;
}
