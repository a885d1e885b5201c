// What the service can do: its models, their fields, and the help of each field.
import { computed, signal } from "../vendor/preact.js";
import { Problem, get } from "../lib/api.js";
import { workers } from "./workers.js";

/**
 * @typedef {{pipeline?: string, modes?: string[], takes?: string[], loaded?: boolean,
 *   takes_by_mode?: Record<string, string[]>, strength?: Record<string, number>,
 *   schedulers?: string[], defaults?: Record<string, any>, error?: string}} Model
 * @typedef {{default?: string, models: Record<string, Model>, loras?: string[],
 *   embeddings?: string[], vaes?: string[], refiners?: string[], upscalers?: string[],
 *   controlnets?: string[], ip_adapters?: string[], aliases?: any,
 *   embedding_words?: Record<string, {word: string}>}} Capabilities
 * @typedef {{type?: string, default?: any, minimum?: number, maximum?: number,
 *   multiple_of?: number, help?: string}} FieldHelp
 */

/** @type {Capabilities} */
const NOTHING = { models: {} };

export const capabilities = signal(NOTHING);
export const fieldHelp = signal(/** @type {Record<string, FieldHelp>} */ ({}));
export const isDescribed = signal(false);

export async function loadModels() {
  try {
    capabilities.value = { models: {}, ...(await get("server/models")) };
    isDescribed.value = true;
  } catch (error) {
    // 503 until a worker has described itself; the event `workers` comes when it has.
    if (!(error instanceof Problem)) throw error;
  }
}

export async function loadFields() {
  try {
    const reply = await get("server/fields");
    fieldHelp.value = reply.fields ?? reply;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
}

export const usableModels = computed(() =>
  Object.entries(capabilities.value.models)
    .filter(([, model]) => !model.error)
    .map(([name]) => name),
);

/**
 * @param {string} name empty for the service's own
 * @returns {Model}
 */
export function modelNamed(name) {
  const { models, default: own } = capabilities.value;
  return models[name || own || ""] ?? {};
}

/**
 * Whether a model takes a field in a mode. What a description leaves out is not ruled out.
 * @param {Model} model
 * @param {string} mode
 * @param {string} field
 */
export function takes(model, mode, field) {
  const fields = model.takes_by_mode?.[mode] ?? model.takes;
  return fields === undefined ? !OPTIONAL.has(field) : fields.includes(field);
}

/** Fields that a model without a description is not offered. */
const OPTIONAL = new Set([
  ...["clip_skip", "eta", "guidance_rescale", "loras", "vae", "refiner", "hires", "embeddings"],
  ...["controlnets", "ip_adapter"],
]);

/**
 * @param {Model} model
 * @returns {string[]}
 */
export function modesOf(model) {
  return model.modes ?? ["txt2img", "img2img", "inpaint"];
}

const SDXL = /XL|Flux|Stable ?Diffusion3|Chroma|Qwen|Sana|Kolors|PixArt|Lumina|HiDream|AuraFlow/;

/** The model of a request that names none; a worker names it before it has described itself. */
export const defaultModel = computed(() => capabilities.value.default ?? workers.value.find((each) => each.model)?.model ?? "");

/** The side of the square that a model draws best, in pixels. @param {string} name */
export function nativeSide(name) {
  const model = modelNamed(name);
  const own = model.defaults?.width;
  if (own) return Number(own);
  if (isDemo(name)) return 64;
  return SDXL.test(model.pipeline ?? "") ? 1024 : 512;
}

/** Whether the model is the built-in one. @param {string} name */
export function isDemo(name) {
  return (name || defaultModel.value) === "demo";
}
