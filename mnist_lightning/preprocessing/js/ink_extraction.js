// From an image to the ink of its digits: ink_extraction.py in JavaScript.
"use strict";

const inkExtraction = (() => {
  const { WORKING_SIDE, FORM_SIDE, MIN_TABLE_BORDER, MIN_CONTRAST } = constants.ink_extraction;

  const { fround } = Math;
  const { rint, map, share, clip } = arrays;
  const { shrink, maxFilter, borderOf, isDark, isSmall, isSmallScan, inkStrength, fullStrength } = paperRemoval;

  // The ink of each digit: {ink, dark, box, wide, cell}. The image is {width, height, data}: red, green,
  // blue and alpha of each pixel, as in a canvas.
  function extractDigits(image, multiple) {
    if (!image.width || !image.height) {
      throw new Error(`the image is empty: ${image.width}x${image.height} pixels`);
    }
    const page = findInk(image, WORKING_SIDE);
    if (multiple !== false && formCells.isForm(page.ink)) {
      const large = findInk(image, FORM_SIDE);
      const level = forms.makeLevel(large.ink);
      const cells = formCells.findCells(level.ink);
      const digits = forms.digitsIn(cells, level.ink);
      if (cells.length && digits) return extractForm(large, level, digits);
    }
    const ink = lineRemoval.removeLines(page.ink);
    const padded = arrays.padded(ink, 1);
    return components.segmentDigits(ink, multiple, page.isScan).map((digit) => ({
      ink: crop(padded, digit), dark: page.dark, box: page.toImage(digit.box), wide: digit.wide, cell: null,
    }));
  }

  // The ink of an image, whose longer side is reduced to `longest` pixels: {ink, dark, isScan, toImage}.
  // `toImage` returns the box in the image of a box in the ink.
  function findInk(image, longest) {
    const longer = Math.max(image.width, image.height);
    const factor = Math.trunc(longer / (2 * WORKING_SIDE));
    for (const view of views(factor < 2 ? image : pillow.reduce(image, factor), longest)) {
      const dark = isDark(view.gray);
      const strength = inkStrength(view.gray, dark);
      const full = fullStrength(strength);
      if (full < MIN_CONTRAST) continue;
      const ink = map(strength, (value) => clip(fround(value / fround(full)), 0, 1));
      const offsets = [view.left, view.top, view.left, view.top];
      const toImage = (box) => box.map((value, i) => rint((offsets[i] + value) * (longer / view.side)));
      return { ink, dark, isScan: isSmallScan(view.gray), toImage };
    }
    throw new Error("no digit in the image: its contrast is too low");
  }

  // The digits of a form, row by row.
  function extractForm(page, level, digits) {
    if (!digits.length) throw new Error("no digit in the image: all cells of the form are empty");
    const padded = arrays.padded(level.ink, 1);
    return digits.map((digit) => ({
      ink: crop(padded, digit),
      dark: page.dark,
      box: page.toImage(level.toOriginal(digit.box)),
      wide: digit.wide,
      cell: [digit.cell.row, digit.cell.column],
    }));
  }

  // The ink of one digit, with one pixel around it.
  function crop(padded, { mask, box: [left, top, right, bottom] }) {
    const widened = maxFilter(map(arrays.padded(mask, 1), Number, Float32Array), 1, -Infinity);
    const ink = arrays.cropped(padded, left, top, right + 2, bottom + 2);
    const byte = (value, i) => rint(fround(255 * value)) * widened.data[i];
    return { ...ink, data: Uint8Array.from(ink.data, byte) };
  }

  // Views of an image, reduced to `longest` pixels: the sheet alone, the whole, each color.
  function* views(image, longest) {
    const whole = shrink(grayOf(image), longest);
    const side = Math.max(whole.width, whole.height);
    const sheet = findSheet(whole);
    if (sheet) yield sheet;
    yield { gray: whole, left: 0, top: 0, side };
    for (const channel of [0, 1, 2]) {
      const data = Float32Array.from({ length: image.width * image.height }, (_, i) =>
        image.data[4 * i + channel]);
      yield { gray: shrink({ ...image, data }, longest), left: 0, top: 0, side };
    }
  }

  function grayOf({ width, height, data }) {
    const count = width * height;
    const gray = { width, height, data: new Float32Array(count) };
    let [light, weight, opaque] = [0, 0, true];
    for (let i = 0, at = 0; i < count; i++, at += 4) {
      const alpha = data[at + 3];
      gray.data[i] = pillow.luma(data[at], data[at + 1], data[at + 2]);
      light += (gray.data[i] * alpha) / 255;
      weight += alpha / 255;
      opaque &&= alpha === 255;
    }
    if (opaque) return gray;
    const paper = light > 127 * weight ? 0 : 255; // whichever has the higher contrast
    const seen = (at, alpha) => pillow.over(data[at], alpha, paper);
    for (let i = 0, at = 0; i < count; i++, at += 4) {
      const alpha = data[at + 3];
      gray.data[i] = pillow.luma(seen(at, alpha), seen(at + 1, alpha), seen(at + 2, alpha));
    }
    return gray;
  }

  // The sheet in an image that shows the table too.
  function findSheet(gray) {
    if (isSmall(gray)) return null;
    const middle = fround(arrays.sum(arrays.quantiles(gray.data, [0.01, 0.99]).map(fround)) / 2);
    const brightBorder = share(borderOf(gray), (value) => value > middle);
    if (1 - MIN_TABLE_BORDER < brightBorder && brightBorder <= MIN_TABLE_BORDER) return null;
    const inside = map(gray, (value) => value > middle === brightBorder <= 0.5, Uint8Array);
    const columns = filled(arrays.transposed(inside));
    const rows = filled(inside);
    if (!columns || !rows) return null;
    const paper = arrays.cropped(inside, columns.from, rows.from, columns.to, rows.to);
    const [shorter, longer] = [paper.width, paper.height].sort((a, b) => a - b);
    const large = paper.data.length > 0.2 * inside.data.length && shorter > 0.3 * longer;
    if (!large || share(paper.data, Boolean) <= 0.8) return null;
    return {
      gray: arrays.cropped(gray, columns.from, rows.from, columns.to, rows.to),
      left: columns.from,
      top: rows.from,
      side: Math.max(gray.width, gray.height),
    };
  }

  // The first and the last row (excluded) that are mostly set, without a rim.
  function filled({ width, height, data }) {
    const rows = Array.from({ length: height }, (_, y) => y).filter(
      (y) => share(data.subarray(y * width, (y + 1) * width), Boolean) > 0.4,
    );
    if (!rows.length) return null;
    const [first, last] = [rows[0], rows.at(-1) + 1];
    const rim = 1 + Math.trunc((last - first) / 50);
    const from = Math.min(first + rim, height);
    return { from, to: Math.min(Math.max(last - rim, first + rim + 1), height) };
  }

  return { MIN_CONTRAST, extractDigits, grayOf };
})();
