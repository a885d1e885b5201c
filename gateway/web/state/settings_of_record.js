// Turns the record of an image into fields of the form.
import { EMPTY, overwrite } from "./form.js";
import { capabilities, isDescribed, modelNamed } from "./models.js";
import { samplersOf } from "./samplers.js";

/** @typedef {import("./form.js").Form} Form */

const COPIED = [
  ...["negative_prompt", "model", "num_inference_steps", "guidance_scale", "seed"],
  ...["strength", "clip_skip", "eta", "guidance_rescale", "loras", "vae", "refiner", "hires"],
];

/**
 * Put the settings of a record into the form, with an Undo. What this service lacks stays out and is named.
 * @param {Record<string, any>} record
 * @param {string} text what has happened
 * @param {Partial<Form>} [further] fields that win
 */
export function useSettings(record, text, further = {}) {
  const { fields, missing } = withoutMissing({ ...settingsOfRecord(record), ...further });
  overwrite(fields, missing.length ? `${text} Not here, and left out: ${missing.join(", ")}.` : text);
}

/**
 * @param {Partial<Form>} fields
 * @returns {{fields: Partial<Form>, missing: string[]}}
 */
function withoutMissing(fields) {
  const known = capabilities.value;
  /** @type {string[]} */
  const missing = [];
  if (!isDescribed.value) return { fields, missing };
  const next = { ...fields };
  if (next.model && !known.models[next.model]) {
    missing.push(`the model ${next.model}`);
    next.model = "";
  }
  const classes = modelNamed(next.model ?? "").schedulers;
  const isKnown = classes && [...classes, ...samplersOf(classes).map((each) => each.value)];
  if (next.scheduler && isKnown && !isKnown.includes(next.scheduler)) {
    missing.push(`the sampler ${next.scheduler}`);
    next.scheduler = "";
  }
  const loras = next.loras ?? [];
  next.loras = loras.filter((each) => known.loras?.includes(each.name) ?? true);
  for (const each of loras) if (!next.loras.includes(each)) missing.push(`the LoRA ${each.name}`);
  return { fields: next, missing };
}

/**
 * The settings of a record, complete: what it does not name is back at its default.
 * A record of ours has `request`; another program's text has only what it says.
 * @param {Record<string, any>} record
 * @returns {Partial<Form>}
 */
function settingsOfRecord(record) {
  const sent = { ...record, ...(record.request ?? {}), seed: record.seed ?? null };
  const asked = record.request ?? record;
  /** @type {Record<string, any>} */
  const fields = {};
  for (const name of COPIED) {
    fields[name] = sent[name] ?? EMPTY[/** @type {keyof Form} */ (name)];
  }
  fields.prompt = record.prompt ?? "";
  fields.num_images_per_prompt = 1;
  fields.width = asked.width ?? (record.request ? null : (record.width ?? null));
  fields.height = asked.height ?? (record.request ? null : (record.height ?? null));
  if (record.request && !record.image && !record.hires) {
    fields.width = record.width ?? null;
    fields.height = record.height ?? null;
  }
  fields.scheduler = asked.scheduler ?? record.scheduler ?? "";
  fields.scheduler_options = asked.scheduler_options ?? {};
  if (fields.hires) fields.hires = { upscaler: "latent", strength: 0.6, ...fields.hires };
  if (!record.image) fields.strength = null;
  return fields;
}
