// The keys of the page, and the list of them. Letters are silent while the user types.
import { html, signal } from "../vendor/preact.js";
import { tinykeys } from "../vendor/tinykeys.js";
import { go, route } from "../lib/router.js";
import { draw } from "../state/drawing.js";
import { Dialog } from "./controls.js";

export const isHelpOpen = signal(false);

/** @typedef {{keys: string, text: string}} Shortcut */

/** @type {[string, Shortcut[]][]} */
const LIST = [
  ["Everywhere", [
    { keys: "M", text: "Make" },
    { keys: "G", text: "Gallery" },
    { keys: "/", text: "Search" },
    { keys: "?", text: "This list" },
    { keys: "Esc", text: "Close, or cancel (asks first)" },
  ]],
  ["Make", [
    { keys: "Ctrl Enter", text: "Draw" },
    { keys: "Ctrl ↑  Ctrl ↓", text: "More or less weight for the selected words" },
    { keys: "↑", text: "Earlier prompts, in an empty box" },
    { keys: "Ctrl Z", text: "Undo what a button changed in the form (outside of text)" },
  ]],
  ["Gallery", [
    { keys: "← ↑ → ↓  Home  End", text: "Move" },
    { keys: "Enter", text: "Open" },
    { keys: "Space", text: "Select; with Shift up to here" },
    { keys: "S  Del", text: "Star, delete" },
    { keys: "C", text: "Compare two" },
  ]],
  ["Image", [
    { keys: "← →", text: "Newer, older; in Make too" },
    { keys: "+ −  0", text: "Zoom, fit" },
    { keys: "U", text: "Use all its settings" },
    { keys: "V", text: "Vary: the same with another seed" },
    { keys: "S  D  C  Del", text: "Star, download, compare, delete" },
  ]],
  ["Mask", [
    { keys: "B  E  H", text: "Brush, eraser, hand" },
    { keys: "[  ]", text: "Brush size" },
    { keys: "Ctrl Z  Ctrl Y", text: "Undo, redo" },
    { keys: "Arrows  Space", text: "Move the brush, paint with it" },
  ]],
];

export function ShortcutList() {
  return html`<${Dialog} title="Keyboard" isOpen=${isHelpOpen.value} onClose=${() => (isHelpOpen.value = false)}
    class="keys-dialog">
    <div class="keys">
      ${LIST.map(
        ([title, keys]) => html`<section key=${title}>
          <h3>${title}</h3>
          <dl>${keys.map((each) => html`<div><dt>${each.keys.split(/  /).map((key) => html`<kbd>${key}</kbd>`)}</dt><dd>${each.text}</dd></div>`)}</dl>
        </section>`,
      )}
    </div>
  <//>`;
}

/** @param {Event} event */
function isTyping(event) {
  const target = /** @type {HTMLElement} */ (event.composedPath()[0] ?? event.target);
  return (
    target instanceof HTMLTextAreaElement ||
    target instanceof HTMLSelectElement ||
    (target instanceof HTMLInputElement && !["range", "checkbox", "radio", "button"].includes(target.type))
  );
}

/**
 * Bind keys that are silent while the user types or a dialog is open.
 * @param {Record<string, (event: KeyboardEvent) => void>} bindings
 * @returns {() => void} what unbinds them
 */
export function bindKeys(bindings) {
  const quiet = Object.entries(bindings).map(([keys, act]) => [
    keys,
    (/** @type {KeyboardEvent} */ event) => {
      if (isTyping(event) || document.querySelector("dialog[open]")) return;
      act(event);
    },
  ]);
  return tinykeys(window, Object.fromEntries(quiet));
}

export function bindGlobalKeys() {
  tinykeys(window, {
    "$mod+Enter": (event) => {
      if (document.querySelector("dialog[open]")) return;
      event.preventDefault();
      if (route.value.view === "make") void draw();
    },
  });
  bindKeys({
    m: () => go("make"),
    g: () => go("gallery"),
    "Shift+?": () => (isHelpOpen.value = true),
    "?": () => (isHelpOpen.value = true),
    "/": (event) => {
      event.preventDefault();
      go("gallery");
      requestAnimationFrame(() => setTimeout(() => document.getElementById("search")?.focus(), 60));
    },
  });
}
