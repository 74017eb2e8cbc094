// The functions of NumPy that the preprocessing needs, with NumPy's rounding. An image or a field
// is {width, height, data}: a typed array, row by row.
"use strict";

const arrays = (() => {
  // Round to the nearest whole number, halves to the even one.
  function rint(value) {
    const rounded = Math.round(value);
    return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
  }

  // The quantiles of values with linear interpolation, as np.quantile returns them.
  function quantiles(values, shares) {
    const sorted = values.slice().sort();
    return shares.map((share) => {
      const position = share * (sorted.length - 1);
      const low = Math.floor(position);
      const high = Math.min(low + 1, sorted.length - 1);
      return sorted[low] + (sorted[high] - sorted[low]) * (position - low);
    });
  }

  const median = (values) => quantiles(values, [0.5])[0];

  function max(values) {
    let result = -Infinity;
    for (const value of values) if (value > result) result = value;
    return result;
  }

  function sum(values) {
    let total = 0;
    for (const value of values) total += value;
    return total;
  }

  // The share of values that pass a test.
  function share(values, test) {
    let passed = 0;
    for (let i = 0; i < values.length; i++) if (test(values[i], i)) passed += 1;
    return passed / values.length;
  }

  // A field of changed values, with the same type of array or another.
  function map(field, change, ArrayType = field.data.constructor) {
    const data = new ArrayType(field.data.length);
    for (let i = 0; i < data.length; i++) data[i] = change(field.data[i]);
    return { width: field.width, height: field.height, data };
  }

  function transposed({ width, height, data }) {
    const result = new data.constructor(data.length);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) result[x * height + y] = data[y * width + x];
    }
    return { width: height, height: width, data: result };
  }

  function padded({ width, height, data }, by) {
    const result = new data.constructor((width + 2 * by) * (height + 2 * by));
    for (let y = 0; y < height; y++) {
      result.set(data.subarray(y * width, (y + 1) * width), (y + by) * (width + 2 * by) + by);
    }
    return { width: width + 2 * by, height: height + 2 * by, data: result };
  }

  // The part from (left, top) to (right, bottom), ends excluded.
  function cropped({ width, data }, left, top, right, bottom) {
    const part = new data.constructor((right - left) * (bottom - top));
    for (let y = top; y < bottom; y++) {
      part.set(data.subarray(y * width + left, y * width + right), (y - top) * (right - left));
    }
    return { width: right - left, height: bottom - top, data: part };
  }

  const clip = (value, min, max) => Math.min(Math.max(value, min), max);

  return { rint, clip, quantiles, median, max, sum, share, map, transposed, padded, cropped };
})();
