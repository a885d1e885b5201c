// Draws one of the vendored icons. It is decoration: the button around it has the name.
import { h } from "../vendor/preact.js";
import * as icons from "../vendor/icons.js";

/**
 * @param {{name: keyof typeof icons, size?: number, filled?: boolean}} props
 */
export function Icon({ name, size = 18, filled = false }) {
  const shapes = /** @type {any[]} */ (icons[name]).map(([tag, attributes]) => h(tag, attributes));
  return h(
    "svg",
    {
      class: "icon",
      viewBox: "0 0 24 24",
      width: size,
      height: size,
      fill: filled ? "currentColor" : "none",
      stroke: "currentColor",
      "stroke-width": 1.75,
      "stroke-linecap": "round",
      "stroke-linejoin": "round",
      "aria-hidden": "true",
      focusable: "false",
    },
    shapes,
  );
}
