// Everything else that the loaded model takes in this mode, each with its help and a sane range.
import { html, useId } from "../vendor/preact.js";
import { change, form, mode } from "../state/form.js";
import { capabilities, fieldHelp, modelNamed, takes } from "../state/models.js";
import { samplerLabel, samplersOf } from "../state/samplers.js";
import { Field, NumberField } from "../ui/controls.js";
import { ControlNets, Embeddings, IPAdapter, Loras } from "./adapters.js";

/** The sliders' ranges, and the values that are usual. What a field does comes from the service. */
const NUMBERS = /** @type {const} */ ([
  {
    ...{ field: "num_inference_steps", label: "Steps", min: 1, max: 500, softMax: 100, step: 1 },
    hint: "20 to 40 are usual, 4 to 8 for turbo models.",
    initial: 50,
  },
  {
    ...{ field: "guidance_scale", label: "Guidance", min: 0, max: 50, softMax: 20, step: 0.1 },
    hint: "4 to 8 is usual; too much burns the colours.",
    initial: 7.5,
  },
  {
    ...{ field: "guidance_rescale", label: "Guidance rescale", min: 0, max: 1, softMax: 1, step: 0.05 },
    hint: "0.7 counters overexposure at a high guidance.",
    initial: 0,
  },
  {
    ...{ field: "clip_skip", label: "CLIP skip", min: 0, max: 11, softMax: 4, step: 1 },
    hint: "Anime models are often used with 1.",
    initial: 0,
  },
  {
    ...{ field: "eta", label: "Eta", min: 0, max: 1, softMax: 1, step: 0.05 },
    hint: "0 adds none.",
    initial: 0,
  },
]);

export function More() {
  const { model: name } = form.value;
  const model = modelNamed(name);
  /** @param {string} field */
  const isTaken = (field) => takes(model, mode.value, field);
  return html`<div class="fields">
      ${NUMBERS.filter(({ field }) => field === "num_inference_steps" || isTaken(field)).map(
        (each) => html`<${ModelNumber} key=${each.field} about=${each} own=${model.defaults?.[each.field]} />`,
      )}
      <${SamplerField} />
      ${isTaken("loras") && html`<${Loras} />`}
      ${isTaken("embeddings") && html`<${Embeddings} />`}
      ${isTaken("hires") && html`<${Hires} />`}
      ${isTaken("refiner") && html`<${Refiner} />`}
      ${isTaken("vae") && html`<${VaeField} />`}
      ${isTaken("controlnets") && html`<${ControlNets} />`}
      ${isTaken("ip_adapter") && html`<${IPAdapter} />`}
    </div>`;
}

/** @param {{about: (typeof NUMBERS)[number], own: number | undefined}} props */
function ModelNumber({ about, own }) {
  const known = fieldHelp.value[about.field] ?? {};
  const value = /** @type {any} */ (form.value)[about.field];
  return html`<${NumberField} field=${about.field} label=${about.label} help=${[known.help, about.hint].filter(Boolean).join(" ")}
    value=${value} min=${known.minimum ?? about.min} max=${known.maximum ?? about.max}
    softMax=${about.softMax} step=${about.step} initial=${own ?? about.initial}
    onChange=${(/** @type {number | null} */ next) => change({ [about.field]: emptied(about.field, next) })} />`;
}

/** Zero skipped layers is no clip_skip. @param {string} field @param {number | null} value */
function emptied(field, value) {
  return field === "clip_skip" && value === 0 ? null : value;
}

function SamplerField() {
  const id = useId();
  const model = modelNamed(form.value.model);
  const { scheduler } = form.value;
  const samplers = samplersOf(model.schedulers ?? []);
  if (samplers.length === 0) return null;
  const own = samplerLabel(model.defaults?.scheduler ?? "");
  const isListed = samplers.some((each) => each.value === scheduler);
  return html`<${Field} label="Sampler" field="scheduler" id=${id}
    help=${`${fieldHelp.value.scheduler?.help ?? ""} Euler a and DPM++ 2M Karras are popular.`.trim()}
    onReset=${scheduler ? () => change({ scheduler: "", scheduler_options: {} }) : null}>
    <select id=${id} data-field="scheduler" value=${scheduler}
      onChange=${(/** @type {any} */ event) => change({ scheduler: event.target.value, scheduler_options: {} })}>
      <option value="">${own ? `${own} (the model's own)` : "The model's own"}</option>
      ${scheduler && !isListed && html`<option value=${scheduler}>${samplerLabel(scheduler)}</option>`}
      ${samplers.map((each) => html`<option key=${each.value} value=${each.value}>${each.label}</option>`)}
    </select>
  <//>`;
}

function VaeField() {
  const id = useId();
  const names = capabilities.value.vaes ?? [];
  if (names.length === 0) return null;
  return html`<${Field} label="VAE" field="vae" id=${id} help="Another decoder of the colours and fine detail."
    onReset=${form.value.vae ? () => change({ vae: "" }) : null}>
    <select id=${id} data-field="vae" value=${form.value.vae}
      onChange=${(/** @type {any} */ event) => change({ vae: event.target.value })}>
      <option value="">The model's own</option>
      ${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
    </select>
  <//>`;
}

function Hires() {
  const { hires } = form.value;
  const id = useId();
  /** @param {Partial<NonNullable<typeof hires>>} fields */
  const set = (fields) => hires && change({ hires: { ...hires, ...fields } });
  return html`<fieldset class="group">
    <label class="check"><input type="checkbox" checked=${hires !== null} data-field="hires"
      onChange=${(/** @type {any} */ event) =>
        change({ hires: event.target.checked ? { scale: 2, upscaler: "latent", strength: 0.6 } : null })} />
      Second pass, larger (hires)</label>
    ${hires && html`
      <${NumberField} field="hires" label="Scale" value=${hires.scale} min=${1.1} max=${4} step=${0.1} initial=${2}
        onChange=${(/** @type {number | null} */ scale) => set({ scale: scale ?? 2 })}
        help="How many times wider and higher the second pass is." />
      <${NumberField} field="hires.strength" label="Change" value=${hires.strength} min=${0} max=${1} step=${0.05}
        initial=${0.6} onChange=${(/** @type {number | null} */ strength) => set({ strength: strength ?? 0.6 })}
        help="How much the second pass may change; 0.4 to 0.7 is usual." />
      <div class="field"><label for=${id}>Upscaler</label>
        <select id=${id} value=${hires.upscaler}
          onChange=${(/** @type {any} */ event) => set({ upscaler: event.target.value })}>
          ${(capabilities.value.upscalers ?? ["latent", "lanczos"]).map((name) => html`<option key=${name}>${name}</option>`)}
        </select></div>`}
  </fieldset>`;
}

function Refiner() {
  const names = capabilities.value.refiners ?? [];
  const { refiner } = form.value;
  const id = useId();
  if (names.length === 0) return null;
  return html`<fieldset class="group"><div class="field">
      <label for=${id}>Refiner</label>
      <select id=${id} data-field="refiner" value=${refiner?.name ?? ""}
        onChange=${(/** @type {any} */ event) =>
          change({ refiner: event.target.value ? { name: event.target.value, switch_at: refiner?.switch_at ?? 0.8 } : null })}>
        <option value="">None</option>
        ${names.map((name) => html`<option key=${name}>${name}</option>`)}
      </select></div>
    ${refiner && html`<${NumberField} field="refiner.switch_at" label="Switch at" value=${refiner.switch_at}
      min=${0.05} max=${0.95} step=${0.05} initial=${0.8} help="The share of the noise after which the refiner takes over."
      onChange=${(/** @type {number | null} */ switchAt) => change({ refiner: { ...refiner, switch_at: switchAt ?? 0.8 } })} />`}
  </fieldset>`;
}
