// The image with the mask over it: pointers and keys paint, wheel and two fingers zoom.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { followZoom } from "../lib/zoom_pan.js";
import { apply, paint } from "./mask_image.js";
import { add, brushSize, operations, tool, view } from "./mask_state.js";

/** @typedef {import("./mask_image.js").Point} Point */
/** @typedef {import("./mask_image.js").Stroke} Stroke */
/** @typedef {import("./mask_image.js").Box} Box */

const KEY_STEP = 0.25;

/**
 * @param {{image: string, width: number, height: number, canvas: {current: HTMLCanvasElement | null}}} props
 */
export function MaskSurface({ image, width, height, canvas }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const draft = useRef(/** @type {Stroke | Box | null} */ (null));
  const [cursor, setCursor] = useState(/** @type {Point & {isShown: boolean}} */ ({ x: width / 2, y: height / 2, isShown: false }));
  const fit = useFit(box, width, height);
  const list = operations.value;
  useLayoutEffect(() => redraw(canvas.current, list), [list, width, height]);
  useEffect(
    () =>
      followZoom(/** @type {HTMLElement} */ (box.current), {
        get: () => view.value,
        set: (next) => {
          if (draft.current) {
            draft.current = null; // a second finger came: this is no stroke
            redraw(canvas.current, operations.value);
          }
          view.value = next;
        },
        canPan: (event) => tool.value === "hand" || event.buttons === 4,
      }),
    [],
  );
  /** @param {PointerEvent} event @returns {Point} */
  const pointOf = (event) => {
    const area = /** @type {HTMLCanvasElement} */ (canvas.current).getBoundingClientRect();
    return { x: ((event.clientX - area.left) / area.width) * width, y: ((event.clientY - area.top) / area.height) * height };
  };
  /** @param {PointerEvent} event */
  const onDown = (event) => {
    if (tool.value === "hand" || event.button === 1 || !event.isPrimary) return;
    /** @type {HTMLElement} */ (event.currentTarget).setPointerCapture(event.pointerId);
    draft.current = begin(pointOf(event), event.button === 2);
    showDraft(canvas.current, draft.current);
  };
  /** @param {PointerEvent} event */
  const onMove = (event) => {
    const at = pointOf(event);
    if (event.isPrimary) setCursor({ ...at, isShown: event.pointerType !== "touch" });
    if (draft.current === null || !event.isPrimary) return;
    if (draft.current.kind === "box") draft.current.to = at;
    else for (const each of event.getCoalescedEvents?.() ?? [event]) draft.current.points.push(pointOf(each));
    showDraft(canvas.current, draft.current);
  };
  const onUp = () => {
    if (draft.current !== null) add(draft.current);
    draft.current = null;
  };
  /** @param {KeyboardEvent} event */
  const onKey = (event) => {
    const step = Math.max(1, brushSize.value * KEY_STEP * (event.shiftKey ? 4 : 1));
    const [dx, dy] = MOVES[event.key] ?? [0, 0];
    if (dx || dy) {
      event.preventDefault();
      const next = { x: clamp(cursor.x + dx * step, width), y: clamp(cursor.y + dy * step, height), isShown: true };
      setCursor(next);
      if (draft.current?.kind === "box") draft.current.to = next;
      else draft.current?.points.push({ x: next.x, y: next.y });
      if (draft.current) showDraft(canvas.current, draft.current);
    } else if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      if (event.repeat) return;
      if (draft.current) onUp();
      else {
        draft.current = begin({ x: cursor.x, y: cursor.y }, false);
        showDraft(canvas.current, draft.current);
      }
    }
  };
  const { scale, x, y } = view.value;
  const place = { width: `${fit.width}px`, height: `${fit.height}px`, transform: `translate(${x}px, ${y}px) scale(${scale})` };
  const ring = (brushSize.value / width) * fit.width;
  return html`<div class=${`mask-box tool-${tool.value}`} ref=${box} onContextMenu=${(/** @type {Event} */ event) => event.preventDefault()}>
    <div class="mask-place" style=${place} onPointerDown=${onDown} onPointerMove=${onMove} onPointerUp=${onUp} onPointerCancel=${onUp}
      onPointerLeave=${() => setCursor({ ...cursor, isShown: false })}>
      <img src=${image} alt="" draggable=${false} />
      <canvas ref=${canvas} width=${width} height=${height} tabindex="0" role="application"
        aria-label="Mask. Arrows move the brush, Space begins and ends a stroke, brackets change its size." autofocus
        onKeyDown=${onKey} onFocus=${(/** @type {any} */ event) => event.target.matches(":focus-visible") && setCursor({ ...cursor, isShown: true })}></canvas>
      ${cursor.isShown && ["brush", "eraser"].includes(tool.value) && html`<span class="ring" style=${{
        width: `${ring}px`, height: `${ring}px`, left: `${(cursor.x / width) * 100}%`, top: `${(cursor.y / height) * 100}%`,
      }}></span>`}
      ${cursor.isShown && tool.value === "box" && html`<span class="ring point" style=${{ left: `${(cursor.x / width) * 100}%`, top: `${(cursor.y / height) * 100}%` }}></span>`}
    </div>
  </div>`;
}

/** @type {Record<string, [number, number]>} */
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @param {number} value @param {number} most */
function clamp(value, most) {
  return Math.max(0, Math.min(most, value));
}

/** @param {Point} at @param {boolean} isErasing @returns {Stroke | Box} */
function begin(at, isErasing) {
  if (tool.value === "box" && !isErasing) return { kind: "box", from: at, to: at };
  const kind = isErasing || tool.value === "eraser" ? "eraser" : "brush";
  return { kind, size: brushSize.value, points: [at] };
}

/** @param {HTMLCanvasElement | null} canvas @param {import("./mask_image.js").Operation[]} list */
function redraw(canvas, list) {
  const context = canvas?.getContext("2d");
  if (context) paint(context, list);
}

/** @param {HTMLCanvasElement | null} canvas @param {Stroke | Box} draft */
function showDraft(canvas, draft) {
  const context = canvas?.getContext("2d");
  if (!context) return;
  // A growing stroke may be drawn over itself; a box has to shrink too.
  if (draft.kind === "box") paint(context, operations.value);
  const tail = draft.kind === "box" ? draft : { ...draft, points: draft.points.slice(-12) };
  apply(context, tail);
}

/** The largest size of the image within the box. @param {any} box @param {number} width @param {number} height */
function useFit(box, width, height) {
  const [fit, setFit] = useState({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const element = /** @type {HTMLElement} */ (box.current);
    const measure = () => {
      const scale = Math.min((element.clientWidth - 32) / width, (element.clientHeight - 32) / height);
      setFit({ width: width * scale, height: height * scale });
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [width, height]);
  return fit;
}
