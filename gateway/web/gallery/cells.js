// The windowed list: only the cells in sight are in the document.
import { html, signal, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { imageUrl } from "../lib/api.js";
import { dayTitle } from "../lib/format.js";
import { go } from "../lib/router.js";
import { trash } from "../picture/actions.js";
import { select, selection, starImages, toggleSelected, trashImages } from "../state/collection.js";
import { days, ensure, itemAt, total, unseen } from "../state/results.js";
import { Icon } from "../ui/icon.js";
import { layoutOf, placeOf, rowNeighbour, visibleIn } from "./layout.js";

const OVERSCAN_PX = 300;
const ENSURE_MS = 60;
const LONG_PRESS_MS = 450;

/** The position that the keyboard is at; it stays while other views are open. */
const active = signal(0);
/** Where the list was scrolled to. */
let scrolledTo = 0;
/** The position that a selection with Shift begins at. */
let anchor = 0;

export function Cells() {
  const list = useRef(/** @type {HTMLDivElement | null} */ (null));
  const [view, setView] = useState({ width: 0, height: 0, top: scrolledTo });
  const minCell = view.width < 600 ? 104 : 168;
  const layout = layoutOf(days.value, view.width, minCell);
  useViewport(list, setView);
  const window = visibleIn(layout, view.top - OVERSCAN_PX, view.top + view.height + OVERSCAN_PX);
  useEnsured(window.places);
  useLayoutEffect(() => {
    if (list.current && layout.height > 0) list.current.scrollTop = scrolledTo;
  }, [layout.height > 0]);

  /** @param {number} index */
  const focus = (index) => {
    const count = total.value ?? 0;
    active.value = Math.max(0, Math.min(index, count - 1));
    const place = placeOf(layout, active.value);
    const box = list.current;
    if (!place || !box) return;
    if (place.top < box.scrollTop + 8) box.scrollTop = place.top - 50;
    else if (place.top + layout.cell > box.scrollTop + box.clientHeight) {
      box.scrollTop = place.top + layout.cell - box.clientHeight + 8;
    }
    // A cell out of sight is drawn first.
    if (!focusCell(box, active.value)) {
      requestAnimationFrame(() => requestAnimationFrame(() => focusCell(box, active.value)));
    }
  };
  const places = withActive(window.places, placeOf(layout, active.value));
  return html`<div class="cells-scroll" ref=${list} tabindex="-1">
    <div class="cells" role="listbox" aria-multiselectable="true" aria-label="Images, newest first"
      style=${{ height: `${layout.height}px` }}
      onKeyDown=${(/** @type {KeyboardEvent} */ event) => onKey(event, layout, focus)}>
      ${window.headings.map(
        (block) => html`<h2 key=${block.day} class="day" role="presentation" style=${{ top: `${block.top}px` }}>
          ${dayTitle(block.day)}<span class="muted">${block.count}</span></h2>`,
      )}
      ${places.map((place) => html`<${Cell} key=${place.index} place=${place} side=${layout.cell} focus=${focus} />`)}
    </div>
  </div>`;
}

/** @param {import("./layout.js").Place[]} places @param {import("./layout.js").Place | null} one */
function withActive(places, one) {
  if (one === null || places.some((each) => each.index === one.index)) return places;
  return [...places, one];
}

/** @param {HTMLElement} box @param {number} index */
function focusCell(box, index) {
  const cell = box.querySelector(`[data-index="${index}"]`);
  if (!(cell instanceof HTMLElement)) return false;
  cell.focus({ preventScroll: true });
  return true;
}

/** @param {any} list @param {any} setView */
function useViewport(list, setView) {
  useLayoutEffect(() => {
    const box = /** @type {HTMLDivElement} */ (list.current);
    let frame = 0;
    const measure = () => {
      frame = 0;
      scrolledTo = box.scrollTop;
      const inner = /** @type {HTMLElement} */ (box.firstElementChild);
      setView({ width: inner.clientWidth, height: box.clientHeight, top: box.scrollTop });
    };
    const later = () => {
      frame ||= requestAnimationFrame(measure);
    };
    measure();
    box.addEventListener("scroll", later, { passive: true });
    const observer = new ResizeObserver(later);
    observer.observe(box);
    return () => {
      box.removeEventListener("scroll", later);
      observer.disconnect();
      cancelAnimationFrame(frame);
    };
  }, []);
}

/** Ask for what is in sight once the list rests, or is moved slowly. @param {import("./layout.js").Place[]} places */
function useEnsured(places) {
  const first = places[0]?.index ?? 0;
  const last = places.at(-1)?.index ?? 0;
  useEffect(() => {
    const timer = setTimeout(() => ensure(first, last), ENSURE_MS);
    return () => clearTimeout(timer);
  }, [first, last, total.value]);
}

/**
 * @param {KeyboardEvent} event
 * @param {import("./layout.js").Layout} layout
 * @param {(index: number) => void} focus
 */
function onKey(event, layout, focus) {
  const at = active.value;
  const item = itemAt(at);
  const moves = /** @type {Record<string, () => number>} */ ({
    ArrowLeft: () => at - 1,
    ArrowRight: () => at + 1,
    ArrowUp: () => rowNeighbour(layout, at, -1),
    ArrowDown: () => rowNeighbour(layout, at, 1),
    Home: () => 0,
    End: () => (total.value ?? 1) - 1,
    PageDown: () => at + layout.columns * 4,
    PageUp: () => at - layout.columns * 4,
  });
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (moves[event.key]) {
    event.preventDefault();
    focus(moves[event.key]());
    if (event.shiftKey) selectRange(active.value);
  } else if (event.key === "Enter" && item) {
    event.preventDefault();
    go(`picture/${item.name}`);
  } else if (event.key === " " && item) {
    event.preventDefault();
    if (event.shiftKey) selectRange(at);
    else pick(at);
  } else if (item && item.state === "succeeded") {
    actOn(event, item);
  }
}

/** @param {KeyboardEvent} event @param {import("../state/results.js").Item} item */
function actOn(event, item) {
  const names = selection.value.size > 0 ? [...selection.value] : [item.name];
  if (event.key === "s") void starImages(names, !item.star);
  else if (event.key === "Delete") void (names.length > 1 ? trashImages(names) : trash(names[0], undefined));
  else if (event.key === "c" && names.length === 2) go(`compare/${names[0]}/${names[1]}`);
}

/** @param {number} index */
function pick(index) {
  const item = itemAt(index);
  anchor = index;
  if (item) toggleSelected(item.name);
}

/** @param {number} index */
function selectRange(index) {
  const [low, high] = [Math.min(anchor, index), Math.max(anchor, index)];
  const names = new Set(selection.value);
  for (let at = low; at <= high; at += 1) {
    const item = itemAt(at);
    if (item) names.add(item.name);
  }
  select(names);
}

/** @param {{place: import("./layout.js").Place, side: number, focus: (index: number) => void}} props */
function Cell({ place, side, focus }) {
  const { index, left, top } = place;
  const item = itemAt(index);
  const press = useRef(/** @type {any} */ (null));
  const wasLong = useRef(false);
  const isSelected = item !== undefined && selection.value.has(item.name);
  const style = { width: `${side}px`, height: `${side}px`, transform: `translate(${left}px, ${top}px)` };
  /** @param {MouseEvent} event */
  const onClick = (event) => {
    active.value = index;
    if (!item || wasLong.current) {
      wasLong.current = false;
      return;
    }
    const onMark = event.target instanceof Element && event.target.closest(".mark") !== null;
    if (event.shiftKey) selectRange(index);
    else if (onMark || event.ctrlKey || event.metaKey || selection.value.size > 0) pick(index);
    else go(`picture/${item.name}`);
  };
  const onDown = () => {
    press.current = setTimeout(() => {
      wasLong.current = true;
      pick(index);
    }, LONG_PRESS_MS);
  };
  const onUp = () => clearTimeout(press.current);
  return html`<div class=${`cell ${isSelected ? "is-selected" : ""}`} role="option" aria-selected=${String(isSelected)}
    aria-setsize=${total.value ?? -1} aria-posinset=${index + 1} data-index=${index} style=${style}
    aria-label=${item ? labelOf(item) : "Loading"} tabindex=${index === active.value ? 0 : -1}
    onClick=${onClick} onPointerDown=${onDown} onPointerUp=${onUp} onPointerLeave=${onUp}
    onContextMenu=${(/** @type {Event} */ event) => wasLong.current && event.preventDefault()}
    onFocus=${() => active.value !== index && focus(index)}>
    ${item && (item.state === "succeeded"
      ? html`<img src=${imageUrl(item.name, { px: 256 })} alt="" decoding="async" draggable=${false} />`
      : html`<span class="cell-text"><strong>${item.state}</strong>${item.prompt}</span>`)}
    <span class="mark" aria-hidden="true"><${Icon} name="Check" size=${15} /></span>
    ${item?.star && html`<span class="cell-star" aria-hidden="true"><${Icon} name="Star" size=${15} filled=${true} /></span>`}
    ${item && unseen.value.has(item.name) && html`<span class="cell-new" aria-hidden="true"></span>`}
  </div>`;
}

/** @param {import("../state/results.js").Item} item */
function labelOf(item) {
  const marks = [item.star ? "starred" : "", unseen.value.has(item.name) ? "new" : "", item.state === "succeeded" ? "" : item.state];
  return [item.prompt || "Upscaled image", ...marks.filter(Boolean)].join(", ");
}
