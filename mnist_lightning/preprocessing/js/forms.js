// Make a scanned form level, and find the digit in each of its cells: forms.py in JavaScript.
"use strict";

const forms = (() => {
  const { CLEAR_LINES, MIN_DIGIT, EDGE, EDGE_OF_LONG, LONG, MAX_CUT } = constants.forms;

  const LINE_INK = Math.fround(CLEAR_LINES.at(-1));

  // Rotate the ink of a page until its lines are level: {ink, toOriginal}.
  function makeLevel(ink) {
    const points = [];
    ink.data.forEach((value, i) => {
      if (value > LINE_INK) points.push({ x: i % ink.width, y: Math.trunc(i / ink.width) });
    });
    const angle = Math.atan(lineRemoval.findSlope(points));
    const rotated = pillow.rotate(ink, angle);
    const level = arrays.map(rotated, (value) => arrays.clip(value, 0, 1));

    // The box around a box of the level page, in the page before the rotation.
    function toOriginal([left, top, right, bottom]) {
      const corners = [[left, top], [right, top], [right, bottom], [left, bottom]].map(([x, y]) => {
        const [across, down] = [x - level.width / 2, y - level.height / 2];
        return [
          Math.cos(angle) * across - Math.sin(angle) * down + ink.width / 2,
          Math.sin(angle) * across + Math.cos(angle) * down + ink.height / 2,
        ];
      });
      return [Math.min, Math.max].flatMap((extreme) => [0, 1].map((i) => extreme(...corners.map((corner) => corner[i]))));
    }

    return { ink: level, toOriginal };
  }

  // The digits in the cells of the ink of a level page: {cell, mask, box, wide}; an empty cell has none.
  // The answer is null if most digits are cut by their cells: the page is squared paper, not a form.
  function digitsIn(cells, page) {
    const found = cells.map((cell) => ({ ...digitIn(cell, page), cell })).filter((digit) => digit.box);
    const cut = found.filter(isCut).length;
    return cut <= MAX_CUT * found.length ? found : null;
  }

  function isCut({ box: [left, top, right, bottom], cell }) {
    const before = (left <= cell.left + 1) + (top <= cell.top + 1);
    return before + (right >= cell.right - 1) + (bottom >= cell.bottom - 1) > 1;
  }

  // The digit in a cell, or null.
  function digitIn(cell, page) {
    const ink = lineRemoval.removeLines(arrays.cropped(page, cell.left, cell.top, cell.right, cell.bottom));
    if (arrays.max(ink.data) <= components.CORE_THRESHOLD) return null;
    const [digit] = components.segmentDigits(ink, false, false);
    const [left, top, right, bottom] = digit.box;
    const { width, height } = ink;
    const isSpeck = right - left < MIN_DIGIT * width && bottom - top < MIN_DIGIT * height;
    if (isSpeck || isLine([left, right], width, bottom - top, height) ||
      isLine([top, bottom], height, right - left, width)) return null;
    return { ...digit, box: [left + cell.left, top + cell.top, right + cell.left, bottom + cell.top] };
  }

  // Whether a piece of ink is a rest of a cell's line: where it begins and ends across the line, the
  // size of the cell in this direction, the length of the piece, and the size of the cell along it.
  function isLine([start, end], size, length, fullLength) {
    if (end - start > EDGE * size) return false;
    const edge = size * (length > LONG * fullLength ? EDGE_OF_LONG : EDGE);
    return end <= edge || start >= size - edge;
  }

  return { makeLevel, digitsIn };
})();
