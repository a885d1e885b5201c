// The stored images: the newest ones, and the whole list of the gallery by position.
import { batch, computed, signal } from "../vendor/preact.js";
import { Problem, get } from "../lib/api.js";

/**
 * @typedef {{name: string, uuid: string, image_index: number, num_images: number, state: string,
 *   created_time: string, ended_time: string, prompt: string, negative_prompt: string,
 *   model: string | null, seed: number | null, width: number | null, height: number | null,
 *   num_inference_steps: number | null, guidance_scale: number | null, scheduler: string | null,
 *   star: boolean, trashed_time: string | null, errors: string[], seconds: number | null,
 *   owner?: string | null, batch_id?: string | null, client_name?: string | null}} Item
 * @typedef {Record<string, string>} Query
 */

export const PAGE = 100;
const NEWEST = 40;

export const newest = signal(/** @type {Item[]} */ ([]));
export const isNewestLoaded = signal(false);

/** Names that appeared since the page was last looked at, marked until they are opened. */
export const unseen = signal(/** @type {Set<string>} */ (new Set()));

export const query = signal(/** @type {Query} */ ({}));
export const total = signal(/** @type {number | null} */ (null));
export const days = signal(/** @type {[string, number][]} */ ([]));
export const galleryError = signal(/** @type {string | null} */ (null));

/** @type {import("../vendor/preact.js").Signal<Map<number, Item[]>>} */
const pages = signal(new Map());
/** @type {Set<number>} */
let wanted = new Set();
let round = 0;

/** What is asked of the service: pictures only, unless failures are wanted. */
const filters = computed(() => {
  const { failed, ...rest } = query.value;
  return { state: failed ? "failed,canceled" : "succeeded", ...rest };
});

/** Changes that a reply may not know yet, because it was on its way. @type {Map<string, {fields: Partial<Item>, at: number}>} */
const changes = new Map();
const CHANGES_MS = 30_000;

/**
 * Fetch a part of the list, with the changes that were made since it was asked for.
 * @param {Record<string, string | number>} filter
 * @returns {Promise<{total: number, results: Item[]}>}
 */
async function fetchItems(filter) {
  const begun = Date.now();
  const reply = await get("image/results", filter);
  for (const [name, { at }] of changes) if (at < begun - CHANGES_MS) changes.delete(name);
  const results = reply.results.map((/** @type {Item} */ item) => {
    const change = changes.get(item.name);
    return change && change.at >= begun ? { ...item, ...change.fields } : item;
  });
  return { ...reply, results };
}

/** @param {{isMissed?: boolean}} [options] whether new ones came while the page was not connected */
export async function loadNewest({ isMissed = false } = {}) {
  try {
    const reply = await fetchItems({ state: "succeeded", limit: NEWEST });
    const known = new Set(newest.value.map((item) => item.name));
    const added = reply.results.filter((/** @type {Item} */ item) => !known.has(item.name));
    batch(() => {
      if (isNewestLoaded.value && (document.hidden || isMissed)) {
        unseen.value = new Set([...unseen.value, ...added.map((/** @type {Item} */ each) => each.name)]);
      }
      newest.value = reply.results;
      isNewestLoaded.value = true;
    });
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    isNewestLoaded.value = true;
  }
}

/** @param {string} name */
export function markSeen(name) {
  if (!unseen.value.has(name)) return;
  const next = new Set(unseen.value);
  next.delete(name);
  unseen.value = next;
}

/** Search for something else. @param {Query} next */
export function search(next) {
  batch(() => {
    query.value = next;
    pages.value = new Map();
    total.value = null;
    days.value = [];
  });
  void reload();
}

/** Fetch the list again. The cells stay until their successors are there. */
export async function reload() {
  const mine = ++round;
  try {
    const [first, byDay] = await Promise.all([
      fetchItems({ ...filters.value, offset: 0, limit: PAGE }),
      get("image/results/days", filters.value).catch(() => ({ days: [] })),
    ]);
    if (mine !== round) return;
    const again = [...wanted].filter((page) => page > 0);
    wanted = new Set([0]);
    batch(() => {
      total.value = first.total;
      days.value = consistent(byDay.days, first.total);
      pages.value = new Map([...pages.value, [0, first.results]]);
      galleryError.value = null;
    });
    for (const page of again) void fetchPage(page);
  } catch (error) {
    if (mine !== round) return;
    galleryError.value = /** @type {Error} */ (error).message;
    if (total.value === null) total.value = 0;
  }
}

/**
 * Days that do not add up to the total, because a result came in between, lose their headings.
 * @param {[string, number][]} list
 * @param {number} count
 * @returns {[string, number][]}
 */
function consistent(list, count) {
  const sum = list.reduce((all, [, images]) => all + images, 0);
  return sum === count ? list : count ? [["", count]] : [];
}

/** @param {number} page */
async function fetchPage(page) {
  const mine = round;
  wanted.add(page);
  try {
    const reply = await fetchItems({ ...filters.value, offset: page * PAGE, limit: PAGE });
    if (mine !== round) return;
    pages.value = new Map([...pages.value, [page, reply.results]]);
  } catch {
    wanted.delete(page); // it is asked for again at the next scroll
  }
}

/** Make sure that the items of these positions are there or on their way. */
export function ensure(/** @type {number} */ first, /** @type {number} */ last) {
  for (let page = Math.floor(first / PAGE); page <= Math.floor(last / PAGE); page += 1) {
    if (!wanted.has(page)) void fetchPage(page);
  }
}

/** @param {number} position @returns {Item | undefined} */
export function itemAt(position) {
  return pages.value.get(Math.floor(position / PAGE))?.[position % PAGE];
}

/** @param {string} name @returns {number} its position in the list, or -1 */
export function positionOf(name) {
  for (const [page, items] of pages.value) {
    const index = items.findIndex((item) => item.name === name);
    if (index !== -1) return page * PAGE + index;
  }
  return -1;
}

/** @param {string} name @returns {Item | undefined} */
export function itemNamed(name) {
  const position = positionOf(name);
  return position === -1 ? newest.value.find((item) => item.name === name) : itemAt(position);
}

/**
 * Change items in place, before the service says so itself.
 * @param {string[]} names
 * @param {Partial<Item>} fields
 */
export function patchItems(names, fields) {
  const chosen = new Set(names);
  for (const name of names) changes.set(name, { fields, at: Date.now() });
  /** @param {Item} item */
  const patched = (item) => (chosen.has(item.name) ? { ...item, ...fields } : item);
  batch(() => {
    newest.value = newest.value.map(patched);
    pages.value = new Map([...pages.value].map(([page, items]) => [page, items.map(patched)]));
  });
}

/** Leave items out at once; the list is fetched again soon. @param {string[]} names */
export function dropItems(names) {
  const gone = new Set(names);
  newest.value = newest.value.filter((item) => !gone.has(item.name));
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let reloading;

/** Fetch the newest, and the gallery where it has been opened, once in a short while. */
export function resultsChanged() {
  clearTimeout(reloading);
  reloading = setTimeout(() => {
    void loadNewest();
    if (total.value !== null) void reload();
  }, 120);
}
