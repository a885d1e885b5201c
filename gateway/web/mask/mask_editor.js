// The mask editor, over the whole page: tools above, the image below. "Use the mask" puts it into the form.
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { getBlob, putBlob } from "../lib/blobs.js";
import { zoomed } from "../lib/zoom_pan.js";
import { attempt, useBlobUrl } from "../make/image_slot.js";
import { maskEditor } from "../make/mask_door.js";
import { saveBlob } from "../state/collection.js";
import { form, overwrite } from "../state/form.js";
import { IconButton } from "../ui/controls.js";
import { maskFromImage, maskPng, maskSize } from "./mask_image.js";
import { MaskSurface } from "./mask_surface.js";
import * as state from "./mask_state.js";

const TOOLS = /** @type {const} */ ([
  { tool: "brush", icon: "Brush", label: "Brush", keys: "B" },
  { tool: "eraser", icon: "Eraser", label: "Eraser", keys: "E, or the right button" },
  { tool: "box", icon: "SquareDashed", label: "Box", keys: "R" },
  { tool: "hand", icon: "Hand", label: "Move the image", keys: "H" },
]);

export function MaskEditor() {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const { start, mask } = form.value;
  const url = useBlobUrl(start?.blob);
  const size = maskSize(start?.width ?? 1, start?.height ?? 1);
  const [isReady, setReady] = useState(false);
  useEffect(() => {
    dialog.current?.showModal();
    attempt(async () => {
      const blob = mask ? await getBlob(mask) : null;
      const bitmap = blob ? await maskFromImage(blob, size.width, size.height) : null;
      state.beginMask(bitmap ? [{ kind: "image", bitmap }] : [], Math.min(size.width, size.height));
      setReady(true);
      requestAnimationFrame(() => requestAnimationFrame(() => canvas.current?.focus()));
    });
  }, []);
  const close = () => {
    maskEditor.value = false;
  };
  const use = () =>
    attempt(async () => {
      const png = canvas.current && (await maskPng(canvas.current, state.softEdge.value));
      if (png) overwrite({ mask: await putBlob(png) }, "The mask is in the form. White is painted again.");
      else if (mask) overwrite({ mask: null }, "The mask is empty, so it is removed.");
      close();
    });
  return html`<dialog ref=${dialog} class="mask-dialog" aria-labelledby="mask-title" onClose=${close}
    onKeyDown=${(/** @type {KeyboardEvent} */ event) => onKey(event, use)}>
    <header class="mask-head">
      <h2 id="mask-title">Paint over</h2>
      <${Tools} canvas=${canvas} size=${size} dialog=${dialog} />
      <span class="spacer"></span>
      <button type="button" onClick=${close}>Discard</button>
      <button type="button" class="primary" onClick=${use}>Use the mask</button>
    </header>
    ${isReady && url && html`<${MaskSurface} image=${url} width=${size.width} height=${size.height} canvas=${canvas} />`}
    <p class="mask-note small muted">What you paint is generated again; the rest stays as it is, pixel for pixel.</p>
  </dialog>`;
}

/** @param {{canvas: any, size: {width: number, height: number}, dialog: any}} props */
function Tools({ canvas, size, dialog }) {
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const { tool, brushLimits, brushSize, softEdge, view } = state;
  return html`<div class="mask-tools" role="toolbar" aria-label="Tools">
    ${TOOLS.map((each) => html`<${IconButton} key=${each.tool} icon=${each.icon} label=${each.label} keys=${each.keys}
      pressed=${tool.value === each.tool} onClick=${() => (tool.value = each.tool)} />`)}
    <label class="mask-slider"><span class="small">Size</span>
      <input type="range" min=${brushLimits.value.min} max=${brushLimits.value.max} value=${brushSize.value} title="[ and ]"
        onInput=${(/** @type {any} */ event) => (brushSize.value = Number(event.target.value))} /></label>
    <label class="mask-slider"><span class="small">Soft edge</span>
      <input type="range" min="0" max="64" value=${softEdge.value}
        onInput=${(/** @type {any} */ event) => (softEdge.value = Number(event.target.value))} /></label>
    <${IconButton} icon="Undo2" label="Undo" keys="Ctrl Z" disabled=${!state.canUndo.value} onClick=${state.undo} />
    <${IconButton} icon="Redo2" label="Redo" keys="Ctrl Y" disabled=${!state.canRedo.value} onClick=${state.redo} />
    <${IconButton} icon="Contrast" label="Invert" onClick=${() => state.add({ kind: "invert" })} />
    <${IconButton} icon="Trash2" label="Clear" onClick=${() => state.add({ kind: "clear" })} />
    <${IconButton} icon="ZoomOut" label="Smaller" onClick=${() => (view.value = zoomed(view.value, 1 / 1.5))} />
    <${IconButton} icon="ZoomIn" label="Larger" onClick=${() => (view.value = zoomed(view.value, 1.5))} />
    <${IconButton} icon="Expand" label="Full screen" onClick=${() => toggleFullScreen(dialog.current)} />
    <${IconButton} icon="Upload" label="Load a black and white PNG" onClick=${() => input.current?.click()} />
    <${IconButton} icon="Download" label="Save as a black and white PNG" onClick=${() =>
      attempt(async () => {
        const png = canvas.current && (await maskPng(canvas.current, softEdge.value));
        if (!png) throw new Error("The mask is empty.");
        saveBlob(png, "mask.png");
      })} />
    <input ref=${input} type="file" accept="image/*" class="visually-hidden" tabindex="-1" aria-label="Mask file"
      onChange=${(/** @type {any} */ event) => {
        const file = event.target.files[0];
        event.target.value = "";
        if (file) attempt(async () => state.add({ kind: "image", bitmap: await maskFromImage(file, size.width, size.height) }));
      }} />
  </div>`;
}

/** @param {HTMLElement | null} element */
function toggleFullScreen(element) {
  if (document.fullscreenElement) void document.exitFullscreen();
  else void element?.requestFullscreen?.();
}

/** @param {KeyboardEvent} event @param {() => void} use */
function onKey(event, use) {
  const isModified = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  const acts = /** @type {Record<string, () => void>} */ (
    isModified
      ? { z: event.shiftKey ? state.redo : state.undo, y: state.redo, enter: use }
      : {
          b: () => (state.tool.value = "brush"),
          e: () => (state.tool.value = "eraser"),
          r: () => (state.tool.value = "box"),
          h: () => (state.tool.value = "hand"),
          i: () => state.add({ kind: "invert" }),
          "[": () => state.resizeBrush(-1),
          "]": () => state.resizeBrush(1),
        }
  );
  if (!acts[key]) return;
  event.preventDefault();
  event.stopPropagation();
  acts[key]();
}
