// Keeps small values in localStorage. A browser that refuses it loses only the memory.
import { effect, signal } from "../vendor/preact.js";

const PREFIX = "sde.";
const DELAY_MS = 150;

/**
 * @template T
 * @param {string} name
 * @param {T} fallback
 * @returns {T}
 */
export function load(name, fallback) {
  try {
    const text = localStorage.getItem(PREFIX + name);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}

/**
 * @param {string} name
 * @param {unknown} value
 */
export function save(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // A full or forbidden storage: the page works without it.
  }
}

/**
 * A signal that outlives a reload.
 * @template T
 * @param {string} name
 * @param {T} initial
 * @param {(stored: T) => T} [restore] repairs what an earlier version of the page stored
 * @returns {import("../vendor/preact.js").Signal<T>}
 */
export function stored(name, initial, restore = (value) => value) {
  const value = signal(restore(load(name, initial)));
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const write = () => {
    timer = undefined;
    save(name, value.peek());
  };
  let isFirst = true;
  effect(() => {
    void value.value;
    if (isFirst) {
      isFirst = false;
      return;
    }
    if (timer === undefined) timer = setTimeout(write, DELAY_MS);
  });
  addEventListener("pagehide", () => {
    if (timer !== undefined) {
      clearTimeout(timer);
      write();
    }
  });
  return value;
}
