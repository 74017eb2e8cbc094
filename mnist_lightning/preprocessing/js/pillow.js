// The functions of Pillow that the preprocessing needs, in Pillow's arithmetic: integers for images
// of bytes, so that the results are equal.
"use strict";

const pillow = (() => {
  const FILTERS = {
    box: { reach: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
    bicubic: {
      reach: 2,
      weight: (x) => {
        const d = Math.abs(x);
        if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
        return d < 2 ? ((d - 5) * d + 8) * d * -0.5 + 2 : 0;
      },
    },
  };
  const BITS = 22; // fraction bits of the fixed-point weights of bytes

  // For each of `after` pixels: the `before` pixels that it is computed from, and their weights.
  function contributions(before, after, filter) {
    const scale = before / after;
    const stretch = Math.max(scale, 1);
    const reach = filter.reach * stretch;
    return Array.from({ length: after }, (_, index) => {
      const center = (index + 0.5) * scale;
      const first = Math.max(Math.trunc(center - reach + 0.5), 0);
      const last = Math.min(Math.trunc(center + reach + 0.5), before);
      const weights = new Float64Array(last - first);
      for (let i = 0; i < weights.length; i++) {
        weights[i] = filter.weight((i + first - center + 0.5) / stretch);
      }
      const total = arrays.sum(weights);
      return { first, weights: weights.map((weight) => weight / (total || 1)) };
    });
  }

  function resizeRows({ width, height, data }, after, filter) {
    if (after === width) return { width, height, data };
    const result = new data.constructor(after * height);
    const bytes = data instanceof Uint8Array;
    contributions(width, after, filter).forEach(({ first, weights }, x) => {
      const used = bytes
        ? weights.map((weight) => Math.trunc(weight * 2 ** BITS + (weight < 0 ? -0.5 : 0.5)))
        : weights;
      for (let y = 0; y < height; y++) {
        let value = bytes ? 2 ** (BITS - 1) : 0;
        for (let i = 0; i < used.length; i++) value += data[y * width + first + i] * used[i];
        result[y * after + x] = bytes
          ? Math.min(Math.max(Math.floor(value / 2 ** BITS), 0), 255)
          : value;
      }
    });
    return { width: after, height, data: result };
  }

  function resize(image, width, height, filter) {
    const across = resizeRows(image, width, FILTERS[filter]);
    if (across.height === height) return across;
    return arrays.transposed(resizeRows(arrays.transposed(across), height, FILTERS[filter]));
  }

  function boxBlurRows({ width, height, data }, radius) {
    const whole = Math.trunc(radius);
    const weight = Math.trunc(2 ** 24 / Math.fround(Math.fround(radius) * 2 + 1));
    const rim = Math.trunc((2 ** 24 - (whole * 2 + 1) * weight) / 2);
    const result = new Uint8Array(data.length);
    for (let y = 0; y < height; y++) {
      const at = (x) => data[y * width + Math.min(Math.max(x, 0), width - 1)];
      let inner = 0;
      for (let x = -whole - 1; x < whole; x++) inner += at(x);
      for (let x = 0; x < width; x++) {
        inner += at(x + whole) - at(x - whole - 1);
        const value = inner * weight + (at(x - whole - 1) + at(x + whole + 1)) * rim;
        result[y * width + x] = Math.floor((value + 2 ** 23) / 2 ** 24);
      }
    }
    return { width, height, data: result };
  }

  function boxBlur(image, radius, times = 1) {
    let blurred = image;
    for (const _ of [0, 1]) {
      for (let i = 0; i < times; i++) blurred = boxBlurRows(blurred, radius);
      blurred = arrays.transposed(blurred);
    }
    return blurred;
  }

  // Three box blurs, of the radius that gives the variance of the Gaussian.
  function gaussianBlur(image, radius) {
    const share = (radius * radius) / 3;
    const whole = Math.floor((Math.sqrt(12 * share + 1) - 1) / 2);
    const rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * share);
    return boxBlur(image, whole + rest / (6 * (share - (whole + 1) ** 2)), 3);
  }

  // The mean of each square of `factor` pixels, and of the smaller ones at the right and below.
  function reduce({ width, height, data }, factor) {
    const result = { width: Math.ceil(width / factor), height: Math.ceil(height / factor) };
    result.data = new Uint8ClampedArray(4 * result.width * result.height);
    for (let y = 0; y < result.height; y++) {
      for (let x = 0; x < result.width; x++) {
        const sums = [0, 0, 0, 0];
        const rows = Math.min(factor, height - y * factor);
        const columns = Math.min(factor, width - x * factor);
        for (let row = y * factor; row < y * factor + rows; row++) {
          for (let at = 4 * (row * width + x * factor), n = 0; n < columns; n++, at += 4) {
            const alpha = data[at + 3];
            for (let channel = 0; channel < 3; channel++) sums[channel] += data[at + channel] * alpha;
            sums[3] += alpha;
          }
        }
        const alpha = sums[3];
        const offset = 4 * (y * result.width + x);
        for (let channel = 0; channel < 3; channel++) {
          result.data[offset + channel] = alpha ? Math.floor(sums[channel] / alpha + 0.5) : 0;
        }
        result.data[offset + 3] = Math.floor(alpha / (rows * columns) + 0.5);
      }
    }
    return result;
  }

  // The cubic through four values, at a place between the second and the third.
  function cubic(a, b, c, d, place) {
    return b + place * (c - a + place * (2 * (a - b) + c - d + place * (b - a + d - c)));
  }

  // The value of an image between the centers of its pixels; the pixels at its border continue outside.
  function interpolated({ width, height, data }, x, y) {
    const [left, top] = [Math.floor(x), Math.floor(y)];
    const column = (number) => Math.min(Math.max(number, 0), width - 1);
    const [a, b, c, d] = [column(left - 1), column(left), column(left + 1), column(left + 2)];
    const row = (number) => {
      const start = width * Math.min(Math.max(number, 0), height - 1);
      return cubic(data[start + a], data[start + b], data[start + c], data[start + d], x - left);
    };
    return cubic(row(top - 1), row(top), row(top + 1), row(top + 2), y - top);
  }

  // Rotate an image of floats counterclockwise by an angle in radians, with bicubic interpolation. The
  // result is as large as the rotated image, with zeros around it.
  function rotate(image, angle) {
    const { width, height, data } = image;
    if (angle === 0) return image;
    const rounded = (value) => Math.round(value * 1e15) / 1e15;
    const [cosine, sine] = [rounded(Math.cos(angle)), rounded(Math.sin(angle))];
    // From a place in the result to the place in the image: the matrix, and then an offset.
    const turned = (x, y) => [cosine * x - sine * y, sine * x + cosine * y];
    let offset = turned(-width / 2, -height / 2).map((value, i) => value + [width, height][i] / 2);
    const moved = (x, y) => turned(x, y).map((value, i) => value + offset[i]);
    const corners = [moved(0, 0), moved(width, 0), moved(width, height), moved(0, height)];
    const size = [0, 1].map((i) => {
      const places = corners.map((corner) => corner[i]);
      return Math.ceil(Math.max(...places)) - Math.floor(Math.min(...places));
    });
    offset = moved(-(size[0] - width) / 2, -(size[1] - height) / 2);
    const result = { width: size[0], height: size[1], data: new Float32Array(size[0] * size[1]) };
    for (let i = 0; i < result.data.length; i++) {
      const [across, down] = [(i % size[0]) + 0.5, Math.floor(i / size[0]) + 0.5];
      const x = cosine * across - sine * down + offset[0];
      const y = sine * across + cosine * down + offset[1];
      if (x >= 0 && x < width && y >= 0 && y < height) result.data[i] = interpolated(image, x - 0.5, y - 0.5);
    }
    return result;
  }

  const luma = (red, green, blue) => (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;

  // A transparent color over opaque paper.
  function over(color, alpha, paper) {
    const value = color * alpha * 128 + paper * (255 - alpha) * 128 + (0x80 << 7);
    return ((value >> 8) + value) >> 8 >> 7;
  }

  return { resize, boxBlur, gaussianBlur, reduce, rotate, luma, over };
})();
