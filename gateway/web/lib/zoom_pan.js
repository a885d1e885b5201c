// Zoom and pan of something in a box: by wheel, by two fingers, by dragging. It draws nothing.

const MAX_SCALE = 16;

/** @typedef {{scale: number, x: number, y: number}} View x and y are the offset from the middle */

/**
 * The view after zooming by a factor around a point, which stays where it is.
 * @param {View} view
 * @param {number} factor
 * @param {number} atX from the middle of the box, in pixels
 * @param {number} atY
 * @returns {View}
 */
export function zoomed(view, factor, atX = 0, atY = 0) {
  const scale = Math.min(MAX_SCALE, Math.max(1, view.scale * factor));
  if (scale === 1) return { scale: 1, x: 0, y: 0 };
  const ratio = scale / view.scale;
  return { scale, x: atX - (atX - view.x) * ratio, y: atY - (atY - view.y) * ratio };
}

/**
 * Follow wheel and pointers on a box.
 * @param {HTMLElement} box
 * @param {{
 *   get: () => View, set: (view: View) => void,
 *   canPan?: (event: PointerEvent) => boolean,
 *   onSwipe?: (direction: 1 | -1) => void,
 * }} options
 * @returns {() => void} what stops it
 */
export function followZoom(box, { get, set, canPan = () => true, onSwipe }) {
  /** @type {Map<number, PointerEvent>} */
  const pointers = new Map();
  let swipeX = 0;
  /** @param {{clientX: number, clientY: number}} point */
  const fromMiddle = (point) => {
    const area = box.getBoundingClientRect();
    return [point.clientX - area.left - area.width / 2, point.clientY - area.top - area.height / 2];
  };
  /** @param {WheelEvent} event */
  const onWheel = (event) => {
    event.preventDefault();
    const [x, y] = fromMiddle(event);
    set(zoomed(get(), Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0018)), x, y));
  };
  /** @param {PointerEvent} event */
  const onDown = (event) => {
    pointers.set(event.pointerId, event);
    swipeX = event.clientX;
    if (pointers.size === 2 || canPan(event)) box.setPointerCapture(event.pointerId);
  };
  /** @param {PointerEvent} event */
  const onMove = (event) => {
    const before = pointers.get(event.pointerId);
    if (before === undefined) return;
    if (pointers.size === 2) {
      const other = [...pointers.values()].find((each) => each.pointerId !== event.pointerId);
      if (other) set(pinched(get(), before, event, other, fromMiddle));
    } else if (canPan(event) && get().scale > 1) {
      const view = get();
      set({ ...view, x: view.x + event.clientX - before.clientX, y: view.y + event.clientY - before.clientY });
    }
    pointers.set(event.pointerId, event);
  };
  /** @param {PointerEvent} event */
  const onUp = (event) => {
    if (pointers.size === 1 && get().scale === 1 && event.type === "pointerup" && event.pointerType === "touch") {
      const moved = event.clientX - swipeX;
      if (Math.abs(moved) > 60) onSwipe?.(moved < 0 ? 1 : -1);
    }
    pointers.delete(event.pointerId);
  };
  box.addEventListener("wheel", onWheel, { passive: false });
  box.addEventListener("pointerdown", onDown);
  box.addEventListener("pointermove", onMove);
  box.addEventListener("pointerup", onUp);
  box.addEventListener("pointercancel", onUp);
  return () => {
    box.removeEventListener("wheel", onWheel);
    box.removeEventListener("pointerdown", onDown);
    box.removeEventListener("pointermove", onMove);
    box.removeEventListener("pointerup", onUp);
    box.removeEventListener("pointercancel", onUp);
  };
}

/**
 * @param {View} view
 * @param {PointerEvent} before
 * @param {PointerEvent} now
 * @param {PointerEvent} other
 * @param {(point: {clientX: number, clientY: number}) => number[]} fromMiddle
 */
function pinched(view, before, now, other, fromMiddle) {
  /** @param {PointerEvent} event */
  const distance = (event) => Math.hypot(event.clientX - other.clientX, event.clientY - other.clientY);
  const [x, y] = fromMiddle({
    clientX: (now.clientX + other.clientX) / 2,
    clientY: (now.clientY + other.clientY) / 2,
  });
  const moved = { ...view, x: view.x + (now.clientX - before.clientX) / 2, y: view.y + (now.clientY - before.clientY) / 2 };
  return zoomed(moved, distance(now) / Math.max(1, distance(before)), x, y);
}
