// Reads the settings of a PNG: our own record, or A1111's `parameters` text.

const RECORD = "stable-diffusion-environment";
const LORA = /<lora:([^:>]+):([-\d.]+)>/g;
const PAIR = /\s*([\w ]+):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)/g;

/**
 * Return the settings in a PNG's texts by the names of a request; null without any.
 * @param {Map<string, string>} texts
 * @returns {Record<string, any> | null}
 */
export function settingsOf(texts) {
  const record = texts.get(RECORD);
  if (record !== undefined) {
    try {
      return JSON.parse(record);
    } catch {
      return null;
    }
  }
  const parameters = texts.get("parameters");
  return parameters === undefined ? null : parseInfotext(parameters);
}

/**
 * @param {string} text
 * @returns {Record<string, any>}
 */
export function parseInfotext(text) {
  const lines = text.trim().split("\n");
  const hasPairs = /^\s*Steps:/.test(lines.at(-1) ?? "");
  const pairs = new Map();
  if (hasPairs) {
    for (const [, key, value] of (lines.pop() ?? "").matchAll(PAIR)) {
      pairs.set(key.trim(), value.trim().replace(/^"|"$/g, ""));
    }
  }
  const body = lines.join("\n");
  const [prompt, negative = ""] = body.split(/^Negative prompt:/m);
  const loras = [...prompt.matchAll(LORA)].map(([, name, weight]) => ({ name, weight: Number(weight) }));
  const [width, height] = (pairs.get("Size") ?? "").split("x").map(Number);
  return withoutEmpty({
    prompt: prompt.replace(LORA, "").trim(),
    negative_prompt: negative.trim(),
    num_inference_steps: number(pairs.get("Steps")),
    guidance_scale: number(pairs.get("CFG scale")),
    seed: number(pairs.get("Seed")),
    width: width || null,
    height: height || null,
    strength: number(pairs.get("Denoising strength")),
    clip_skip: (number(pairs.get("Clip skip")) ?? 1) - 1 || null,
    scheduler: [pairs.get("Sampler"), pairs.get("Schedule type")].filter(isNamed).join(" "),
    model: pairs.get("Model"),
    loras,
  });
}

/** @param {string | undefined} name */
function isNamed(name) {
  return name !== undefined && name !== "" && name !== "Automatic";
}

/** @param {string | undefined} text */
function number(text) {
  return text === undefined || text === "" || Number.isNaN(Number(text)) ? null : Number(text);
}

/** @param {Record<string, any>} values */
function withoutEmpty(values) {
  return Object.fromEntries(
    Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== ""),
  );
}
