// The strokes of the mask that is being edited, with undo and redo, and the tool in hand.
import { computed, signal } from "../vendor/preact.js";

/** @typedef {import("./mask_image.js").Operation} Operation */
/** @typedef {"brush" | "eraser" | "box" | "hand"} Tool */

/** The least and the most diameter of the brush, in pixels of the image. */
export const brushLimits = signal({ min: 1, max: 256 });

export const operations = signal(/** @type {Operation[]} */ ([]));
const redone = signal(/** @type {Operation[]} */ ([]));
export const tool = signal(/** @type {Tool} */ ("brush"));
/** The diameter of the brush in pixels of the image. */
export const brushSize = signal(48);
export const softEdge = signal(0);
export const view = signal({ scale: 1, x: 0, y: 0 });

export const canUndo = computed(() => operations.value.length > 0);
export const canRedo = computed(() => redone.value.length > 0);

/** Begin with nothing, or with the mask of the form. @param {Operation[]} first @param {number} side */
export function beginMask(first, side) {
  operations.value = first;
  redone.value = [];
  tool.value = "brush";
  view.value = { scale: 1, x: 0, y: 0 };
  brushLimits.value = { min: 1, max: Math.max(16, Math.round(side / 2)) };
  brushSize.value = Math.max(2, Math.round(side / 9));
}

/** @param {Operation} operation */
export function add(operation) {
  operations.value = [...operations.value, operation];
  redone.value = [];
}

export function undo() {
  const last = operations.value.at(-1);
  if (last === undefined) return;
  operations.value = operations.value.slice(0, -1);
  redone.value = [...redone.value, last];
}

export function redo() {
  const last = redone.value.at(-1);
  if (last === undefined) return;
  redone.value = redone.value.slice(0, -1);
  operations.value = [...operations.value, last];
}

/** @param {1 | -1} direction */
export function resizeBrush(direction) {
  const next = Math.round(brushSize.value * (direction > 0 ? 1.2 : 1 / 1.2));
  const changed = next === brushSize.value ? next + direction : next;
  const { min, max } = brushLimits.value;
  brushSize.value = Math.max(min, Math.min(max, changed));
}
