// Two images: under a slider, side by side, or in turns; below, only the settings that differ.
import { html, useEffect, useState } from "../vendor/preact.js";
import { imageUrl } from "../lib/api.js";
import { moment, shortened, valueText } from "../lib/format.js";
import { go } from "../lib/router.js";
import { notifyError } from "../state/notices.js";
import { recordOf } from "../state/records.js";
import { differences } from "../state/verification.js";
import { Icon } from "../ui/icon.js";

const BLINK_MS = 700;
const LAYOUTS = /** @type {const} */ ([
  ["slider", "Slider"],
  ["side", "Side by side"],
  ["blink", "In turns"],
]);

/** @param {{args: string[]}} props */
export function CompareView({ args: [first = "", second = ""] }) {
  const [layout, setLayout] = useState(/** @type {"slider" | "side" | "blink"} */ ("slider"));
  const [records, setRecords] = useState(/** @type {Record<string, any>[]} */ ([]));
  useEffect(() => {
    setRecords([]);
    Promise.all([recordOf(first), recordOf(second)]).then(setRecords, notifyError);
  }, [first, second]);
  if (!first || !second) {
    return html`<div class="nothing"><h2>Choose two images</h2>
      <p class="muted">Select two in the gallery, then press Compare.</p><a class="button" href="#gallery">Open the gallery</a></div>`;
  }
  return html`<div class="page-view"><div class="page-body compare">
    <div class="page-head">
      <h1>Compare</h1><span class="spacer"></span>
      <div class="segments" role="group" aria-label="Layout">
        ${LAYOUTS.map(([value, label]) => html`<button key=${value} type="button" aria-pressed=${String(layout === value)} onClick=${() => setLayout(value)}>${label}</button>`)}
      </div>
      <button type="button" onClick=${() => go(`compare/${second}/${first}`, { replace: true })}><${Icon} name="Shuffle" size=${16} /> Swap</button>
    </div>
    ${layout === "slider" && html`<${Slider} first=${first} second=${second} records=${records} />`}
    ${layout === "side" && html`<div class="side-by-side">
      ${[first, second].map((name, index) => html`<a key=${name} href=${`#picture/${name}`}><img src=${imageUrl(name)} alt=${altOf(records[index], index)} /></a>`)}
    </div>`}
    ${layout === "blink" && html`<${Blink} names=${[first, second]} records=${records} />`}
    ${records.length === 2 && html`<${Differences} records=${records} />`}
  </div></div>`;
}

/** @param {Record<string, any> | undefined} record @param {number} index */
function altOf(record, index) {
  return `${index === 0 ? "First" : "Second"} image: ${record?.prompt ?? ""}`;
}

/** @param {{first: string, second: string, records: Record<string, any>[]}} props */
function Slider({ first, second, records }) {
  const [at, setAt] = useState(50);
  const ratio = records[0]?.width ? records[0].width / records[0].height : 1;
  return html`<div class="slider" style=${{ aspectRatio: String(ratio), width: `min(100%, calc(68vh * ${ratio}))` }}>
    <img src=${imageUrl(second)} alt=${altOf(records[1], 1)} draggable=${false} />
    <img src=${imageUrl(first)} alt=${altOf(records[0], 0)} draggable=${false} style=${{ clipPath: `inset(0 ${100 - at}% 0 0)` }} />
    <span class="slider-line" style=${{ left: `${at}%` }} aria-hidden="true"></span>
    <span class="slider-tag left" aria-hidden="true">first</span><span class="slider-tag right" aria-hidden="true">second</span>
    <input type="range" min="0" max="100" step="0.5" value=${at} aria-label="How much of the first image is shown"
      aria-valuetext=${`${Math.round(at)} percent`} onInput=${(/** @type {any} */ event) => setAt(Number(event.target.value))} />
  </div>`;
}

/** @param {{names: string[], records: Record<string, any>[]}} props */
function Blink({ names, records }) {
  const [at, setAt] = useState(0);
  const [isRunning, setRunning] = useState(!matchMedia("(prefers-reduced-motion: reduce)").matches);
  useEffect(() => {
    if (!isRunning) return undefined;
    const timer = setInterval(() => setAt((index) => 1 - index), BLINK_MS);
    return () => clearInterval(timer);
  }, [isRunning]);
  return html`<div class="blink">
    ${names.map((name, index) => html`<img key=${name} src=${imageUrl(name)} class=${index === at ? "" : "is-off"} alt=${altOf(records[index], index)} />`)}
    <div class="row center">
      <button type="button" onClick=${() => setRunning(!isRunning)}>${isRunning ? "Stop" : "Go on"}</button>
      <button type="button" onClick=${() => {
        setRunning(false);
        setAt(1 - at);
      }}>Show the ${at === 0 ? "second" : "first"}</button>
    </div>
  </div>`;
}

/** @param {{records: Record<string, any>[]}} props */
function Differences({ records: [one, other] }) {
  const list = differences(one, other);
  const isSame = one.pixels_sha256 && one.pixels_sha256 === other.pixels_sha256;
  return html`<section class="panel">
    <h2>${list.length === 0 ? "No setting differs" : "Settings that differ"}</h2>
    ${isSame && html`<p class="badge good"><${Icon} name="BadgeCheck" size=${18} /><span>The pixels are identical.</span></p>`}
    ${list.length > 0 && html`<div class="table-scroll" tabindex="0" role="region" aria-label="Settings that differ"><table class="table">
      <thead><tr><th scope="col">Setting</th><th scope="col">First, ${moment(one.created_time)}</th><th scope="col">Second, ${moment(other.created_time)}</th></tr></thead>
      <tbody>${list.map(([key, then, now]) => html`<tr key=${key}><th scope="row">${key}</th><td>${shortened(valueText(then), 300)}</td><td>${shortened(valueText(now), 300)}</td></tr>`)}</tbody>
    </table></div>`}
  </section>`;
}
