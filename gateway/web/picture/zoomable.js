// An image that can be zoomed and moved, by wheel, fingers, buttons and keys.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { followZoom, zoomed } from "../lib/zoom_pan.js";
import { bindKeys } from "../ui/shortcuts.js";
import { IconButton } from "../ui/controls.js";

/**
 * @param {{src: string, placeholder?: string, alt: string, width?: number | null, height?: number | null,
 *   onSwipe?: (direction: 1 | -1) => void}} props
 */
export function Zoomable({ src, placeholder, alt, width, height, onSwipe }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const [view, setView] = useState({ scale: 1, x: 0, y: 0 });
  const [isLoaded, setLoaded] = useState(false);
  const latest = useRef(view);
  latest.current = view;
  const swipe = useRef(onSwipe);
  swipe.current = onSwipe;
  useLayoutEffect(() => {
    setView({ scale: 1, x: 0, y: 0 });
    setLoaded(false);
  }, [src]);
  useEffect(() => {
    const stop = followZoom(/** @type {HTMLElement} */ (box.current), {
      get: () => latest.current,
      set: setView,
      onSwipe: (direction) => swipe.current?.(direction),
    });
    const unbind = bindKeys({
      "+": () => setView((each) => zoomed(each, 1.4)),
      "Shift++": () => setView((each) => zoomed(each, 1.4)),
      "=": () => setView((each) => zoomed(each, 1.4)),
      "-": () => setView((each) => zoomed(each, 1 / 1.4)),
      "0": () => setView({ scale: 1, x: 0, y: 0 }),
    });
    return () => {
      stop();
      unbind();
    };
  }, []);
  const transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  return html`<div class="zoom-box">
    <div class=${`zoom-area ${view.scale > 1 ? "is-zoomed" : ""}`} ref=${box}
      onDblClick=${() => setView(view.scale > 1 ? { scale: 1, x: 0, y: 0 } : zoomed(view, 2.5))}>
      ${!isLoaded && placeholder && html`<img class="zoom-image" src=${placeholder} alt="" width=${width ?? undefined} height=${height ?? undefined} draggable=${false} />`}
      <img class=${`zoom-image ${isLoaded || !placeholder ? "" : "is-loading"} ${view.scale > 3 ? "is-crisp" : ""}`} src=${src} alt=${alt}
        width=${width ?? undefined} height=${height ?? undefined} draggable=${false} style=${{ transform }} onLoad=${() => setLoaded(true)} />
    </div>
    <div class="zoom-buttons" role="group" aria-label="Zoom">
      <${IconButton} icon="ZoomOut" label="Smaller" keys="−" onClick=${() => setView(zoomed(view, 1 / 1.5))} />
      <button type="button" class="zoom-scale" aria-label=${`${Math.round(view.scale * 100)} %, fit into the window`} title="Fit (0)" onClick=${() => setView({ scale: 1, x: 0, y: 0 })}>${Math.round(view.scale * 100)} %</button>
      <${IconButton} icon="ZoomIn" label="Larger" keys="+" onClick=${() => setView(zoomed(view, 1.5))} />
    </div>
  </div>`;
}
