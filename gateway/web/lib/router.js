// The view that the address names: #make, #gallery, #picture/UUID-2, #compare/A/B, #grid, #server.
import { signal } from "../vendor/preact.js";

/** @typedef {{view: string, args: string[]}} Route */

export const VIEWS = ["make", "gallery", "picture", "compare", "grid", "server"];

/** @returns {Route} */
function read() {
  const [view, ...args] = location.hash.slice(1).split("/").map(safeDecode);
  return VIEWS.includes(view) ? { view, args } : { view: "make", args: [] };
}

/** @param {string} text */
function safeDecode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const route = signal(read());

addEventListener("hashchange", () => {
  route.value = read();
});

/**
 * Show another view.
 * @param {string} hash without #
 * @param {{replace?: boolean}} [options]
 */
export function go(hash, { replace = false } = {}) {
  if (replace) {
    history.replaceState(null, "", `#${hash}`);
    route.value = read();
  } else {
    location.hash = hash;
  }
}
