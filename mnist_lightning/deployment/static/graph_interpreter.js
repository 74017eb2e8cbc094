// The steps of a network, named as by torch.export, for one image at a time. A value is
// {shape, data}, of shape [channels, height, width] or [features].
"use strict";

const network = (() => {
  // The vertical and horizontal value of an option that may be one number for both.
  const both = (option) => [option, option].flat().slice(0, 2);

  function elementwise(change) {
    return ({ input }) => ({ shape: input.shape, data: input.data.map(change) });
  }

  function check(supported, what) {
    if (!supported) throw new Error(`no JavaScript for ${what}`);
  }

  const unchanged = ({ input }) => input;

  // Pad by [left, right, top, bottom] with `value`; crop where a number is negative.
  function pad({ input, pad: [left, right, top = 0, bottom = 0, ...beyond], mode = "constant", value, Values = Float32Array }) {
    check(mode === "constant", `pad with mode ${mode}`);
    check(input.shape.length === 3 && (!beyond || beyond.length === 0), "pad except for rows and columns");
    const [channels, height, width] = input.shape;
    const shape = [channels, height + top + bottom, width + left + right];
    const data = new Values(shape[0] * shape[1] * shape[2]).fill(value ?? 0);
    const from = Math.max(0, -left);
    const to = Math.min(width, width + right);
    for (let c = 0; c < channels; c++) {
      for (let y = Math.max(0, -top); y < Math.min(height, height + bottom); y++) {
        const row = (c * height + y) * width;
        const place = (c * shape[1] + y + top) * shape[2] + from + left;
        data.set(input.data.subarray(row + from, row + to), place);
      }
    }
    return { shape, data };
  }

  // The weights of a convolution, of one kernel position after the other, for all outputs of a group.
  const transposed = new WeakMap();
  function transpose(weight, groups) {
    const { shape: [outputs, ...rest], data } = weight;
    const [perGroup, taps] = [outputs / groups, rest.reduce((a, b) => a * b)];
    const result = new Float64Array(data.length);
    data.forEach((value, i) => {
      const output = Math.floor(i / taps);
      const group = Math.floor(output / perGroup);
      result[(group * taps + (i % taps)) * perGroup + (output % perGroup)] = value;
    });
    transposed.set(weight, result);
    return result;
  }

  function conv2d({ input, weight, bias, stride, padding, dilation, groups }) {
    const [[down, across], [dy, dx]] = [stride, dilation].map(both);
    const [outputs, inputs, tall, broad] = weight.shape;
    let [top, left] = both(padding === "valid" ? 0 : padding);
    let [bottom, right] = [top, left];
    if (padding === "same") {
      [bottom, right] = [dy * (tall - 1), dx * (broad - 1)].map((rim) => Math.ceil(rim / 2));
      [top, left] = [dy * (tall - 1) - bottom, dx * (broad - 1) - right];
    }
    const padded = pad({ input, pad: [left, right, top, bottom], Values: Float64Array });
    const [, height, width] = padded.shape;
    const rows = Math.floor((height - dy * (tall - 1) - 1) / down) + 1;
    const columns = Math.floor((width - dx * (broad - 1) - 1) / across) + 1;
    const offsets = Int32Array.from({ length: inputs * tall * broad }, (_, n) =>
      (Math.floor(n / (tall * broad)) * height + (Math.floor(n / broad) % tall) * dy) * width + (n % broad) * dx);
    const weights = transposed.get(weight) ?? transpose(weight, groups);
    const data = new Float32Array(outputs * rows * columns);
    const perGroup = outputs / groups;
    for (let output = 0; output < outputs;) {
      const group = Math.floor(output / perGroup);
      const place = {
        columns, rows, down, across, width, perGroup,
        bias: bias?.data,
        start: group * inputs * height * width,
        firstWeight: group * offsets.length * perGroup + (output % perGroup),
      };
      const isBlock = (output % perGroup) + BLOCK <= perGroup;
      (isBlock ? sumBlock : sumOne)(padded.data, weights, offsets, data, output, place);
      output += isBlock ? BLOCK : 1;
    }
    return { shape: [outputs, rows, columns], data };
  }

  // One output map of a convolution.
  function sumOne(values, weights, offsets, data, output, place) {
    const { rows, columns, down, across, width, perGroup, bias, start, firstWeight } = place;
    for (let y = 0, to = output * rows * columns; y < rows; y++) {
      for (let x = 0, from = start + y * down * width; x < columns; x++, to++, from += across) {
        let sum = bias ? bias[output] : 0;
        for (let n = 0, w = firstWeight; n < offsets.length; n++, w += perGroup) {
          sum += values[from + offsets[n]] * weights[w];
        }
        data[to] = sum;
      }
    }
  }

  // BLOCK output maps at once: each input is read once for all of them. Four times as fast as one
  // after the other.
  const BLOCK = 8;
  function sumBlock(values, weights, offsets, data, output, place) {
    const { rows, columns, down, across, width, perGroup, bias, start, firstWeight } = place;
    const area = rows * columns;
    const first = Float64Array.from({ length: BLOCK }, (_, map) => (bias ? bias[output + map] : 0));
    for (let y = 0, to = output * area; y < rows; y++) {
      for (let x = 0, from = start + y * down * width; x < columns; x++, to++, from += across) {
        let a = first[0], b = first[1], c = first[2], d = first[3];
        let e = first[4], f = first[5], g = first[6], h = first[7];
        for (let n = 0, w = firstWeight; n < offsets.length; n++, w += perGroup) {
          const value = values[from + offsets[n]];
          a += value * weights[w];
          b += value * weights[w + 1];
          c += value * weights[w + 2];
          d += value * weights[w + 3];
          e += value * weights[w + 4];
          f += value * weights[w + 5];
          g += value * weights[w + 6];
          h += value * weights[w + 7];
        }
        data[to] = a;
        data[to + area] = b;
        data[to + 2 * area] = c;
        data[to + 3 * area] = d;
        data[to + 4 * area] = e;
        data[to + 5 * area] = f;
        data[to + 6 * area] = g;
        data[to + 7 * area] = h;
      }
    }
  }

  function max_pool2d({ input, kernel_size, stride, padding, dilation, ceil_mode }) {
    const [tall, broad] = both(kernel_size);
    const [down, across] = stride.length ? both(stride) : [tall, broad];
    const [top, left] = both(padding);
    check(!ceil_mode, "max_pool2d with ceil_mode");
    check(both(dilation).every((step) => step === 1), "max_pool2d with dilation");
    const padded = pad({ input, pad: [left, left, top, top], value: -Infinity });
    const [channels, height, width] = padded.shape;
    const rows = Math.floor((height - tall) / down) + 1;
    const columns = Math.floor((width - broad) / across) + 1;
    const data = new Float32Array(channels * rows * columns);
    for (let c = 0, to = 0; c < channels; c++) {
      for (let y = 0; y < rows; y++) {
        for (let x = 0; x < columns; x++, to++) {
          let max = -Infinity;
          for (let ky = 0; ky < tall; ky++) {
            const from = (c * height + y * down + ky) * width + x * across;
            for (let kx = 0; kx < broad; kx++) {
              if (padded.data[from + kx] > max) max = padded.data[from + kx];
            }
          }
          data[to] = max;
        }
      }
    }
    return { shape: [channels, rows, columns], data };
  }

  function avg_pool2d({ input, kernel_size, stride, padding, ceil_mode, divisor_override }) {
    const sides = both(kernel_size);
    check(!ceil_mode && divisor_override === null, "avg_pool2d with other divisors");
    check(both(padding).every((rim) => rim === 0), "avg_pool2d with padding");
    const [channels] = input.shape;
    const weights = new Float32Array(channels * sides[0] * sides[1]).fill(1 / (sides[0] * sides[1]));
    const weight = { shape: [channels, 1, ...sides], data: weights };
    const steps = { stride: stride.length ? stride : sides, padding: 0, dilation: 1 };
    return conv2d({ input, weight, bias: null, groups: channels, ...steps });
  }

  function log_softmax({ input, dim }) {
    check(input.shape.length === 1 && (dim === 1 || dim === -1), "log_softmax except over classes");
    const max = arrays.max(input.data);
    const total = Math.log(arrays.sum(input.data.map((value) => Math.exp(value - max))));
    return { shape: input.shape, data: input.data.map((value) => value - max - total) };
  }

  // Each channel minus a mean, divided by the root of a variance.
  function normalize({ input, weight, bias, eps }, mean, variance) {
    const size = input.data.length / input.shape[0];
    const data = input.data.map((value, i) => {
      const c = Math.floor(i / size);
      const unit = (value - mean.data[c]) / Math.sqrt(variance.data[c] + eps);
      return unit * (weight ? weight.data[c] : 1) + (bias ? bias.data[c] : 0);
    });
    return { shape: input.shape, data };
  }

  function batch_norm(inputs) {
    const { running_mean, running_var } = inputs;
    check(running_mean && running_var, "batch_norm without running statistics");
    return normalize(inputs, running_mean, running_var);
  }

  function instance_norm(inputs) {
    check(inputs.use_input_stats, "instance_norm with running statistics");
    const { input } = inputs;
    const [channels] = input.shape;
    const mean = means(input, [channels]);
    const size = input.data.length / channels;
    const squares = input.data.map((value, i) => (value - mean.data[Math.floor(i / size)]) ** 2);
    return normalize(inputs, mean, means({ shape: input.shape, data: squares }, [channels]));
  }

  function linear({ input, weight, bias }) {
    const [outputs, inputs] = weight.shape;
    check(input.data.length === inputs, "linear of more than one dimension");
    const data = new Float32Array(outputs);
    for (let output = 0; output < outputs; output++) {
      let sum = bias ? bias.data[output] : 0;
      for (let i = 0; i < inputs; i++) sum += weight.data[output * inputs + i] * input.data[i];
      data[output] = sum;
    }
    return { shape: [outputs], data };
  }

  function add({ input, other, alpha }) {
    check(other?.data?.length === input.data.length, "add except for two values of equal shape");
    return { shape: input.shape, data: input.data.map((value, i) => value + alpha * other.data[i]) };
  }

  // The mean of each channel.
  function means(input, shape) {
    const [channels] = input.shape;
    const size = input.data.length / channels;
    const data = Float32Array.from({ length: channels }, (_, c) =>
      arrays.sum(input.data.subarray(c * size, (c + 1) * size)) / size);
    return { shape, data };
  }

  function adaptive_avg_pool2d({ input, output_size }) {
    check(both(output_size).every((side) => side === 1), "adaptive_avg_pool2d except to 1x1");
    return means(input, [input.shape[0], 1, 1]);
  }

  function mean({ input, dim, keepdim }) {
    const sides = dim.map((axis) => (axis + 4) % 4).sort().join();
    check(input.shape.length === 3 && sides === "2,3", "mean except over rows and columns");
    return means(input, keepdim ? [input.shape[0], 1, 1] : [input.shape[0]]);
  }

  function flatten({ input, start_dim, end_dim }) {
    check(start_dim === 1 && end_dim === -1, "flatten except of all dimensions");
    return { shape: [input.data.length], data: input.data };
  }

  function view({ input, size, shape = size }) {
    check(shape.length === 2, "view or reshape except to all dimensions flattened");
    return { shape: [input.data.length], data: input.data };
  }

  // Turn squares of pixels into channels.
  function pixel_unshuffle({ input, downscale_factor: side }) {
    const [channels, height, width] = input.shape;
    const shape = [channels * side * side, height / side, width / side];
    const data = new Float32Array(input.data.length);
    input.data.forEach((value, i) => {
      const [x, y, channel] = [i % width, Math.floor(i / width) % height, Math.floor(i / (width * height))];
      const output = (channel * side + (y % side)) * side + (x % side);
      data[(output * shape[1] + Math.floor(y / side)) * shape[2] + Math.floor(x / side)] = value;
    });
    return { shape, data };
  }

  // Center an image and shear it, so that its strokes are upright on average.
  function deskew({ input }) {
    const [, height, width] = input.shape;
    const paper = input.data.reduce((x, y) => Math.min(x, y));
    const ink = Float64Array.from(input.data, (value) => value - paper);
    const down = (i) => (2 * Math.floor(i / width) + 1) / height - 1;
    const across = (i) => (2 * (i % width) + 1) / width - 1;
    const total = arrays.sum(ink) + 1e-6;
    const mean = (change) => arrays.sum(ink.map((value, i) => value * change(i))) / total;
    const [top, left] = [mean(down), mean(across)];
    const together = mean((i) => (down(i) - top) * (across(i) - left));
    const slant = together / (mean((i) => (down(i) - top) ** 2) + 1e-4);
    const at = (y, x) => (y < 0 || x < 0 || y >= height || x >= width ? 0 : ink[y * width + x]);
    const data = input.data.map((_, i) => {
      const y = ((down(i) + top + 1) * height - 1) / 2;
      const x = ((across(i) + left + slant * down(i) + 1) * width - 1) / 2;
      const [row, column] = [y, x].map(Math.floor);
      const line = (r) => at(r, column) * (column + 1 - x) + at(r, column + 1) * (x - column);
      return line(row) * (row + 1 - y) + line(row + 1) * (y - row) + paper;
    });
    return { shape: input.shape, data };
  }

  const STEPS = {
    adaptive_avg_pool2d,
    "add.Tensor": add,
    batch_norm,
    instance_norm,
    avg_pool2d,
    conv2d,
    "conv2d.padding": conv2d,
    "mnist_lightning.deskew": deskew,
    dropout: unchanged,
    feature_dropout: unchanged,
    "flatten.using_ints": flatten,
    reshape: view,
    view,
    leaky_relu: ({ input, negative_slope }) =>
      elementwise((value) => (value > 0 ? value : value * negative_slope))({ input }),
    linear,
    "log_softmax.int": log_softmax,
    max_pool2d,
    "mean.dim": mean,
    pad,
    pixel_unshuffle,
    relu: elementwise((value) => Math.max(value, 0)),
    relu_: ({ input }) => {
      input.data.forEach((value, i) => (input.data[i] = Math.max(value, 0))); // in place
      return input;
    },
    silu: elementwise((value) => value / (1 + Math.exp(-value))),
  };

  const bytesOf = (text) =>
    Uint8Array.fromBase64?.(text) ?? Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  // Unpack numbers of 32 bits, or integers of 16 bits with a scale for each row.
  function unpack({ shape, bits, content, scales }) {
    const view = new DataView(bytesOf(content).buffer);
    const count = (8 * view.byteLength) / bits;
    if (bits === 32) return { shape, data: Float32Array.from({ length: count }, (_, i) => view.getFloat32(4 * i, true)) };
    const rows = unpack(scales).data;
    const size = count / rows.length;
    const data = Float32Array.from({ length: count }, (_, i) => view.getInt16(2 * i, true) * rows[Math.floor(i / size)]);
    return { shape, data };
  }

  // Load the description of a network. `values` maps 28x28 ink to the value of every step; value 0
  // is the normalized image.
  function load({ weights, steps, output, mean, std }) {
    for (const { name } of steps) {
      check(name in STEPS, `${name} (supported: ${Object.keys(STEPS).join(", ")})`);
    }
    const constants = weights.map(unpack);
    const select = (numbers, items) =>
      Object.fromEntries(Object.entries(numbers).map(([name, number]) => [name, items[number]]));
    function values(ink) {
      const scaled = Float32Array.from(ink, (value) => (value - 255 * mean) / (255 * std));
      const computed = [{ shape: [1, 28, 28], data: scaled }];
      for (const step of steps) {
        const inputs = { ...select(step.values, computed), ...select(step.weights, constants) };
        computed.push(STEPS[step.name]({ ...inputs, ...step.options }));
      }
      return computed;
    }
    return { steps, constants, output, values, logits: (ink) => values(ink)[output].data };
  }

  return { load, unpack };
})();
