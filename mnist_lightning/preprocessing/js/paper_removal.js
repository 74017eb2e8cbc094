// Separate ink from paper: paper_removal.py in JavaScript.
"use strict";

const paperRemoval = (() => {
  const {
    THUMBNAIL_SIDE, MAX_STROKE, MAX_STROKE_CLOSE_CROP, UNIFORM, MAX_BETWEEN, MAX_CLOSE_CROP, BLURRED, MIN_FLAT,
    MIN_BRIGHTNESS,
  } = constants.paper_removal;

  const { fround } = Math;
  const { rint, map, share, clip } = arrays;

  function shrink(gray, maxSide) {
    const scale = maxSide / Math.max(gray.width, gray.height);
    if (scale >= 1) return gray;
    const [width, height] = [gray.width, gray.height].map((side) => Math.max(1, rint(side * scale)));
    return pillow.resize(gray, width, height, "box");
  }

  // Estimate the brightness that the paper would have without ink.
  function paperOf(gray, dark) {
    const level = evenPaper(gray) ?? flatPaper(gray, dark);
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

  // The brightness of the paper of a scan; null if the image may be a photo.
  function flatPaper(gray, dark) {
    const level = dark ? arrays.max(gray.data) : -arrays.max(gray.data.map((value) => -value));
    const distance = map(gray, (value) => Math.abs(value - level));
    const most = arrays.max(distance.data);
    const ink = map(distance, (value) => Number(value > most / 2));
    const reach = 1 + Math.trunc(Math.max(gray.width, gray.height) / BLURRED);
    const near = (isSmall(gray) ? maxFilter(ink, reach, -Infinity) : ink).data;
    const known = share(distance.data, (value, i) => value <= UNIFORM || near[i]);
    const paper = share(distance.data, (value) => value <= UNIFORM);
    return paper >= MIN_FLAT && known >= 1 - MAX_BETWEEN ? level : null;
  }

  const isSmall = ({ width, height }) => Math.max(width, height) <= THUMBNAIL_SIDE;

  // Whether an image is small, and not a photo: without shadows.
  const isSmallScan = (gray) => isSmall(gray) && flatPaper(gray, isDark(gray)) !== null;

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
    const border = borderOf(gray);
    const bright = share(border, (value) => value > fround((low + high) / 2));
    if (!(1 - MAX_CLOSE_CROP < bright && bright < MAX_CLOSE_CROP)) {
      return 2 * fround(arrays.median(border)) + middle >= 1.5 * (low + high);
    }
    const { width, height } = gray;
    const side = Math.max(1, Math.trunc(Math.min(width, height) / 6));
    const corners = [0, height - side].flatMap((top) =>
      [0, width - side].flatMap((left) =>
        Array.from(arrays.cropped(gray, left, top, left + side, top + side).data)));
    const means = [corners, gray.data, border].map((values) => arrays.sum(values) / values.length);
    return arrays.sum(means) / means.length >= (low + high) / 2;
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

  return { shrink, maxFilter, borderOf, isDark, isSmall, isSmallScan, inkStrength, fullStrength };
})();
