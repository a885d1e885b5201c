// Where each cell of the gallery stands. It is pure arithmetic: the whole list has its height at once.

export const GAP = 6;
const HEADING = 44;

/**
 * @typedef {{day: string, top: number, bottom: number, cellsTop: number, first: number, count: number}} Block
 * @typedef {{columns: number, cell: number, height: number, blocks: Block[]}} Layout
 * @typedef {{index: number, left: number, top: number}} Place
 */

/**
 * @param {[string, number][]} days with the number of images of each
 * @param {number} width of the list in pixels
 * @param {number} minCell the least side of a cell
 * @returns {Layout}
 */
export function layoutOf(days, width, minCell) {
  const columns = Math.max(2, Math.floor((width + GAP) / (minCell + GAP)));
  const cell = Math.max(1, (width - GAP * (columns - 1)) / columns);
  /** @type {Block[]} */
  const blocks = [];
  let top = 0;
  let first = 0;
  for (const [day, count] of days) {
    const cellsTop = top + (day ? HEADING : 0);
    const rows = Math.ceil(count / columns);
    const bottom = cellsTop + rows * (cell + GAP);
    blocks.push({ day, top, bottom, cellsTop, first, count });
    top = bottom;
    first += count;
  }
  return { columns, cell, height: top, blocks };
}

/**
 * The first block that ends below a height.
 * @param {Layout} layout
 * @param {number} y
 */
function blockAt(layout, y) {
  let low = 0;
  let high = layout.blocks.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (layout.blocks[middle].bottom > y) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * What is to be seen between two heights.
 * @param {Layout} layout
 * @param {number} top
 * @param {number} bottom
 * @returns {{headings: Block[], places: Place[]}}
 */
export function visibleIn(layout, top, bottom) {
  /** @type {Block[]} */
  const headings = [];
  /** @type {Place[]} */
  const places = [];
  const pitch = layout.cell + GAP;
  for (let at = blockAt(layout, top); at < layout.blocks.length; at += 1) {
    const block = layout.blocks[at];
    if (block.top >= bottom) break;
    if (block.day) headings.push(block);
    const firstRow = Math.max(0, Math.floor((top - block.cellsTop) / pitch));
    const lastRow = Math.floor((bottom - block.cellsTop) / pitch);
    const last = Math.min(block.count, (lastRow + 1) * layout.columns);
    for (let cell = firstRow * layout.columns; cell < last; cell += 1) {
      places.push(placeIn(layout, block, cell));
    }
  }
  return { headings, places };
}

/** @param {Layout} layout @param {Block} block @param {number} cell @returns {Place} */
function placeIn(layout, block, cell) {
  const pitch = layout.cell + GAP;
  return {
    index: block.first + cell,
    left: (cell % layout.columns) * pitch,
    top: block.cellsTop + Math.floor(cell / layout.columns) * pitch,
  };
}

/**
 * @param {Layout} layout
 * @param {number} index
 * @returns {Place | null}
 */
export function placeOf(layout, index) {
  const block = layout.blocks.find((each) => index < each.first + each.count);
  return block && index >= 0 ? placeIn(layout, block, index - block.first) : null;
}

/**
 * The position above or below a position, over the gap between two days.
 * @param {Layout} layout
 * @param {number} index
 * @param {1 | -1} direction
 */
export function rowNeighbour(layout, index, direction) {
  const at = layout.blocks.findIndex((each) => index < each.first + each.count);
  const block = layout.blocks[at];
  if (!block) return index;
  const cell = index - block.first;
  const next = cell + direction * layout.columns;
  if (next >= 0 && next < block.count) return block.first + next;
  const lastRow = Math.floor((block.count - 1) / layout.columns);
  if (direction === 1 && Math.floor(cell / layout.columns) < lastRow) return block.first + block.count - 1;
  const other = layout.blocks[at + direction];
  if (!other) return index;
  const column = cell % layout.columns;
  const row = direction === 1 ? 0 : Math.floor((other.count - 1) / layout.columns);
  return other.first + Math.min(other.count - 1, row * layout.columns + column);
}
