// The form: what the next image is asked for. It outlives reloads, and every overwrite can be undone.
import { computed, signal } from "../vendor/preact.js";
import { stored } from "../lib/storage.js";
import { announce, notify } from "./notices.js";

/**
 * @typedef {{blob: string, name: string, width: number, height: number}} ImageRef an image of the user
 * @typedef {{name: string, weight: number}} Lora
 * @typedef {{name: string, image: ImageRef | null, conditioning_scale: number}} ControlNet
 * @typedef {{
 *   prompt: string, negative_prompt: string, model: string,
 *   width: number | null, height: number | null, num_images_per_prompt: number,
 *   seed: number | null, num_inference_steps: number | null, guidance_scale: number | null,
 *   scheduler: string, scheduler_options: Record<string, any>, strength: number | null,
 *   clip_skip: number | null, eta: number | null, guidance_rescale: number | null,
 *   loras: Lora[], vae: string, refiner: {name: string, switch_at: number} | null,
 *   hires: {scale: number, upscaler: string, strength: number} | null,
 *   controlnets: ControlNet[],
 *   ip_adapter: {name: string, image: ImageRef | null, scale: number} | null,
 *   start: ImageRef | null, mask: string | null,
 * }} Form
 */

/** @type {Form} */
export const EMPTY = {
  prompt: "",
  negative_prompt: "",
  model: "",
  width: null,
  height: null,
  num_images_per_prompt: 1,
  seed: null,
  num_inference_steps: null,
  guidance_scale: null,
  scheduler: "",
  scheduler_options: {},
  strength: null,
  clip_skip: null,
  eta: null,
  guidance_rescale: null,
  loras: [],
  vae: "",
  refiner: null,
  hires: null,
  controlnets: [],
  ip_adapter: null,
  start: null,
  mask: null,
};

const MAX_UNDO = 50;

export const form = stored("form", EMPTY, (kept) => ({ ...EMPTY, ...kept }));

/** The prompts of the jobs that were sent, newest first. */
export const promptHistory = stored("prompts", /** @type {string[]} */ ([]));

/** What the service said of a field, by the field's name; cleared when the field changes. */
export const fieldErrors = signal(/** @type {Record<string, string>} */ ({}));

/** @type {Form[]} */
const undoStack = [];

/** The mode of the form. */
export const mode = computed(() => modeOf(form.value));

/** txt2img, img2img or inpaint. @param {Form} fields */
export function modeOf({ start, mask }) {
  if (start === null) return "txt2img";
  return mask === null ? "img2img" : "inpaint";
}

/**
 * Change fields as the user types; such a change is its own undo.
 * @param {Partial<Form>} fields
 */
export function change(fields) {
  form.value = { ...form.value, ...fields };
  const errors = { ...fieldErrors.value };
  for (const field of Object.keys(fields)) delete errors[field];
  if (fields.start !== undefined) delete errors["image"];
  fieldErrors.value = errors;
}

/**
 * Overwrite several fields at once, with an Undo.
 * @param {Partial<Form>} fields
 * @param {string} text what has happened, such as "All settings of the image are in the form."
 */
export function overwrite(fields, text) {
  undoStack.push(form.value);
  if (undoStack.length > MAX_UNDO) undoStack.shift();
  change(fields);
  notify(text, { act: { label: "Undo", act: undoForm }, group: "form" });
}

export function undoForm() {
  const previous = undoStack.pop();
  if (previous === undefined) return;
  form.value = previous;
  fieldErrors.value = {};
  announce("The form is as it was before.");
}

/** @param {string} prompt */
export function rememberPrompt(prompt) {
  const others = promptHistory.value.filter((each) => each !== prompt);
  promptHistory.value = [prompt, ...others].slice(0, 100);
}

/** The blobs that the form and its history use. */
export function blobsInUse() {
  const ids = new Set();
  for (const each of [form.value, ...undoStack]) {
    for (const ref of [each.start, each.ip_adapter?.image, ...each.controlnets.map((net) => net.image)]) {
      if (ref) ids.add(ref.blob);
    }
    if (each.mask) ids.add(each.mask);
  }
  return ids;
}
