// The grid that was started last: its cells, which fill as their jobs end. It outlives a reload.
import { computed, effect } from "../vendor/preact.js";
import { Problem, get } from "../lib/api.js";
import { randomId, randomSeed } from "../lib/random.js";
import { stored } from "../lib/storage.js";
import { submit } from "../state/drawing.js";
import { form } from "../state/form.js";
import { cancelJob, isActive, jobs, updateJob } from "../state/jobs.js";
import { requestOf } from "../state/request.js";

/**
 * A cell whose `uuid` is null is not sent yet. `end` is how its job ended, "failed" where it was
 * refused, and "gone" where the service no longer knows the job. The table of jobs forgets.
 * @typedef {{uuid: string | null, end: string | null}} Cell
 * @typedef {{batch: string, prompt: string, columnLabel: string, rowLabel: string,
 *   columns: string[], rows: string[], cells: Cell[]}} Grid
 */

export const grid = stored("grid", /** @type {Grid | null} */ (null));
export const settings = stored("grid-settings", {
  columnField: "seed",
  columnText: "1..3",
  rowField: "guidance_scale",
  rowText: "2, 4, 8",
});

/** How many cells have ended. */
export const doneCount = computed(
  () => grid.value?.cells.filter((cell) => !isActive(stateOf(cell))).length ?? 0,
);

/** @param {Cell} cell */
export function stateOf(cell) {
  const job = cell.uuid === null ? undefined : jobs.value.get(cell.uuid);
  return job?.state ?? cell.end ?? "queued";
}

effect(() => {
  const shown = grid.value;
  const cells = shown?.cells.map((cell) => (isActive(stateOf(cell)) ? cell : withEnd(cell, stateOf(cell)))) ?? [];
  if (shown && cells.some((cell, index) => cell !== shown.cells[index])) grid.value = { ...shown, cells };
});

/** @param {Cell} cell @param {string} end @returns {Cell} the same one where nothing differs */
function withEnd(cell, end) {
  return cell.end === end ? cell : { ...cell, end };
}

/** Ask the service for the jobs that the table does not have, as after a reload. */
export async function lookUpCells() {
  const { batch, cells } = grid.value ?? { batch: "", cells: [] };
  for (const [index, cell] of cells.entries()) {
    if (cell.uuid === null || cell.end || jobs.value.has(cell.uuid)) continue;
    try {
      updateJob(await get(`image/jobs/${cell.uuid}`));
    } catch (error) {
      const isGone = error instanceof Problem && (error.status === 404 || error.status === 410);
      if (isGone && grid.value?.batch === batch) setCell(index, { ...cell, end: "gone" });
    }
  }
}

/**
 * @param {import("./plan.js").Axis} columns
 * @param {import("./plan.js").Axis | null} rows
 * @param {import("./plan.js").Plan[]} plan
 */
export async function startGrid(columns, rows, plan) {
  const batch = `grid-${randomId().slice(0, 12)}`;
  grid.value = {
    batch,
    prompt: form.value.prompt,
    columnLabel: columns.label,
    rowLabel: rows?.label ?? "",
    columns: columns.values.map(String),
    rows: rows ? rows.values.map(String) : [""],
    cells: plan.map(() => ({ uuid: null, end: null })),
  };
  // All cells share a seed where it is no axis, so that only the axes differ.
  const seed = form.value.seed ?? randomSeed();
  for (const [index, { changes }] of plan.entries()) {
    const body = await requestOf({ ...form.value, seed, num_images_per_prompt: 1, ...changes });
    const uuid = await submit({ batch_id: batch, ...body });
    if (grid.value?.batch !== batch) return;
    if (uuid === null) {
      refuseFrom(index);
      return;
    }
    setCell(index, { uuid, end: null });
  }
}

/** A cell was refused. The service would refuse those after it as well. @param {number} first */
function refuseFrom(first) {
  if (grid.value === null) return;
  const cells = grid.value.cells.map((cell, at) => (at < first ? cell : withEnd(cell, "failed")));
  grid.value = { ...grid.value, cells };
}

/** @param {number} index @param {Cell} cell */
function setCell(index, cell) {
  if (grid.value === null) return;
  const cells = grid.value.cells.map((each, at) => (at === index ? cell : each));
  grid.value = { ...grid.value, cells };
}

export async function cancelGrid() {
  for (const cell of grid.value?.cells ?? []) {
    if (cell.uuid && isActive(stateOf(cell))) await cancelJob(cell.uuid);
  }
}
