// The plan of a grid: which requests its two axes make of the form. It sends nothing.

/**
 * @typedef {{field: string, label: string, values: any[]}} Axis
 * @typedef {{changes: Record<string, any>}} Plan
 */

export const MAX_CELLS = 100;

/** What an axis can be over, and an example of its values. */
export const AXES = /** @type {const} */ ([
  { field: "seed", label: "Seed", hint: "1..4 or 7, 42, 99", kind: "whole" },
  { field: "num_inference_steps", label: "Steps", hint: "10, 20, 40", kind: "whole" },
  { field: "guidance_scale", label: "Guidance", hint: "3, 5, 7.5", kind: "number" },
  { field: "scheduler", label: "Sampler", hint: "", kind: "choice" },
  { field: "model", label: "Model", hint: "", kind: "choice" },
  { field: "strength", label: "Strength", hint: "0.3, 0.5, 0.7", kind: "number" },
  { field: "words", label: "Words of the prompt", hint: "red, green, blue (the first one must be in the prompt)", kind: "text" },
]);

/**
 * Read the values of an axis: numbers and ranges (1..4, 10..50..10), or words.
 * @param {string} kind
 * @param {string} text
 * @returns {any[]}
 */
export function parseValues(kind, text) {
  const parts = text.split(",").map((part) => part.trim()).filter(Boolean);
  if (kind === "text" || kind === "choice") return [...new Set(parts)];
  const numbers = parts.flatMap((part) => {
    const range = /^(-?[\d.]+)\.\.(-?[\d.]+?)(?:\.\.([\d.]+))?$/.exec(part);
    if (range === null) return [Number(part)];
    const [from, to, step] = [Number(range[1]), Number(range[2]), Number(range[3] ?? 1)];
    const count = Math.min(MAX_CELLS, Math.floor((to - from) / step) + 1);
    return step > 0 && count > 0 ? Array.from({ length: count }, (_, index) => +(from + index * step).toFixed(6)) : [];
  });
  const usable = numbers.filter((value) => Number.isFinite(value) && (kind !== "whole" || Number.isInteger(value)));
  return [...new Set(usable)];
}

/**
 * @param {Axis} columns
 * @param {Axis | null} rows
 * @param {string} prompt
 * @returns {Plan[]}
 */
export function planOf(columns, rows, prompt) {
  return (rows?.values ?? [null]).flatMap((row) =>
    columns.values.map((column) => {
      const changed = { ...changeOf(columns, column, prompt) };
      Object.assign(changed, rows && changeOf(rows, row, changed.prompt ?? prompt));
      return { changes: changed };
    }),
  );
}

/** @param {Axis} axis @param {any} value @param {string} prompt @returns {Record<string, any>} */
function changeOf(axis, value, prompt) {
  if (axis.field !== "words") return { [axis.field]: value };
  return { prompt: prompt.replaceAll(axis.values[0], value) };
}

/** Why a grid cannot be started; an empty text when it can. @param {Axis} columns @param {Axis | null} rows @param {string} prompt */
export function obstacle(columns, rows, prompt) {
  const axes = [columns, ...(rows ? [rows] : [])];
  if (prompt.trim() === "") return "The prompt is empty.";
  for (const axis of axes) {
    if (axis.values.length === 0) return `${axis.label} has no values yet.`;
    if (axis.field === "words" && !prompt.includes(axis.values[0])) return `The prompt does not contain “${axis.values[0]}”.`;
  }
  if (rows && rows.field === columns.field) return "Both axes are the same.";
  const count = columns.values.length * (rows?.values.length ?? 1);
  return count > MAX_CELLS ? `A grid has at most ${MAX_CELLS} images; this one would have ${count}.` : "";
}
