// Where to begin: three prompts that the model does well, and what it can and cannot.
import { html, useEffect, useState } from "../vendor/preact.js";
import { seconds } from "../lib/format.js";
import { draw } from "../state/drawing.js";
import { form, overwrite } from "../state/form.js";
import { defaultModel, isDemo, modelNamed } from "../state/models.js";
import { loadingSeconds, loadingWorker } from "../state/workers.js";
import { Icon } from "../ui/icon.js";

const DEMO_PROMPTS = [
  "a rocket on a blue background",
  "a pizza on a yellow background",
  "a strawberry on a green background",
];
const PROMPTS = [
  "a lighthouse on a cliff at dawn, soft light, mist over the sea, photograph",
  "a red fox in fresh snow, close-up, shallow depth of field",
  "a cosy reading room full of plants, watercolour and ink",
];

export function EmptyStage() {
  const isBuiltIn = isDemo(form.value.model);
  const prompts = isBuiltIn ? DEMO_PROMPTS : PROMPTS;
  const model = modelNamed(form.value.model);
  return html`<section class="stage empty" aria-label="Where to begin">
    <div class="empty-text">
      <${LoadingNote} />
      <h2>What would you like to see?</h2>
      <p class="muted">Say it in the prompt, then press Draw. Or begin with one of these:</p>
      <ul class="prompts-to-try">
        ${prompts.map((prompt) => html`<li key=${prompt}><button type="button" onClick=${() => {
          if (form.value.prompt.trim()) overwrite({ prompt }, "The prompt is replaced.");
          else form.value = { ...form.value, prompt };
          void draw();
        }}><${Icon} name="Sparkles" size=${16} />${prompt}</button></li>`)}
      </ul>
      ${isBuiltIn
        ? html`<p class="small muted">The built-in model draws emoji of 261 things, alone or in pairs, at 96 × 96 pixels, and nothing else.
            <code>sde models --words</code> lists them. <code>SDE_MODEL</code> names a general model.</p>`
        : html`<p class="small muted">${form.value.model || defaultModel.value || "The model"} makes ${modesText(model.modes)}.</p>`}
    </div>
  </section>`;
}

/** @param {string[] | undefined} modes */
function modesText(modes = ["txt2img"]) {
  const names = { txt2img: "images from text", img2img: "from an image", inpaint: "and repaints parts of one" };
  return modes.map((mode) => names[/** @type {keyof typeof names} */ (mode)] ?? mode).join(", ");
}

function LoadingNote() {
  const worker = loadingWorker.value;
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((count) => count + 1), 1000);
    return () => clearInterval(timer);
  }, []);
  if (worker === null) return null;
  const since = loadingSeconds(worker);
  return html`<p class="loading-note" role="status"><span class="pulse" aria-hidden="true"></span>
    Loading ${worker.model ?? "the model"}${since && since > 1 ? `, ${seconds(since)} so far` : ""}. You can draw already; it starts by itself.</p>`;
}
