// The workers: which model is in memory, what loads, and how fast a step is.
import { computed, signal } from "../vendor/preact.js";

/**
 * @typedef {{worker: string, state: string, model: string | null, loaded: string | null,
 *   load_error: string | null, device: string | null, dtype: string | null,
 *   machine_size: string | null, memory_bytes: number | null,
 *   versions: Record<string, string> | null, uuid: string | null, step: number | null,
 *   steps: number | null, step_s: number | null, trouble: string | null,
 *   last_error: string | null, restarts: number, gpu_memory_bytes: number | null,
 *   gpu_memory_total_bytes: number | null}} Worker
 */

export const workers = signal(/** @type {Worker[]} */ ([]));

export const loadingWorker = computed(() => {
  const ready = workers.value.some((each) => ["idle", "busy"].includes(each.state));
  return ready ? null : (workers.value.find((each) => each.state === "loading") ?? null);
});

/** When a worker was first seen loading, in milliseconds. @type {Map<string, number>} */
const loadingSince = new Map();

/** @param {Worker[]} list */
export function takeWorkerList(list) {
  for (const { worker, state } of list) {
    if (state !== "loading") loadingSince.delete(worker);
    else if (!loadingSince.has(worker)) loadingSince.set(worker, Date.now());
  }
  workers.value = list;
}

/** How long a worker has been loading, as far as this page has seen it. @param {Worker} worker */
export function loadingSeconds(worker) {
  const since = loadingSince.get(worker.worker);
  return since === undefined ? null : (Date.now() - since) / 1000;
}

export const isUnreachable = computed(
  () => workers.value.length > 0
    && workers.value.every((each) => ["unreachable", "failed"].includes(each.state)),
);

/** Why no worker can draw: its model cannot be loaded, or its process cannot start. */
export const loadError = computed(() => {
  const broken = workers.value.find((each) => each.load_error || each.state === "failed");
  return broken?.load_error ?? broken?.last_error ?? null;
});

export const diskTrouble = signal(/** @type {string | null} */ (null));

/** Seconds a step, as last measured. */
export const stepSeconds = computed(
  () => workers.value.find((each) => each.step_s)?.step_s ?? null,
);
