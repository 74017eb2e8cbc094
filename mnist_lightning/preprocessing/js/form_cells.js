// Find the ruled cells of a form, a table or separate boxes: form_cells.py in JavaScript. A box has
// left, top, right and bottom (ends excluded); a cell also has its row and column, from 1.
"use strict";

const formCells = (() => {
  const {
    MIN_CELLS, CLEAR_LINES, PALE_LINES, AVERAGED, MUCH_MORE, MAX_CELLS, MAX_BOXES, MIN_SIDE, MAX_ASPECT,
    MIN_FILL, MAX_RATIO, MAX_INKED, MIN_RULED,
  } = constants.form_cells;

  const { fround } = Math;
  const { rint, map, share } = arrays;

  const widthOf = (box) => box.right - box.left;
  const heightOf = (box) => box.bottom - box.top;
  // The area of cells: strokes that divide cells add cells, but no area.
  const areaOf = (cells) => arrays.sum(cells.map((cell) => widthOf(cell) * heightOf(cell)));

  // The cells in the ink of an upright page; none if it is not a form.
  function findCells(ink) {
    const [clear, pale] = [clearLines(ink), paleLines(ink)].map((masks) =>
      masks.map(find).reduce((a, b) => (areaOf(b) > areaOf(a) ? b : a)));
    return areaOf(pale) > MUCH_MORE * areaOf(clear) ? pale : clear;
  }

  // Whether the ink of a page, which may be rotated, shows cells.
  function isForm(ink) {
    const hasCells = (mask) => similar(enclosed(mask)).length >= MIN_CELLS;
    return clearLines(ink).some(hasCells) || paleLines(ink).some(hasCells);
  }

  const clearLines = (ink) => CLEAR_LINES.map((strength) => above(ink, fround(strength)));

  function above({ width, height, data }, strength) {
    const mask = new Uint8Array(data.length);
    for (let i = 0; i < data.length; i++) mask[i] = data[i] > strength ? 1 : 0;
    return { width, height, data: mask };
  }

  function paleLines(ink) {
    const down = arrays.transposed(averageRows(arrays.transposed(ink))).data;
    const larger = averageRows(ink);
    for (let i = 0; i < down.length; i++) if (down[i] > larger.data[i]) larger.data[i] = down[i];
    return PALE_LINES.map((strength) => above(larger, fround(strength)));
  }

  // The mean of AVERAGED pixels of a row around each; the row is reflected at its ends.
  function averageRows({ width, height, data }) {
    const result = new Float32Array(data.length);
    const reach = (AVERAGED - 1) / 2;
    // The column of each pixel of a row that is longer by `reach` at both ends.
    const columns = Int32Array.from({ length: width + 2 * reach }, (_, i) => {
      const place = (i + reach * (2 * width - 1)) % (2 * width);
      return Math.min(place, 2 * width - 1 - place);
    });
    for (let start = 0; start < data.length; start += width) {
      let total = 0;
      for (let i = 0; i < 2 * reach; i++) total += data[start + columns[i]];
      for (let x = 0; x < width; x++) {
        total += data[start + columns[x + 2 * reach]];
        result[start + x] = total / AVERAGED;
        total -= data[start + columns[x]];
      }
    }
    return { width, height, data: result };
  }

  // The cells whose lines are in a mask; none if they are few or irregular.
  function find(mask) {
    const boxes = similar(enclosed(mask));
    if (boxes.length < MIN_CELLS || !isRegular(number(boxes))) return [];
    const cells = number([...boxes, ...missing(boxes, mask)]);
    const found = isRegular(cells) ? cells : number(boxes);
    return found.sort((a, b) => a.row - b.row || a.column - b.column);
  }

  // Whether each cell has its own row and column.
  function isRegular(cells) {
    const places = new Set(cells.map(({ row, column }) => `${row} ${column}`));
    return places.size === cells.length && cells.length <= MAX_CELLS;
  }

  // A mask, and the pixels around what is set.
  function dilated(mask) {
    let result = mask;
    for (const _ of [0, 1]) {
      const { width, height, data } = result;
      const wider = data.slice();
      for (let i = 0, x = 0; i < data.length; i++, x = x + 1 < width ? x + 1 : 0) {
        if (!data[i]) continue;
        if (x > 0) wider[i - 1] = 1;
        if (x + 1 < width) wider[i + 1] = 1;
      }
      result = arrays.transposed({ width, height, data: wider });
    }
    return result;
  }

  // The boxes of rectangular areas of paper that ink encloses.
  function enclosed(mask) {
    const { width, height } = mask;
    const open = dilated(mask);
    for (let i = 0; i < open.data.length; i++) open.data[i] = 1 - open.data[i];
    const paper = dilated(open); // gaps of two pixels are closed
    const { labels, parts } = components.labelComponents(paper, paper, false);
    return parts.filter((box) => {
      const isInside = box.left > 0 && box.top > 0 && box.right < width && box.bottom < height;
      const [short, long] = [widthOf(box), heightOf(box)].sort((a, b) => a - b);
      if (!isInside || short < MIN_SIDE || long > MAX_ASPECT * short) return false;
      const place = arrays.cropped(labels, box.left, box.top, box.right, box.bottom);
      const rest = map(place, (label) => label !== box.label, Uint8Array);
      const outside = components.labelComponents(rest, rest, false).parts.filter((part) =>
        components.touchesBorder(part, rest));
      const filled = rest.data.length - arrays.sum(outside.map((part) => part.mass));
      return filled / rest.data.length >= MIN_FILL;
    });
  }

  // The largest group of boxes whose sides are alike; none of a pattern.
  function similar(boxes) {
    if (!boxes.length || boxes.length > MAX_BOXES) return [];
    const sides = boxes.map((box) => [widthOf(box), heightOf(box)]);
    const isClose = (a, b) => Math.max(a, b) <= MAX_RATIO * Math.min(a, b);
    const areAlike = (a, b) => isClose(a[0], b[0]) && isClose(a[1], b[1]);
    const counts = sides.map((one) => sides.filter((other) => areAlike(one, other)).length);
    const chosen = sides[counts.indexOf(Math.max(...counts))];
    return boxes.filter((_, i) => areAlike(chosen, sides[i]));
  }

  // Give each box its row and its column.
  function number(boxes) {
    const rows = bands(boxes.map(({ top, bottom }) => [top, bottom]));
    const columns = bands(boxes.map(({ left, right }) => [left, right]));
    return boxes.map(({ left, top, right, bottom }, i) =>
      ({ row: rows[i], column: columns[i], left, top, right, bottom }));
  }

  // For each span the number of its band, from 1: spans of a band overlap.
  function bands(spans) {
    const middles = spans.map(([start, end]) => (start + end) / 2);
    const size = arrays.median(Float64Array.from(spans, ([start, end]) => end - start));
    const order = spans.map((_, i) => i).sort((a, b) => middles[a] - middles[b]);
    const numbers = [];
    order.forEach((span, i) => {
      const before = order[i - 1];
      if (!i) numbers[span] = 1;
      else numbers[span] = numbers[before] + (middles[span] - middles[before] > size / 2 ? 1 : 0);
    });
    return numbers;
  }

  // Further boxes in the rows and columns of these, with a line on each side. Their paper is not
  // enclosed, because a line has gaps, or a digit divides it.
  function missing(boxes, mask) {
    const rows = grid(boxes.map(({ top, bottom }) => [top, bottom]), mask.height);
    const columns = grid(boxes.map(({ left, right }) => [left, right]), mask.width);
    if (rows.length * columns.length > 2 * MAX_CELLS) return [];
    const candidates = rows.flatMap(([top, bottom]) =>
      columns.map(([left, right]) => ({ left, top, right, bottom })));
    return candidates.filter((box) => !boxes.some((other) => holdsCenter(box, other)) && isRuled(box, mask));
  }

  // Where each band begins and ends; bands are added in large gaps, and one at each end.
  function grid(spans, size) {
    const numbers = bands(spans);
    const medians = (pairs) => [0, 1].map((i) => arrays.median(Float64Array.from(pairs, (pair) => pair[i])));
    const found = [...new Set(numbers)].sort((a, b) => a - b).map((band) =>
      medians(spans.filter((_, i) => numbers[i] === band)));
    const added = [];
    if (found.length > 1) {
      const steps = found.slice(1).map((after, i) => [after[0] - found[i][0], after[1] - found[i][1]]);
      const step = arrays.median(Float64Array.from(steps.flat()));
      added.push(found[0].map((end) => end - step), found.at(-1).map((end) => end + step));
      steps.forEach((gap, i) => {
        const parts = Math.max(1, rint((gap[0] + gap[1]) / 2 / step));
        for (let part = 1; part < parts; part++) {
          added.push(found[i].map((end, side) => end + (gap[side] * part) / parts));
        }
      });
    }
    return [...found, ...added].filter(([begin, end]) => begin >= 0 && end <= size).map((pair) => pair.map(rint));
  }

  function holdsCenter(box, other) {
    const [across, down] = [other.left + other.right, other.top + other.bottom];
    return 2 * box.left < across && across < 2 * box.right && 2 * box.top < down && down < 2 * box.bottom;
  }

  // Whether most of each side of a box is ink, and its inside is not.
  function isRuled({ left, top, right, bottom }, mask) {
    const { width, height } = mask;
    const inside = arrays.cropped(mask, left, top, right, bottom);
    if (share(inside.data, Boolean) > MAX_INKED) return false;
    const reach = Math.max(2, Math.trunc((bottom - top) / 10)); // the sides need not be exactly level
    const sides = [
      arrays.transposed(arrays.cropped(mask, left, Math.max(0, top - reach), right, top + 1)),
      arrays.transposed(arrays.cropped(mask, left, bottom - 1, right, Math.min(bottom + reach, height))),
      arrays.cropped(mask, Math.max(0, left - reach), top, left + 1, bottom),
      arrays.cropped(mask, right - 1, top, Math.min(right + reach, width), bottom),
    ];
    const isInked = (side) => (_, i) => side.data.subarray(i * side.width, (i + 1) * side.width).includes(1);
    return sides.every((side) => share(new Uint8Array(side.height), isInked(side)) >= MIN_RULED);
  }

  return { findCells, isForm };
})();
