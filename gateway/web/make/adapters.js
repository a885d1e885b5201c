// LoRAs with weights, embeddings, ControlNets and the IP-Adapter, as far as the service has them.
import { html, useId } from "../vendor/preact.js";
import { change, form } from "../state/form.js";
import { capabilities } from "../state/models.js";
import { FieldError, IconButton } from "../ui/controls.js";
import { ImageSlot, attempt, keepImage } from "./image_slot.js";

/**
 * A list that grows by a select and whose rows have a number each.
 * @param {{label: string, field: string, names: string[], add: string, onAdd: (name: string) => void,
 *   children: any}} props
 */
function Picker({ label, field, names, add, onAdd, children }) {
  const id = useId();
  if (names.length === 0 && !children?.length) return null;
  return html`<fieldset class="group"><div class="field-head"><label for=${id}>${label}</label></div>
    ${children}
    <select id=${id} data-field=${field} value="" aria-describedby=${`${field}-error`}
      onChange=${(/** @type {any} */ event) => {
        if (event.target.value) onAdd(event.target.value);
        event.target.value = "";
      }}>
      <option value="">${add}</option>
      ${names.map((name) => html`<option key=${name}>${name}</option>`)}
    </select>
    <${FieldError} field=${field} id=${`${field}-error`} />
  </fieldset>`;
}

/**
 * @param {{name: string, value: number, min: number, max: number, onChange: (value: number) => void,
 *   onRemove: () => void}} props
 */
function Weight({ name, value, min, max, onChange, onRemove }) {
  return html`<div class="weight-row">
    <span class="clip" title=${name}>${name}</span>
    <input type="range" min=${min} max=${max} step="0.05" value=${value} tabindex="-1" aria-label=${`Weight of ${name}, slider`}
      onInput=${(/** @type {any} */ event) => onChange(Number(event.target.value))} />
    <input type="number" step="0.05" value=${value} aria-label=${`Weight of ${name}`}
      onInput=${(/** @type {any} */ event) => onChange(Number(event.target.value))} />
    <${IconButton} icon="X" label=${`Remove ${name}`} class="tiny" onClick=${onRemove} />
  </div>`;
}

export function Loras() {
  const { loras } = form.value;
  const names = (capabilities.value.loras ?? []).filter((name) => !loras.some((each) => each.name === name));
  /** @param {string} name @param {number} weight */
  const set = (name, weight) =>
    change({ loras: loras.map((each) => (each.name === name ? { name, weight } : each)) });
  return html`<${Picker} label="LoRAs" field="loras" names=${names} add="Add a LoRA …"
    onAdd=${(/** @type {string} */ name) => change({ loras: [...loras, { name, weight: 1 }] })}>
    ${loras.map(
      ({ name, weight }) => html`<${Weight} key=${name} name=${name} value=${weight} min=${-1} max=${2}
        onChange=${(/** @type {number} */ value) => set(name, value)}
        onRemove=${() => change({ loras: loras.filter((each) => each.name !== name) })} />`,
    )}
  <//>`;
}

export function Embeddings() {
  const { embeddings = [], embedding_words: words = {} } = capabilities.value;
  /** @param {string} name */
  const insert = (name) => {
    const word = words[name]?.word ?? name;
    change({ prompt: `${form.value.prompt.trimEnd()} ${word}`.trimStart() });
  };
  return html`<${Picker} label="Embeddings" field="embeddings" names=${embeddings} add="Put the word of one in the prompt …"
    onAdd=${insert} children=${[]} />`;
}

export function ControlNets() {
  const { controlnets } = form.value;
  const names = capabilities.value.controlnets ?? [];
  /** @param {number} index @param {Partial<(typeof controlnets)[number]>} fields */
  const set = (index, fields) =>
    change({ controlnets: controlnets.map((each, at) => (at === index ? { ...each, ...fields } : each)) });
  return html`<${Picker} label="ControlNets" field="controlnets" names=${names} add="Add a ControlNet …"
    onAdd=${(/** @type {string} */ name) =>
      change({ controlnets: [...controlnets, { name, image: null, conditioning_scale: 1 }] })}>
    ${controlnets.map(
      (net, index) => html`<div key=${index} class="guide">
        <${Weight} name=${net.name} value=${net.conditioning_scale} min=${0} max=${2}
          onChange=${(/** @type {number} */ value) => set(index, { conditioning_scale: value })}
          onRemove=${() => change({ controlnets: controlnets.filter((_, at) => at !== index) })} />
        <${ImageSlot} value=${net.image} label=${`Image for ${net.name}`} field=${`controlnets.${index}`}
          onChoose=${(/** @type {File} */ file) => attempt(async () => set(index, { image: await keepImage(file, file.name) }))}
          onRemove=${() => set(index, { image: null })} />
      </div>`,
    )}
  <//>`;
}

export function IPAdapter() {
  const names = capabilities.value.ip_adapters ?? [];
  const adapter = form.value.ip_adapter;
  return html`<${Picker} label="Imitate an image (IP-Adapter)" field="ip_adapter" names=${adapter ? [] : names} add="Choose an adapter …"
    onAdd=${(/** @type {string} */ name) => change({ ip_adapter: { name, image: null, scale: 0.6 } })}>
    ${adapter
      ? [html`<div class="guide">
          <${Weight} name=${adapter.name} value=${adapter.scale} min=${0} max=${2}
            onChange=${(/** @type {number} */ scale) => change({ ip_adapter: { ...adapter, scale } })}
            onRemove=${() => change({ ip_adapter: null })} />
          <${ImageSlot} value=${adapter.image} label="Image to imitate" field="ip_adapter.image"
            onChoose=${(/** @type {File} */ file) =>
              attempt(async () => change({ ip_adapter: { ...adapter, image: await keepImage(file, file.name) } }))}
            onRemove=${() => change({ ip_adapter: { ...adapter, image: null } })} />
        </div>`]
      : []}
  <//>`;
}
