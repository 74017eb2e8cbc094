// From an image to the ink of its digits: ink_extraction.py in JavaScript.
"use strict";

const inkExtraction = (() => {
  const { WORKING_SIDE, THUMBNAIL_SIDE, MAX_STROKE, MAX_STROKE_CLOSE_CROP, UNIFORM, MAX_BETWEEN,
    MIN_TABLE_BORDER, MIN_CONTRAST, MIN_BRIGHTNESS } = constants.ink_extraction;

  const { fround } = Math;
  const { rint, map, share } = arrays;
  const clip = (value, min, max) => Math.min(Math.max(value, min), max);

  // The ink of each digit: {ink, dark, box, wide}. The image is {width, height, data}: red, green, blue
  // and alpha of each pixel, as in a canvas.
  function extractDigits(image, multiple) {
    if (!image.width || !image.height) {
      throw new Error(`the image is empty: ${image.width}x${image.height} pixels`);
    }
    const longer = Math.max(image.width, image.height);
    const factor = Math.trunc(longer / (2 * WORKING_SIDE));
    for (const view of views(factor < 2 ? image : pillow.reduce(image, factor))) {
      const dark = isDark(view.gray);
      const strength = inkStrength(view.gray, dark);
      const full = fullStrength(strength);
      if (full < MIN_CONTRAST) continue;
      const ink = lineRemoval.removeLines(
        map(strength, (value) => clip(fround(value / fround(full)), 0, 1)));
      const padded = arrays.padded(ink, 1);
      const scale = longer / view.side;
      const offsets = [view.left, view.top, view.left, view.top];
      return components.segmentDigits(ink, multiple).map((digit) => ({
        ink: crop(padded, digit),
        dark,
        box: digit.box.map((value, i) => rint((offsets[i] + value) * scale)),
        wide: digit.wide,
      }));
    }
    throw new Error("no digit in the image: its contrast is too low");
  }

  // The ink of one digit, with one pixel around it.
  function crop(padded, { mask, box: [left, top, right, bottom] }) {
    const widened = maxFilter(map(arrays.padded(mask, 1), Number, Float32Array), 1, -Infinity);
    const ink = arrays.cropped(padded, left, top, right + 2, bottom + 2);
    const byte = (value, i) => rint(fround(255 * value)) * widened.data[i];
    return { ...ink, data: Uint8Array.from(ink.data, byte) };
  }

  // Views of an image in the working size: the sheet alone, the whole, each color.
  function* views(image) {
    const whole = reduce(grayOf(image));
    const side = Math.max(whole.width, whole.height);
    const sheet = findSheet(whole);
    if (sheet) yield sheet;
    yield { gray: whole, left: 0, top: 0, side };
    for (const channel of [0, 1, 2]) {
      const data = Float32Array.from({ length: image.width * image.height }, (_, i) =>
        image.data[4 * i + channel]);
      yield { gray: reduce({ ...image, data }), left: 0, top: 0, side };
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

  function shrink(gray, maxSide) {
    const scale = maxSide / Math.max(gray.width, gray.height);
    if (scale >= 1) return gray;
    const [width, height] = [gray.width, gray.height].map((side) => Math.max(1, rint(side * scale)));
    return pillow.resize(gray, width, height, "box");
  }

  const reduce = (gray) => shrink(gray, WORKING_SIDE);

  // The sheet in an image that shows the table too.
  function findSheet(gray) {
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

  // Estimate the brightness that the paper would have without ink.
  function paperOf(gray, dark) {
    const level = evenPaper(gray);
    if (level !== null) return map(gray, () => level);
    const sign = dark ? 1 : -1;
    const small = shrink(gray, THUMBNAIL_SIDE);
    const thumbnail = map(small, (value) => sign * value);
    const outside = outsideOf(thumbnail);
    const stroke = outside === -Infinity ? MAX_STROKE : MAX_STROKE_CLOSE_CROP;
    const size = rint(stroke * Math.min(small.width, small.height)) | 1;
    const reach = Math.trunc(Math.max(3, size) / 2);
    const grown = map(maxFilter(thumbnail, reach, outside), (value) => -value);
    const closed = map(
      maxFilter(grown, reach, -Infinity), (value) => clip(rint(-sign * value), 0, 255), Uint8Array,
    );
    const smooth = pillow.gaussianBlur(closed, (2 * reach + 1) / 4);
    return pillow.resize(smooth, gray.width, gray.height, "bicubic");
  }

  // For each value the maximum of a square around it, `reach` from its center to its edge.
  function maxFilter(field, reach, outside) {
    let result = field;
    for (const _ of [0, 1]) {
      const { width, height, data } = result;
      const maxima = new Float32Array(data.length);
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          let value = x < reach || x >= width - reach ? outside : -Infinity;
          const last = Math.min(x + reach, width - 1);
          for (let near = Math.max(x - reach, 0); near <= last; near++) {
            value = Math.max(value, data[y * width + near]);
          }
          maxima[y * width + x] = value;
        }
      }
      result = arrays.transposed({ width, height, data: maxima });
    }
    return result;
  }

  // The brightness of paper without shadows; null if there may be shadows.
  function evenPaper(gray) {
    const border = borderOf(gray);
    const level = arrays.max(border);
    if (level - Math.min(...border) > UNIFORM) return null;
    const distance = map(gray, (value) => Math.abs(value - level)).data;
    const most = arrays.max(distance);
    const paper = share(distance, (value) => value <= UNIFORM);
    const ink = share(distance, (value) => value > most / 2);
    return paper > 0.5 && paper + ink >= 1 - MAX_BETWEEN ? level : null;
  }

  // The value outside an image with dark ink: the paper's, if strokes touch the border.
  function outsideOf(gray) {
    const [low, high] = arrays.quantiles(gray.data, [0.01, 0.99]).map(fround);
    const values = borderOf(gray);
    const border = values.map((value) => (value - low) / Math.max(high - low, 1));
    const inked = share(border, (value) => value < 0.25);
    const between = share(border, (value) => value >= 0.25 && value <= 0.75);
    const paper = values.filter((_, i) => border[i] > 0.75);
    const closeCrop = inked > 0.01 && inked < 0.6 && between < 0.2 && paper.length;
    return closeCrop ? arrays.median(paper) : -Infinity;
  }

  // The pixels of the border, the corners twice.
  function borderOf({ width, height, data }) {
    const border = new Float32Array(2 * (width + height));
    border.set(data.subarray(0, width), 0);
    border.set(data.subarray((height - 1) * width), width);
    for (let y = 0; y < height; y++) {
      border[2 * width + y] = data[y * width];
      border[2 * width + height + y] = data[(y + 1) * width - 1];
    }
    return border;
  }

  // Whether the ink is darker than the paper, to which most of the border belongs.
  function isDark(gray) {
    const [low, middle, high] = arrays.quantiles(gray.data, [0.005, 0.5, 0.995]).map(fround);
    return fround(fround(arrays.median(borderOf(gray))) + middle) >= fround(low + high);
  }

  // The ink at each pixel: the share of the paper's light that it absorbs, 0 to 1.
  function inkStrength(gray, dark) {
    const paper = paperOf(gray, dark).data;
    const data = gray.data.map((value, i) => {
      const contrast = dark ? paper[i] - value : value - paper[i];
      const range = Math.max(dark ? paper[i] : 255 - paper[i], MIN_BRIGHTNESS);
      return clip(fround(contrast) / range, 0, 1);
    });
    return { ...gray, data };
  }

  // The strength of the ink in the cores of strokes, rather than of single pixels.
  function fullStrength(strength) {
    let core = map(strength, (value) => fround(value * 255), Uint8Array);
    if (Math.min(core.width, core.height) > 4 * THUMBNAIL_SIDE) core = pillow.boxBlur(core, 1);
    const max = arrays.max(core.data);
    const inked = core.data.filter((value) => value > max / 2);
    return inked.length ? fround(arrays.median(inked) / 255) : 0;
  }

  return { MIN_CONTRAST, extractDigits, grayOf, borderOf };
})();
