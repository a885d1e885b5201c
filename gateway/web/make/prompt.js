// The prompt and the negative prompt: they grow, keep a history, and weigh words by Ctrl+Up and Down.
import { html, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { weighted } from "../lib/prompt_weight.js";
import { change, fieldErrors, form, mode, promptHistory } from "../state/form.js";
import { modelNamed, takes } from "../state/models.js";
import { FieldError, IconButton } from "../ui/controls.js";

export function Prompts() {
  const model = modelNamed(form.value.model);
  return html`<div class="prompts">
    <${PromptBox} field="prompt" label="Prompt" placeholder="What to draw" rows=${3} hasHistory=${true} />
    ${takes(model, mode.value, "negative_prompt") &&
    html`<${PromptBox} field="negative_prompt" label="Negative prompt"
      placeholder="What to keep out (optional)" rows=${1} />`}
  </div>`;
}

/**
 * @param {{field: "prompt" | "negative_prompt", label: string, placeholder: string, rows: number,
 *   hasHistory?: boolean}} props
 */
function PromptBox({ field, label, placeholder, rows, hasHistory = false }) {
  const box = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const [isHistoryOpen, setHistoryOpen] = useState(false);
  const recalled = useRef(-1);
  const text = form.value[field];
  useLayoutEffect(() => {
    const area = box.current;
    if (area === null) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight + 2, 320)}px`;
  }, [text]);

  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    const area = /** @type {HTMLTextAreaElement} */ (event.currentTarget);
    const direction = event.key === "ArrowUp" ? 1 : event.key === "ArrowDown" ? -1 : 0;
    if (direction === 0) return;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      const next = weighted(area.value, area.selectionStart, area.selectionEnd, direction);
      change({ [field]: next.text });
      requestAnimationFrame(() => area.setSelectionRange(next.start, next.end));
    } else if (hasHistory && (area.value === "" || recalled.current >= 0)) {
      recall(event, direction);
    }
  };

  /** @param {KeyboardEvent} event @param {number} direction */
  const recall = (event, direction) => {
    const next = Math.max(-1, Math.min(recalled.current + direction, promptHistory.value.length - 1));
    if (next === recalled.current) return;
    event.preventDefault();
    recalled.current = next;
    change({ [field]: next === -1 ? "" : promptHistory.value[next] });
  };

  return html`<div class=${`prompt-box ${fieldErrors.value[field] ? "has-error" : ""}`}>
    <div class="field-head">
      <label for=${field}>${label}</label>
      <span class="spacer"></span>
      ${hasHistory && promptHistory.value.length > 0 && html`<${IconButton} icon="History" label="Earlier prompts" class="tiny"
        onClick=${() => setHistoryOpen(!isHistoryOpen)} pressed=${isHistoryOpen} />`}
      ${text && html`<${IconButton} icon="X" label=${`Clear the ${label.toLowerCase()}`} class="tiny" onClick=${() => {
        change({ [field]: "" });
        box.current?.focus();
      }} />`}
    </div>
    <textarea id=${field} ref=${box} rows=${rows} placeholder=${placeholder} value=${text}
      maxlength="4000" data-field=${field} spellcheck=${true} enterkeyhint="enter"
      aria-invalid=${Boolean(fieldErrors.value[field])} aria-describedby=${`${field}-error`}
      onKeyDown=${onKeyDown}
      onInput=${(/** @type {any} */ event) => {
        recalled.current = -1;
        change({ [field]: event.target.value });
      }}></textarea>
    <${FieldError} field=${field} id=${`${field}-error`} />
    ${isHistoryOpen && html`<ul class="prompt-history" aria-label="Earlier prompts">
      ${promptHistory.value.slice(0, 30).map((each) => html`<li key=${each}><button type="button" onClick=${() => {
        change({ [field]: each });
        setHistoryOpen(false);
        box.current?.focus();
      }}>${each}</button></li>`)}
    </ul>`}
  </div>`;
}
