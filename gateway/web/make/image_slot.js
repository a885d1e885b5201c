// A place for an image of the user: choose, drop or paste a file, or take a stored image.
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { imageUrl, send } from "../lib/api.js";
import { blobUrl, putBlob } from "../lib/blobs.js";
import { notifyError } from "../state/notices.js";
import { IconButton } from "../ui/controls.js";
import { Icon } from "../ui/icon.js";

/** @typedef {import("../state/form.js").ImageRef} ImageRef */

/**
 * Keep a file for the form. Raises when the browser cannot show it.
 * @param {Blob} blob
 * @param {string} name
 * @returns {Promise<ImageRef>}
 */
export async function keepImage(blob, name) {
  let size;
  try {
    size = await createImageBitmap(blob);
  } catch {
    throw new Error(`${name} is not an image that this browser can show.`);
  }
  const ref = { blob: await putBlob(blob), name, width: size.width, height: size.height };
  size.close();
  return ref;
}

/**
 * Keep a stored image for the form.
 * @param {string} name UUID-N
 */
export async function keepStoredImage(name) {
  const reply = await send("GET", imageUrl(name));
  return keepImage(await reply.blob(), `${name.slice(0, 8)}.png`);
}

/**
 * The blob: address of an image of the form; null until it is there.
 * @param {string | null | undefined} id
 */
export function useBlobUrl(id) {
  const [url, setUrl] = useState(/** @type {string | null} */ (null));
  useEffect(() => {
    let isLive = true;
    setUrl(null);
    if (id) void blobUrl(id).then((found) => isLive && setUrl(found));
    return () => {
      isLive = false;
    };
  }, [id]);
  return url;
}

/**
 * @param {{value: ImageRef | null, label: string, field: string,
 *   onChoose: (file: File) => void, onRemove: () => void, children?: any}} props
 */
export function ImageSlot({ value, label, field, onChoose, onRemove, children }) {
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const [isOver, setOver] = useState(false);
  const url = useBlobUrl(value?.blob);
  /** @param {DragEvent} event */
  const drop = (event) => {
    event.preventDefault();
    event.stopPropagation();
    setOver(false);
    const file = event.dataTransfer?.files[0];
    if (file) onChoose(file);
  };
  return html`<div class=${`image-slot ${isOver ? "is-over" : ""} ${value ? "is-filled" : ""}`}
    onDragOver=${(/** @type {DragEvent} */ event) => {
      event.preventDefault();
      setOver(true);
    }}
    onDragLeave=${() => setOver(false)} onDrop=${drop}>
    <input ref=${input} type="file" accept="image/png,image/jpeg,image/webp" class="visually-hidden" tabindex="-1"
      aria-label=${`${label}, file`}
      onChange=${(/** @type {any} */ event) => {
        const file = event.target.files[0];
        event.target.value = "";
        if (file) onChoose(file);
      }} />
    ${value === null
      ? html`<button type="button" class="slot-empty" data-field=${field} onClick=${() => input.current?.click()}>
          <${Icon} name="ImagePlus" size=${20} /><span>${label}</span>
          <span class="small muted">Choose, drop or paste a file</span>
        </button>`
      : html`<div class="slot-image">
            ${url && html`<img src=${url} alt=${value.name} />`}
            ${children}
          </div>
          <div class="slot-foot">
            <span class="small muted clip">${value.name} · ${value.width} × ${value.height}</span>
            <${IconButton} icon="Upload" label="Choose another file" class="tiny" onClick=${() => input.current?.click()} />
            <${IconButton} icon="X" label="Remove the image" class="tiny" onClick=${onRemove} />
          </div>`}
  </div>`;
}

/**
 * Run an act that may fail with a sentence for the user.
 * @param {() => Promise<void>} act
 */
export function attempt(act) {
  act().catch(notifyError);
}
