// Builds the request of POST /image/generate from the form.
import { base64Of, getBlob } from "../lib/blobs.js";
import { modeOf } from "./form.js";
import { capabilities, modelNamed, takes } from "./models.js";

/** @typedef {import("./form.js").Form} Form */

const PLAIN = [
  ...["negative_prompt", "model", "width", "height", "seed", "num_inference_steps"],
  ...["guidance_scale", "scheduler", "clip_skip", "eta", "guidance_rescale", "vae"],
];
const ALWAYS = new Set(["model", "width", "height", "seed", "num_inference_steps", "scheduler"]);

/**
 * The request's JSON. A field that the model does not take in this mode stays in the form alone.
 * @param {Form} form
 * @returns {Promise<Record<string, any>>}
 */
export async function requestOf(form) {
  const mode = modeOf(form);
  const model = modelNamed(form.model);
  /** @param {string} field */
  const isTaken = (field) => ALWAYS.has(field) || takes(model, mode, field);
  /** @type {Record<string, any>} */
  const request = { prompt: form.prompt, num_images_per_prompt: form.num_images_per_prompt };
  for (const name of PLAIN) {
    const value = form[/** @type {keyof Form} */ (name)];
    if (value !== null && value !== "" && isTaken(name)) request[name] = value;
  }
  if (form.model && form.model === capabilities.value.default) delete request.model;
  if (Object.keys(form.scheduler_options).length && isTaken("scheduler_options")) {
    request.scheduler_options = form.scheduler_options;
  }
  for (const name of /** @type {const} */ (["loras", "refiner", "hires"])) {
    const value = form[name];
    const isEmpty = value === null || (Array.isArray(value) && value.length === 0);
    if (!isEmpty && isTaken(name)) request[name] = value;
  }
  if (form.start !== null) {
    request.image = await dataOf(form.start.blob);
    if (form.mask !== null) request.mask_image = await dataOf(form.mask);
    if (form.strength !== null) request.strength = form.strength;
  }
  await addGuides(request, form, isTaken);
  return request;
}

/**
 * @param {Record<string, any>} request
 * @param {Form} form
 * @param {(field: string) => boolean} isTaken
 */
async function addGuides(request, form, isTaken) {
  const nets = form.controlnets.filter((net) => net.image !== null);
  if (nets.length && isTaken("controlnets")) {
    request.controlnets = await Promise.all(
      nets.map(async (net) => ({ ...net, image: await dataOf(net.image?.blob ?? "") })),
    );
  }
  if (form.ip_adapter?.image && isTaken("ip_adapter")) {
    const { name, image, scale } = form.ip_adapter;
    request.ip_adapter = { name, scale, image: await dataOf(image.blob) };
  }
}

/** @param {string} id */
async function dataOf(id) {
  const blob = await getBlob(id);
  if (blob === null) throw new Error("This browser no longer has the image. Choose it again.");
  return base64Of(blob);
}
