// The size as shapes of the model's own area; custom sides are there for those who want them.
import { html, useId, useState } from "../vendor/preact.js";
import { change, form, mode } from "../state/form.js";
import { modelNamed, nativeSide, takes } from "../state/models.js";
import { FieldError, IconButton } from "../ui/controls.js";

/** @typedef {{name: string, ratio: [number, number]}} Shape */

/** @type {Shape[]} */
const SHAPES = [
  { name: "Square", ratio: [1, 1] },
  { name: "Portrait", ratio: [3, 4] },
  { name: "Landscape", ratio: [4, 3] },
  { name: "Tall", ratio: [9, 16] },
  { name: "Wide", ratio: [16, 9] },
];
const MULTIPLE = 8;
const [MIN_PX, MAX_PX] = [64, 2048];

/**
 * The sides of a shape with about the area of a square of this side.
 * @param {number} side @param {[number, number]} ratio @returns {[number, number]}
 */
export function sidesOf(side, [across, down]) {
  if (across === down) return [side, side];
  const multiple = side >= 512 ? 64 : MULTIPLE;
  const root = Math.sqrt(across / down);
  const width = Math.round((side * root) / multiple) * multiple;
  const height = Math.round(side / root / multiple) * multiple;
  return [Math.max(MIN_PX, width), Math.max(MIN_PX, height)];
}

export function SizeField() {
  const { model, width, height } = form.value;
  const side = nativeSide(model);
  const id = useId();
  const [isCustomOpen, setCustomOpen] = useState(false);
  const isFixedByStart = mode.value !== "txt2img";
  if (isFixedByStart && !takes(modelNamed(model), mode.value, "width")) {
    return html`<p class="muted small">The size follows the start image.</p>`;
  }
  const shapes = SHAPES.map((shape) => ({ ...shape, sides: sidesOf(side, shape.ratio) }));
  const chosen = shapes.find(({ sides }) => sides[0] === width && sides[1] === height);
  const isCustom = isCustomOpen || (width !== null && !chosen);
  return html`<fieldset class="field size">
    <legend>Size <span class="value">${sizeText(width, height, side, isFixedByStart)}</span></legend>
    <div class="shapes">
      ${shapes.map(({ name, ratio, sides }, index) => {
        const isPressed = !isCustom && (chosen ? chosen.name === name : width === null && index === 0 && !isFixedByStart);
        return html`<button key=${name} type="button" class="shape" aria-pressed=${String(isPressed)}
          title=${`${name}, ${sides[0]} × ${sides[1]}`} aria-label=${`${name}, ${sides[0]} by ${sides[1]} pixels`}
          onClick=${() => {
            setCustomOpen(false);
            change({ width: sides[0], height: sides[1] });
          }}>
          <svg viewBox="0 0 24 24" width="24" height="24" aria-hidden="true">
            <rect x=${12 - 9 * scale(ratio, 0)} y=${12 - 9 * scale(ratio, 1)} width=${18 * scale(ratio, 0)}
              height=${18 * scale(ratio, 1)} rx="2" />
          </svg>
        </button>`;
      })}
      <button type="button" class="shape text" aria-pressed=${String(isCustom)}
        onClick=${() => {
          setCustomOpen(!isCustom);
          if (isCustom) change({ width: null, height: null });
          else change({ width: width ?? side, height: height ?? side });
        }}>Custom</button>
    </div>
    ${isCustom && html`<div class="sides">
      ${sideInput(`${id}-w`, "Width", "width", width ?? side)}
      <${IconButton} icon="Shuffle" label="Swap width and height" class="tiny"
        onClick=${() => change({ width: height, height: width })} />
      ${sideInput(`${id}-h`, "Height", "height", height ?? side)}
    </div>`}
    <${FieldError} field="width" id="width-error" />
    <${FieldError} field="height" id="height-error" />
  </fieldset>`;
}

/** @param {[number, number]} ratio @param {0 | 1} side */
function scale(ratio, side) {
  return ratio[side] / Math.max(...ratio);
}

/**
 * @param {number | null} width @param {number | null} height
 * @param {number} side @param {boolean} isFixedByStart
 */
function sizeText(width, height, side, isFixedByStart) {
  if (width === null && height === null && isFixedByStart) return "as the start image";
  return `${width ?? side} × ${height ?? side}`;
}

/** @param {string} id @param {string} label @param {"width" | "height"} field @param {number} value */
function sideInput(id, label, field, value) {
  return html`<label for=${id}><span class="small">${label}</span>
    <input id=${id} type="number" min=${MIN_PX} max=${MAX_PX} step=${MULTIPLE} value=${value} data-field=${field}
      aria-describedby=${`${field}-error`}
      onInput=${(/** @type {any} */ event) => change({ [field]: Number(event.target.value) || null })}
      onChange=${(/** @type {any} */ event) => {
        const rounded = Math.round(Number(event.target.value) / MULTIPLE) * MULTIPLE;
        change({ [field]: Math.min(MAX_PX, Math.max(MIN_PX, rounded || MIN_PX)) });
      }} />
  </label>`;
}
