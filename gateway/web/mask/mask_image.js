// Draws a mask from its strokes: what is opaque is painted again, what is transparent is kept.

/**
 * @typedef {{x: number, y: number}} Point in pixels of the mask
 * @typedef {{kind: "brush" | "eraser", size: number, points: Point[]}} Stroke
 * @typedef {{kind: "box", from: Point, to: Point}} Box
 * @typedef {{kind: "invert"} | {kind: "clear"} | {kind: "image", bitmap: ImageBitmap}} Whole
 * @typedef {Stroke | Box | Whole} Operation
 */

export const MAX_SIDE = 2048;

/** The colour of the mask on the screen; only its opacity is the mask. */
const TINT = "#ff2e6e";

/**
 * The sides of a mask over an image: its own, as far as a canvas should bear.
 * @param {number} width
 * @param {number} height
 */
export function maskSize(width, height) {
  const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Operation[]} operations
 */
export function paint(context, operations) {
  context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  for (const each of operations) apply(context, each);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Operation} operation
 */
export function apply(context, operation) {
  const { width, height } = context.canvas;
  context.save();
  context.fillStyle = context.strokeStyle = TINT;
  switch (operation.kind) {
    case "brush":
      stroke(context, operation);
      break;
    case "eraser":
      context.globalCompositeOperation = "destination-out";
      stroke(context, operation);
      break;
    case "box": {
      const { from, to } = operation;
      context.fillRect(Math.min(from.x, to.x), Math.min(from.y, to.y), Math.abs(to.x - from.x), Math.abs(to.y - from.y));
      break;
    }
    case "invert":
      context.globalCompositeOperation = "xor";
      context.fillRect(0, 0, width, height);
      break;
    case "clear":
      context.clearRect(0, 0, width, height);
      break;
    case "image":
      context.clearRect(0, 0, width, height);
      context.drawImage(operation.bitmap, 0, 0, width, height);
      context.globalCompositeOperation = "source-in";
      context.fillRect(0, 0, width, height);
      break;
  }
  context.restore();
}

/** @param {CanvasRenderingContext2D} context @param {Stroke} operation */
function stroke(context, { size, points }) {
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = size;
  context.beginPath();
  context.moveTo(points[0].x, points[0].y);
  for (const { x, y } of points) context.lineTo(x, y);
  if (points.length === 1) context.lineTo(points[0].x + 0.01, points[0].y);
  context.stroke();
}

/**
 * Turn a black and white image into white with its brightness as opacity.
 * @param {Blob} blob
 * @param {number} width
 * @param {number} height
 * @returns {Promise<ImageBitmap>}
 */
export async function maskFromImage(blob, width, height) {
  const source = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(width, height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.imageSmoothingEnabled = false;
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const [red, green, blue] = pixels.data.subarray(at, at + 3);
    pixels.data[at + 3] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
    pixels.data.fill(255, at, at + 3);
  }
  context.putImageData(pixels, 0, 0);
  return createImageBitmap(canvas);
}

/**
 * The mask as a black and white PNG; null where nothing is white.
 * @param {HTMLCanvasElement} mask
 * @param {number} softPx the width of the soft edge
 * @returns {Promise<Blob | null>}
 */
export async function maskPng(mask, softPx) {
  const { width, height } = mask;
  const canvas = new OffscreenCanvas(width, height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  if (softPx > 0) context.filter = `blur(${softPx / 2}px)`;
  context.drawImage(mask, 0, 0);
  context.filter = "none";
  context.globalCompositeOperation = "source-in";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  let isEmpty = true;
  for (let at = 0; at < data.length && isEmpty; at += 4) isEmpty = data[at] < 128;
  return isEmpty ? null : canvas.convertToBlob({ type: "image/png" });
}
