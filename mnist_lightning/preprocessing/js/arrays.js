// What the reading of pictures takes of NumPy, with its rounding. A picture or a field is
// {width, height, data}, its data row by row in a typed array.
"use strict";

const arrays = (() => {
  // To the nearest whole number; halves to the even one.
  function rint(value) {
    const rounded = Math.round(value);
    return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
  }

  // The quantiles of values, between neighbors in proportion, as np.quantile gives them.
  function quantiles(values, shares) {
    const sorted = values.slice().sort();
    return shares.map((share) => {
      const at = share * (sorted.length - 1);
      const low = Math.floor(at);
      const high = Math.min(low + 1, sorted.length - 1);
      return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
    });
  }

  const median = (values) => quantiles(values, [0.5])[0];

  function greatest(values) {
    let most = -Infinity;
    for (const value of values) if (value > most) most = value;
    return most;
  }

  function sum(values) {
    let total = 0;
    for (const value of values) total += value;
    return total;
  }

  // Which share of values passes a test.
  function share(values, test) {
    let passed = 0;
    for (const value of values) if (test(value)) passed += 1;
    return passed / values.length;
  }

  // Each value changed; in an array of the same kind, or of another.
  function map(field, change, Kind = field.data.constructor) {
    const data = new Kind(field.data.length);
    for (let i = 0; i < data.length; i++) data[i] = change(field.data[i]);
    return { width: field.width, height: field.height, data };
  }

  function transposed({ width, height, data }) {
    const turned = new data.constructor(data.length);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) turned[x * height + y] = data[y * width + x];
    }
    return { width: height, height: width, data: turned };
  }

  function padded({ width, height, data }, by) {
    const wide = new data.constructor((width + 2 * by) * (height + 2 * by));
    for (let y = 0; y < height; y++) {
      wide.set(data.subarray(y * width, (y + 1) * width), (y + by) * (width + 2 * by) + by);
    }
    return { width: width + 2 * by, height: height + 2 * by, data: wide };
  }

  // The part from (left, top) to (right, bottom), ends excluded.
  function cropped({ width, data }, left, top, right, bottom) {
    const part = new data.constructor((right - left) * (bottom - top));
    for (let y = top; y < bottom; y++) {
      part.set(data.subarray(y * width + left, y * width + right), (y - top) * (right - left));
    }
    return { width: right - left, height: bottom - top, data: part };
  }

  return { rint, quantiles, median, greatest, sum, share, map, transposed, padded, cropped };
})();
