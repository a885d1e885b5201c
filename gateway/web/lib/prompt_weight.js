// Changes the weight of the selected words of a prompt: (words:1.1), as A1111 and compel read it.

const STEP = 0.1;
const WEIGHTED = /^\((.*):(-?\d+(?:\.\d+)?)\)$/s;

/**
 * @param {string} text
 * @param {number} start of the selection
 * @param {number} end
 * @param {1 | -1} direction
 * @returns {{text: string, start: number, end: number}}
 */
export function weighted(text, start, end, direction) {
  [start, end] = start === end ? wordAt(text, start) : trimmed(text, start, end);
  if (start === end) return { text, start, end };
  [start, end] = withParentheses(text, start, end);
  const chosen = text.slice(start, end);
  const match = WEIGHTED.exec(chosen);
  const words = match ? match[1] : chosen;
  const weight = Math.round(((match ? Number(match[2]) : 1) + direction * STEP) * 10) / 10;
  const next = weight === 1 ? words : `(${words}:${weight.toFixed(1)})`;
  return { text: text.slice(0, start) + next + text.slice(end), start, end: start + next.length };
}

/** @param {string} text @param {number} at @returns {[number, number]} */
function wordAt(text, at) {
  let start = at;
  let end = at;
  while (start > 0 && /[^\s,()]/.test(text[start - 1])) start -= 1;
  while (end < text.length && /[^\s,()]/.test(text[end])) end += 1;
  return [start, end];
}

/** @param {string} text @param {number} start @param {number} end @returns {[number, number]} */
function trimmed(text, start, end) {
  while (start < end && /\s/.test(text[start])) start += 1;
  while (end > start && /\s/.test(text[end - 1])) end -= 1;
  return [start, end];
}

/**
 * Take the parentheses in, where the selection is the inside of a weighted part.
 * @param {string} text @param {number} start @param {number} end @returns {[number, number]}
 */
function withParentheses(text, start, end) {
  if (WEIGHTED.test(text.slice(start, end))) return [start, end];
  const open = text.lastIndexOf("(", start);
  const close = text.indexOf(")", end - 1);
  if (open === -1 || close === -1 || text.slice(open + 1, start).includes(")")) return [start, end];
  const match = WEIGHTED.exec(text.slice(open, close + 1));
  return match && end <= open + 1 + match[1].length + match[2].length + 1 ? [open, close + 1] : [start, end];
}
