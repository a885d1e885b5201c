// Short messages at the edge of the page, their Undo, and the live region for screen readers.
import { signal } from "../vendor/preact.js";

/** @typedef {{label: string, act: () => void}} Act */
/** @typedef {{id: number, text: string, kind: "info" | "error", act?: Act, group?: string}} Notice */

const INFO_MS = 5_000;
const ACT_MS = 10_000;

export const notices = signal(/** @type {Notice[]} */ ([]));
export const announcement = signal("");

let nextId = 1;

/**
 * Show a message. One with an act stays longer; an error stays until it is closed.
 * @param {string} text
 * @param {{kind?: "info" | "error", act?: Act, group?: string}} [options] a message replaces
 *   the earlier one of its group
 */
export function notify(text, { kind = "info", act, group } = {}) {
  const id = nextId++;
  const others = notices.value.filter((each) => each.text !== text && (!group || each.group !== group));
  notices.value = [...others.slice(-3), { id, text, kind, act, group }];
  announce(text);
  if (kind === "info") setTimeout(() => dismiss(id), act ? ACT_MS : INFO_MS);
}

/** @param {number} id */
export function dismiss(id) {
  notices.value = notices.value.filter((each) => each.id !== id);
}

/** Say something to screen readers only. @param {string} text */
export function announce(text) {
  announcement.value = announcement.value === text ? `${text}\u00a0` : text;
}

/** Show why something failed. @param {unknown} error */
export function notifyError(error) {
  const text = error instanceof Error ? error.message : String(error);
  notify(`${text[0]?.toUpperCase() ?? ""}${text.slice(1)}`, { kind: "error" });
}
