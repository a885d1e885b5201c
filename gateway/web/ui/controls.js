// Small controls that every view uses: icon buttons, labelled fields, numbers with a range.
import { html, useEffect, useId, useRef, useState } from "../vendor/preact.js";
import { fieldErrors } from "../state/form.js";
import { Icon } from "./icon.js";

/**
 * A button that is only an icon; its label is its name and its tooltip.
 * @param {{icon: any, label: string, onClick: (event: Event) => void, pressed?: boolean,
 *   disabled?: boolean, filled?: boolean, danger?: boolean, keys?: string, class?: string}} props
 */
export function IconButton(props) {
  const { icon, label, onClick, pressed, disabled, filled, danger, keys } = props;
  return html`<button
    type="button"
    class=${`icon-button ${danger ? "danger" : ""} ${props.class ?? ""}`}
    aria-label=${label}
    title=${keys ? `${label} (${keys})` : label}
    aria-pressed=${pressed === undefined ? undefined : String(pressed)}
    disabled=${disabled}
    onClick=${onClick}
  >
    <${Icon} name=${icon} filled=${filled} />
  </button>`;
}

/**
 * What the service said of a field.
 * @param {{field: string, id: string}} props
 */
export function FieldError({ field, id }) {
  const message = fieldErrors.value[field];
  return message ? html`<p class="field-error" id=${id}>${message}</p>` : null;
}

/**
 * A label with help behind a question mark, a reset where the value differs, and the error below.
 * @param {{label: string, field: string, help?: string, children: any, id?: string,
 *   onReset?: (() => void) | null}} props
 */
export function Field({ label, field, help, children, id, onReset }) {
  const helpId = useId();
  return html`<div class=${`field ${fieldErrors.value[field] ? "has-error" : ""}`}>
    <div class="field-head">
      <label for=${id}>${label}</label>
      ${help && html`<${Help} id=${helpId} text=${help} label=${label} />`}
      <span class="spacer"></span>
      ${onReset && html`<button type="button" class="link small" onClick=${onReset}
        aria-label=${`Reset ${label}`}>reset</button>`}
    </div>
    ${children}
    <${FieldError} field=${field} id=${`${id}-error`} />
  </div>`;
}

/**
 * @param {{text: string, label: string, id: string}} props
 */
function Help({ text, label, id }) {
  const [isOpen, setOpen] = useState(false);
  return html`<span class="help">
    <button type="button" class="help-button" aria-label=${`What is ${label}?`}
      aria-expanded=${String(isOpen)} aria-controls=${id}
      onClick=${() => setOpen(!isOpen)}
      onKeyDown=${(/** @type {KeyboardEvent} */ event) => {
        if (event.key === "Escape" && isOpen) {
          event.stopPropagation();
          setOpen(false);
        }
      }}>?</button>
    <span id=${id} class="help-text" hidden=${!isOpen} role="note">${text}</span>
  </span>`;
}

/**
 * A number as a slider and a box. An empty box is the model's own value.
 * @param {{field: string, label: string, help?: string, value: number | null, min: number,
 *   max: number, step: number, initial: number, onChange: (value: number | null) => void,
 *   softMax?: number}} props
 */
export function NumberField(props) {
  const { field, label, help, value, min, max, step, initial, onChange, softMax = max } = props;
  const id = useId();
  const shown = value ?? initial;
  /** @param {string} text */
  const read = (text) => {
    if (text.trim() === "") return onChange(null);
    const number = Number(text);
    return Number.isNaN(number) ? undefined : onChange(number);
  };
  return html`<${Field} label=${label} field=${field} help=${help} id=${id}
    onReset=${value !== null && value !== initial ? () => onChange(null) : null}>
    <div class="number-row">
      <input type="range" min=${min} max=${softMax} step=${step} value=${Math.min(shown, softMax)}
        aria-label=${`${label}, slider`} tabindex="-1"
        onInput=${(/** @type {any} */ event) => onChange(Number(event.target.value))} />
      <input id=${id} type="number" inputmode="decimal" min=${min} max=${max} step=${step} value=${shown}
        data-field=${field} aria-invalid=${Boolean(fieldErrors.value[field])}
        aria-describedby=${`${id}-error`}
        onInput=${(/** @type {any} */ event) => read(event.target.value)} />
    </div>
  <//>`;
}

/**
 * A native dialog that gives the focus back when it closes.
 * @param {{title: string, isOpen: boolean, onClose: () => void, children: any, class?: string}} props
 */
export function Dialog({ title, isOpen, onClose, children, class: name = "" }) {
  const element = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const id = useId();
  useEffect(() => {
    const dialog = element.current;
    if (dialog === null) return;
    if (isOpen && !dialog.open) dialog.showModal();
    if (!isOpen && dialog.open) dialog.close();
  }, [isOpen]);
  return html`<dialog ref=${element} class=${name} aria-labelledby=${id}
    onClose=${onClose}
    onClick=${(/** @type {MouseEvent} */ event) => {
      if (event.target === element.current) onClose();
    }}>
    ${isOpen && html`<div class="dialog-body">
      <header class="dialog-head">
        <h2 id=${id}>${title}</h2>
        <${IconButton} icon="X" label="Close" onClick=${onClose} />
      </header>
      ${children}
    </div>`}
  </dialog>`;
}
