// Loads the code of a view when it is shown for the first time.
import { html, useEffect, useState } from "../vendor/preact.js";
import { notifyError } from "../state/notices.js";

/** @type {Map<string, Promise<void>>} */
const sheets = new Map();

/**
 * Add a style sheet to the page once, and wait for it.
 * @param {string} name
 */
function loadStyle(name) {
  const known = sheets.get(name);
  if (known) return known;
  const loading = new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = new URL(`../styles/${name}.css`, import.meta.url).href;
    link.onload = () => resolve();
    link.onerror = reject;
    document.head.append(link);
  });
  sheets.set(name, loading);
  return loading;
}

/**
 * @param {{load: () => Promise<any>, name: string, style?: string, [prop: string]: any}} props
 */
export function Lazy({ load, name, style, ...props }) {
  const [View, setView] = useState(/** @type {any} */ (null));
  useEffect(() => {
    let isLive = true;
    Promise.all([load(), style && loadStyle(style)])
      .then(([module]) => isLive && setView(() => module[name]))
      .catch(() => notifyError(new Error("This part of the page cannot be loaded. Reload the page.")));
    return () => {
      isLive = false;
    };
  }, [name]);
  return View ? html`<${View} ...${props} />` : html`<div class="view-loading" aria-busy="true"></div>`;
}
