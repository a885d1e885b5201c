// The search box and its chips. The text is the whole truth; chips only write into it.
import { html, signal, useEffect } from "../vendor/preact.js";
import { counted } from "../lib/format.js";
import { announce } from "../state/notices.js";
import { usableModels } from "../state/models.js";
import { query, search, total } from "../state/results.js";
import { Icon } from "../ui/icon.js";
import { IconButton } from "../ui/controls.js";
import { parseQuery, withFilter } from "./query_text.js";

export const searchText = signal("");
const DELAY_MS = 220;
const DAY_MS = 86_400_000;

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** @param {string} text @param {{now?: boolean}} [options] */
export function setSearch(text, { now = false } = {}) {
  searchText.value = text;
  clearTimeout(timer);
  const run = () => search(parseQuery(text));
  if (now) run();
  else timer = setTimeout(run, DELAY_MS);
}

/** @param {number} days */
function daysAgo(days) {
  const day = new Date(Date.now() - days * DAY_MS);
  return `${day.getFullYear()}-${String(day.getMonth() + 1).padStart(2, "0")}-${String(day.getDate()).padStart(2, "0")}`;
}

export function SearchBar() {
  const text = searchText.value;
  const filters = query.value;
  useEffect(() => {
    if (total.value !== null && text) announce(`The search found ${counted(total.value, "image")}.`);
  }, [total.value]);
  /** @param {string} name @param {string} value */
  const set = (name, value) => setSearch(withFilter(text, name, value), { now: true });
  return html`<search class="search-bar">
    <form class="search-box" onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault();
      setSearch(text, { now: true });
    }}>
      <${Icon} name="Search" size=${17} />
      <label class="visually-hidden" for="search">Search images</label>
      <input id="search" type="search" autocomplete="off" spellcheck=${false} value=${text}
        placeholder="Words, or model:xl seed:7 size:512x768 lora:ink after:2026-11-01"
        onInput=${(/** @type {any} */ event) => setSearch(event.target.value)} />
      ${text && html`<${IconButton} icon="X" label="Clear the search" class="tiny" onClick=${() => setSearch("", { now: true })} />`}
    </form>
    <div class="chips" role="group" aria-label="Filters">
      <${Chip} label="Starred" isOn=${filters.star === "true"} onToggle=${(/** @type {boolean} */ on) => set("star", on ? "true" : "")} />
      <${Chip} label="Today" isOn=${filters.after === daysAgo(0)} onToggle=${(/** @type {boolean} */ on) => set("after", on ? daysAgo(0) : "")} />
      <${Chip} label="7 days" isOn=${filters.after === daysAgo(6)} onToggle=${(/** @type {boolean} */ on) => set("after", on ? daysAgo(6) : "")} />
      ${usableModels.value.length > 1 && usableModels.value.slice(0, 4).map(
        (name) => html`<${Chip} key=${name} label=${name} isOn=${filters.model === name}
          onToggle=${(/** @type {boolean} */ on) => set("model", on ? name : "")} />`,
      )}
      <${Chip} label="Failed" isOn=${filters.failed === "true"} onToggle=${(/** @type {boolean} */ on) => set("failed", on ? "true" : "")} />
      <${Chip} label="Trash" isOn=${filters.trash === "true"} onToggle=${(/** @type {boolean} */ on) => set("trash", on ? "true" : "")} />
      <span class="spacer"></span>
      <span class="muted small total">${total.value === null ? "" : counted(total.value, "image")}</span>
    </div>
  </search>`;
}

/** @param {{label: string, isOn: boolean, onToggle: (isOn: boolean) => void}} props */
function Chip({ label, isOn, onToggle }) {
  return html`<button type="button" class="chip" aria-pressed=${String(isOn)} onClick=${() => onToggle(!isOn)}>${label}</button>`;
}
