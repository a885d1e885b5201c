// Draws a finished grid as one PNG with the labels of both axes.

const LABEL_PX = 40;
const GAP_PX = 6;
const MAX_CELL_PX = 1024;
const MAX_CANVAS_PX = 16_000;

/**
 * @param {{columns: string[], rows: string[], title: string, urls: (string | null)[]}} grid
 *   `urls` are row by row
 * @returns {Promise<Blob>}
 */
export async function gridPng({ columns, rows, title, urls }) {
  const images = await Promise.all(urls.map((url) => (url ? loadImage(url) : null)));
  const first = images.find((image) => image !== null);
  if (!first) throw new Error("The grid has no image yet.");
  const most = Math.min(MAX_CELL_PX, MAX_CANVAS_PX / Math.max(columns.length, rows.length) - GAP_PX);
  const scale = Math.min(1, most / Math.max(first.naturalWidth, first.naturalHeight));
  const cellWidth = Math.max(96, Math.round(first.naturalWidth * scale));
  const cellHeight = Math.round((cellWidth * first.naturalHeight) / first.naturalWidth);
  const left = rows.some(Boolean) ? 150 : 0;
  const canvas = document.createElement("canvas");
  canvas.width = left + columns.length * (cellWidth + GAP_PX) + GAP_PX;
  canvas.height = LABEL_PX * 2 + rows.length * (cellHeight + GAP_PX) + GAP_PX;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#211e1a";
  context.textBaseline = "middle";
  label(context, title, 10, LABEL_PX / 2, canvas.width - 20, "left");
  columns.forEach((text, at) => {
    label(context, text, left + GAP_PX + at * (cellWidth + GAP_PX) + cellWidth / 2, LABEL_PX * 1.5, cellWidth, "center");
  });
  rows.forEach((text, row) => {
    const top = LABEL_PX * 2 + row * (cellHeight + GAP_PX);
    label(context, text, 10, top + cellHeight / 2, left - 16, "left");
    columns.forEach((_, column) => {
      const image = images[row * columns.length + column];
      if (image) context.drawImage(image, left + GAP_PX + column * (cellWidth + GAP_PX), top, cellWidth, cellHeight);
    });
  });
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The grid is too large for this browser."))), "image/png");
  });
}

/** @param {CanvasRenderingContext2D} context @param {string} text @param {number} x @param {number} y @param {number} width @param {CanvasTextAlign} align */
function label(context, text, x, y, width, align) {
  context.textAlign = align;
  context.font = "600 16px system-ui, sans-serif";
  let shown = text;
  while (shown.length > 4 && context.measureText(shown).width > width) shown = `${shown.slice(0, -2).trimEnd()}…`;
  context.fillText(shown, x, y, Math.max(width, 1));
}

/** @param {string} url @returns {Promise<HTMLImageElement | null>} */
function loadImage(url) {
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => resolve(null);
    image.src = url;
  });
}
