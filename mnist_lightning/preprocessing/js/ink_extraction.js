// From a picture to the ink of the digits in it: ink.py in JavaScript.
"use strict";

const inkOf = (() => {
  const WORKING = 800;
  const THUMB = 64;
  const STROKE = 0.22;
  const CLOSE_STROKE = 0.5;
  const TABLE = 0.95;
  const LEAST_CONTRAST = 0.12;
  const DIM = 64;

  const { fround } = Math;
  const { rint, map, share } = arrays;
  const clip = (value, least, most) => Math.min(Math.max(value, least), most);

  // The ink of each digit, {ink, dark, box, wide}. The picture is of {width, height} pixels, its
  // data red, green, blue and alpha of each, as a canvas has them.
  function trace(picture, multiple) {
    if (!picture.width || !picture.height) {
      throw new Error(`the picture is empty: ${picture.width}x${picture.height}`);
    }
    const longer = Math.max(picture.width, picture.height);
    const factor = Math.trunc(longer / (2 * WORKING));
    for (const view of views(factor < 2 ? picture : pillow.reduce(picture, factor))) {
      const dark = isDark(view.gray);
      const taken = strength(view.gray, dark);
      const full = level(taken);
      if (full < LEAST_CONTRAST) continue;
      const ink = ruledLines.withoutLines(map(taken, (value) => clip(fround(value / fround(full)), 0, 1)));
      const wide = arrays.padded(ink, 1);
      const scale = longer / view.side;
      const places = [view.left, view.top, view.left, view.top];
      return pieces.findDigits(ink, multiple).map((digit) => ({
        ink: cutOut(wide, digit),
        dark,
        box: digit.box.map((value, i) => rint((places[i] + value) * scale)),
        wide: digit.wide,
      }));
    }
    throw new Error("no digit in the picture: nothing stands out from its paper");
  }

  // The ink of a digit alone, with a pixel around it.
  function cutOut(wide, { mask, box: [left, top, right, bottom] }) {
    const near = arrays.padded(mask, 1);
    const grown = greatest(map(near, Number, Float32Array), 1, -Infinity);
    const place = arrays.cropped(wide, left, top, right + 2, bottom + 2);
    const data = Uint8Array.from(place.data, (value, i) => rint(fround(255 * value)) * grown.data[i]);
    return { ...place, data };
  }

  // Ways to look at a picture, in a working size: the sheet alone, the whole, each color.
  function* views(picture) {
    const whole = reduced(grayOf(picture));
    const side = Math.max(whole.width, whole.height);
    const found = sheet(whole);
    if (found) yield found;
    yield { gray: whole, left: 0, top: 0, side };
    for (const channel of [0, 1, 2]) {
      const data = Float32Array.from({ length: picture.width * picture.height }, (_, i) =>
        picture.data[4 * i + channel]);
      yield { gray: reduced({ ...picture, data }), left: 0, top: 0, side };
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
    const paper = light > 127 * weight ? 0 : 255; // from which most of it stands out
    const seen = (at, alpha) => pillow.over(data[at], alpha, paper);
    for (let i = 0, at = 0; i < count; i++, at += 4) {
      const alpha = data[at + 3];
      gray.data[i] = pillow.luma(seen(at, alpha), seen(at + 1, alpha), seen(at + 2, alpha));
    }
    return gray;
  }

  function shrunk(gray, longest) {
    const scale = longest / Math.max(gray.width, gray.height);
    if (scale >= 1) return gray;
    const [width, height] = [gray.width, gray.height].map((side) => Math.max(1, rint(side * scale)));
    return pillow.resize(gray, width, height, "box");
  }

  const reduced = (gray) => shrunk(gray, WORKING);

  // The sheet in a picture that shows what it lies on, too.
  function sheet(gray) {
    const middle = fround(arrays.sum(arrays.quantiles(gray.data, [0.01, 0.99]).map(fround)) / 2);
    const around = share(edgeOf(gray), (value) => value > middle);
    if (1 - TABLE < around && around <= TABLE) return null;
    const inside = map(gray, (value) => value > middle === around <= 0.5, Uint8Array);
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

  // From which row to which one the rows are mostly set, less a rim.
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

  // The brightness that the paper alone would have.
  function paperOf(gray, dark) {
    const sign = dark ? 1 : -1;
    const small = shrunk(gray, THUMB);
    const thumb = map(small, (value) => sign * value);
    const outside = beyond(thumb);
    const stroke = outside === -Infinity ? STROKE : CLOSE_STROKE;
    const narrow = rint(stroke * Math.min(small.width, small.height)) | 1;
    const reach = Math.trunc(Math.max(3, narrow) / 2);
    const grown = map(greatest(thumb, reach, outside), (value) => -value);
    const closed = map(
      greatest(grown, reach, -Infinity), (value) => clip(rint(-sign * value), 0, 255), Uint8Array,
    );
    const smooth = pillow.gaussianBlur(closed, (2 * reach + 1) / 4);
    return pillow.resize(smooth, gray.width, gray.height, "bicubic");
  }

  // The greatest of the values up to `reach` away from each, down and across.
  function greatest(field, reach, outside) {
    let found = field;
    for (const _ of [0, 1]) {
      const { width, height, data } = found;
      const most = new Float32Array(data.length);
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          let value = x < reach || x >= width - reach ? outside : -Infinity;
          const last = Math.min(x + reach, width - 1);
          for (let near = Math.max(x - reach, 0); near <= last; near++) {
            value = Math.max(value, data[y * width + near]);
          }
          most[y * width + x] = value;
        }
      }
      found = arrays.transposed({ width, height, data: most });
    }
    return found;
  }

  // What lies beyond the border of a picture with dark ink: paper, if strokes run into it.
  function beyond(gray) {
    const [low, high] = arrays.quantiles(gray.data, [0.01, 0.99]).map(fround);
    const values = edgeOf(gray);
    const edge = values.map((value) => (value - low) / Math.max(high - low, 1));
    const inked = share(edge, (value) => value < 0.25);
    const between = share(edge, (value) => value >= 0.25 && value <= 0.75);
    const paper = values.filter((_, i) => edge[i] > 0.75);
    const closeCrop = inked > 0.01 && inked < 0.6 && between < 0.2 && paper.length;
    return closeCrop ? arrays.median(paper) : -Infinity;
  }

  // The pixels along the border, those of its corners twice.
  function edgeOf({ width, height, data }) {
    const edge = new Float32Array(2 * (width + height));
    edge.set(data.subarray(0, width), 0);
    edge.set(data.subarray((height - 1) * width), width);
    for (let y = 0; y < height; y++) {
      edge[2 * width + y] = data[y * width];
      edge[2 * width + height + y] = data[(y + 1) * width - 1];
    }
    return edge;
  }

  // Whether the ink is darker than its paper, which is most of a picture, and its edge.
  function isDark(gray) {
    const [low, middle, high] = arrays.quantiles(gray.data, [0.005, 0.5, 0.995]).map(fround);
    return fround(fround(arrays.median(edgeOf(gray))) + middle) >= fround(low + high);
  }

  // How much of the paper's light the ink takes away at each pixel, 0 to 1.
  function strength(gray, dark) {
    const bright = paperOf(gray, dark).data;
    const data = gray.data.map((value, i) => {
      const taken = dark ? bright[i] - value : value - bright[i];
      return clip(fround(taken) / Math.max(dark ? bright[i] : 255 - bright[i], DIM), 0, 1);
    });
    return { ...gray, data };
  }

  // The strength of the ink itself: that of its strokes' cores, not of single pixels.
  function level(taken) {
    let core = map(taken, (value) => fround(value * 255), Uint8Array);
    if (Math.min(core.width, core.height) > 4 * THUMB) core = pillow.boxBlur(core, 1);
    const most = arrays.greatest(core.data);
    const inked = core.data.filter((value) => value > most / 2);
    return inked.length ? fround(arrays.median(inked) / 255) : 0;
  }

  return { LEAST_CONTRAST, trace, grayOf, edgeOf };
})();
