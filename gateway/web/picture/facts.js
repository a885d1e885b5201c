// The settings of an image: the prompt, the ones that people read, and everything else folded.
import { html } from "../vendor/preact.js";
import { bytes, moment, seconds, valueText } from "../lib/format.js";
import { samplerLabel } from "../state/samplers.js";
import { IconButton } from "../ui/controls.js";
import { copyText } from "../lib/clipboard.js";
import { notify } from "../state/notices.js";

/** @param {{record: Record<string, any>}} props */
export function Facts({ record }) {
  const lines = mainFacts(record);
  return html`<div class="facts">
    <${CopyableText} label="Prompt" text=${record.prompt} />
    ${record.negative_prompt && html`<${CopyableText} label="Negative prompt" text=${record.negative_prompt} />`}
    ${record.warnings?.map((/** @type {string} */ text) => html`<p class="warning small">${text}</p>`)}
    ${record.prompt_cut && html`<p class="warning small">The model did not read the end of the prompt: “${record.prompt_cut}”</p>`}
    <dl class="fact-list">
      ${lines.map(([label, text]) => html`<div key=${label}><dt>${label}</dt><dd>${text}</dd></div>`)}
    </dl>
    <details class="section"><summary>Everything</summary>
      <dl class="fact-list all">
        ${everything(record).map(([key, value]) => html`<div key=${key}><dt>${key}</dt><dd>${value}</dd></div>`)}
      </dl>
    </details>
  </div>`;
}

/** @param {{label: string, text: string}} props */
function CopyableText({ label, text }) {
  return html`<section class="fact-text">
    <div class="field-head"><h2>${label}</h2><span class="spacer"></span>
      <${IconButton} icon="Link" label=${`Copy the ${label.toLowerCase()}`} class="tiny"
        onClick=${async () => notify((await copyText(text)) ? "Copied." : "This browser does not allow copying here.")} /></div>
    <p>${text}</p>
  </section>`;
}

/** The eight settings that people read. @param {Record<string, any>} record @returns {[string, string][]} */
function mainFacts(record) {
  /** @type {[string, any][]} */
  const lines = [
    ["Seed", record.seed],
    ["Model", record.model],
    ["Size", record.width ? `${record.width} × ${record.height}` : null],
    ["Steps", record.num_inference_steps],
    ["Guidance", record.guidance_scale],
    ["Sampler", samplerLabel(record.scheduler)],
    ["Strength", record.image ? record.strength : null],
    ["LoRAs", record.loras?.map((/** @type {any} */ each) => `${each.name} ${each.weight}`).join(", ")],
    ["Upscaled", record.upscale ? `${record.upscale.scale} × by ${record.upscale.upscaler}` : null],
    ["Made", `${moment(record.created_time)}${record.seconds ? `, in ${seconds(record.seconds)}` : ""}`],
    ["By", record.client_name ?? record.owner],
  ];
  return lines
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([label, value]) => [label, valueText(value)]);
}

const HIDDEN = new Set(["prompt", "negative_prompt", "data", "crc32", "errors", "request"]);

/** What was asked for comes first, because it differs from the default. @param {Record<string, any>} record @returns {[string, string][]} */
function everything(record) {
  const asked = Object.keys(record.request ?? {});
  const rest = Object.keys(record).filter((key) => !asked.includes(key) && !HIDDEN.has(key));
  return [...asked.filter((key) => !HIDDEN.has(key)), ...rest]
    .filter((key) => record[key] !== null && record[key] !== undefined)
    .map((key) => [key, key.endsWith("_bytes") ? bytes(record[key]) : valueText(record[key])]);
}
