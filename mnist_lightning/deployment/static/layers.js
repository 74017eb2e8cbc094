// The layers of a network: the steps that belong together, the inputs of a unit, and its receptive
// field. A unit is {channel, row, column}; in a layer without rows, {channel}.
"use strict";

const layers = (() => {
  const NO_CHANGE = new Set(["dropout", "feature_dropout", "flatten.using_ints", "reshape", "view", "pad"]);
  // These steps belong to the layer that computes their input. They change each value alone, except for
  // the mean and standard deviation of an instance normalization, which receptive fields leave out.
  const FOLLOWERS = {
    batch_norm: "batch normalization",
    instance_norm: "instance normalization",
    leaky_relu: "leaky ReLU",
    "log_softmax.int": "log softmax",
    relu: "ReLU",
    relu_: "ReLU",
    silu: "SiLU",
  };
  const TIMES = "\u00a0×\u00a0";
  const both = (option) => [option, option].flat().slice(0, 2);
  const size = (sides) => both(sides).join(TIMES);
  const NAMES = {
    conv2d: ({ weights }, constants) => `convolution ${size(constants[weights.weight].shape.slice(2))}`,
    max_pool2d: ({ options }) => `maximum of ${size(options.kernel_size)}`,
    avg_pool2d: ({ options }) => `average of ${size(options.kernel_size)}`,
    linear: () => "linear",
    pixel_unshuffle: ({ options }) => `squares of ${size(options.downscale_factor)} pixels as maps`,
    "mnist_lightning.deskew": () => "centered and sheared",
    "add.Tensor": () => "sum of two layers",
    adaptive_avg_pool2d: () => "average of each map",
    "mean.dim": () => "average of each map",
  };
  NAMES["conv2d.padding"] = NAMES.conv2d;

  // Return the layers of a loaded network; the first one is the image.
  function find({ steps, constants, output }) {
    const found = [{ name: "input", steps: [], value: 0 }];
    const owner = [found[0]]; // the layer of each value
    const users = Array(steps.length + 1).fill(0);
    for (const step of steps) Object.values(step.values).forEach((value) => (users[value] += 1));
    steps.forEach((step, index) => {
      const { input } = step.values;
      const layer = owner[input];
      const follows = layer !== found[0] && layer.value === input && users[input] === 1;
      if (NO_CHANGE.has(step.name)) {
        owner.push(layer);
        if (layer.value === input && users[input] === 1 && step.name !== "pad") layer.alias = index + 1;
      } else if (step.name in FOLLOWERS && (follows || layer.alias === input)) {
        layer.name += `, ${FOLLOWERS[step.name]}`;
        layer.steps.push(index);
        layer.value = index + 1;
        owner.push(layer);
      } else {
        const name = NAMES[step.name]?.(step, constants) ?? FOLLOWERS[step.name] ?? step.name;
        found.push({ name, steps: [index], value: index + 1 });
        owner.push(found[found.length - 1]);
      }
    });
    const last = owner[output];
    return found.slice(0, found.indexOf(last) + 1);
  }

  function describeShape([channels, height, width]) {
    if (height === undefined) return channels === 1 ? "1 unit" : `${channels} units`;
    const area = `${height}${TIMES}${width}`;
    return channels === 1 ? area : `${channels} maps of ${area}`;
  }

  const offset = ([, height = 1, width = 1], { channel, row = 0, column = 0 }) =>
    (channel * height + row) * width + column;

  // Return the unit of a value at an offset.
  function unitAt([, height, width], index) {
    if (height === undefined) return { channel: index };
    const channel = Math.floor(index / (height * width));
    return { channel, row: Math.floor(index / width) % height, column: index % width };
  }

  // The rows (or columns) of the input that a window reads.
  const windowOf = (first, last, stride, padding, reach) =>
    [first * stride - padding, last * stride - padding + reach];

  // The first padding in each direction; "same" pads half of the kernel.
  function geometry(step, constants) {
    const { options, weights } = step;
    if (step.name.startsWith("conv2d")) {
      const sides = constants[weights.weight].shape.slice(2);
      const reach = sides.map((side, i) => both(options.dilation)[i] * (side - 1));
      const same = options.padding === "same";
      const padding = same ? reach.map((rim) => rim - Math.ceil(rim / 2)) : both(options.padding === "valid" ? 0 : options.padding);
      return { sides, reach, padding, stride: both(options.stride) };
    }
    const sides = both(options.kernel_size);
    const stride = options.stride.length ? both(options.stride) : sides;
    return { sides, reach: sides.map((side) => side - 1), padding: both(options.padding), stride };
  }

  const ALL = { rows: [0, Infinity], columns: [0, Infinity] };

  // The part of a step's input that influences a part of its output.
  function inputPart(step, constants, part, shapes) {
    const { name, options } = step;
    if (name.startsWith("conv2d") || name === "max_pool2d" || name === "avg_pool2d") {
      const { reach, padding, stride } = geometry(step, constants);
      return {
        rows: windowOf(...part.rows, stride[0], padding[0], reach[0]),
        columns: windowOf(...part.columns, stride[1], padding[1], reach[1]),
      };
    }
    if (name === "pixel_unshuffle") {
      const side = options.downscale_factor;
      return { rows: windowOf(...part.rows, side, 0, side - 1), columns: windowOf(...part.columns, side, 0, side - 1) };
    }
    if (name === "pad") {
      const [left, , top = 0] = options.pad;
      return { rows: part.rows.map((row) => row - top), columns: part.columns.map((c) => c - left) };
    }
    if (name in FOLLOWERS || name === "add.Tensor" || name.endsWith("dropout")) return part;
    if (part.unit !== undefined && (name.startsWith("flatten") || name === "view" || name === "reshape")) {
      const { row, column } = unitAt(shapes[step.values.input], part.unit);
      return row === undefined ? part : { rows: [row, row], columns: [column, column] };
    }
    return ALL;
  }

  const union = (a, b) => a && {
    rows: [Math.min(a.rows[0], b.rows[0]), Math.max(a.rows[1], b.rows[1])],
    columns: [Math.min(a.columns[0], b.columns[0]), Math.max(a.columns[1], b.columns[1])],
  };

  // The rectangle of a value that influences a unit of a later value: [top, left, bottom, right],
  // bottom and right exclusive.
  function field({ steps, constants }, values, value, unit, of = 0) {
    const shapes = values.map(({ shape }) => shape);
    const parts = [];
    parts[value] = unit.row === undefined
      ? { ...ALL, unit: unit.channel }
      : { rows: [unit.row, unit.row], columns: [unit.column, unit.column] };
    for (let index = value - 1; index >= of; index--) {
      const part = parts[index + 1];
      if (!part) continue;
      for (const input of Object.values(steps[index].values)) {
        const needed = inputPart(steps[index], constants, part, shapes);
        parts[input] = union(parts[input], needed) ?? needed;
      }
    }
    const [, height = 1, width = 1] = shapes[of];
    const { rows, columns } = parts[of] ?? ALL;
    return [Math.max(0, rows[0]), Math.max(0, columns[0]), Math.min(height - 1, rows[1]) + 1, Math.min(width - 1, columns[1]) + 1];
  }

  // The values (0 outside the map) and weights of one input channel of a convolution.
  function patch(input, channel, top, left, dilation, sides, weights) {
    const [, height, width] = input.shape;
    const inputs = [];
    for (let ky = 0; ky < sides[0]; ky++) {
      for (let kx = 0; kx < sides[1]; kx++) {
        const [y, x] = [top + ky * dilation[0], left + kx * dilation[1]];
        const inside = y >= 0 && x >= 0 && y < height && x < width;
        inputs.push(inside ? input.data[(channel * height + y) * width + x] : 0);
      }
    }
    return { channel, sides, inputs, weights };
  }

  // What the first step of a layer computes for a unit: {patches, bias} of a convolution or pooling,
  // {inputs, weights, shape, bias} of a linear layer, {terms} of a sum; null for other steps.
  function inputsOf({ steps, constants }, values, layer, unit) {
    if (!layer.steps.length) return null;
    const step = steps[layer.steps[0]];
    const input = values[step.values.input];
    const bias = step.weights.bias === undefined ? 0 : constants[step.weights.bias].data[unit.channel];
    if (step.name.startsWith("conv2d")) {
      const { data, shape } = constants[step.weights.weight];
      const { padding, stride } = geometry(step, constants);
      const [outputs, inputs, ...sides] = shape;
      const first = Math.floor(unit.channel / (outputs / step.options.groups)) * inputs;
      const area = sides[0] * sides[1];
      const top = unit.row * stride[0] - padding[0];
      const left = unit.column * stride[1] - padding[1];
      const patches = Array.from({ length: inputs }, (_, i) => {
        const start = (unit.channel * inputs + i) * area;
        return patch(input, first + i, top, left, both(step.options.dilation), sides, data.subarray(start, start + area));
      });
      return { patches, bias };
    }
    if (step.name.endsWith("pool2d") && step.name !== "adaptive_avg_pool2d") {
      const { sides, padding, stride } = geometry(step, constants);
      const top = unit.row * stride[0] - padding[0];
      const left = unit.column * stride[1] - padding[1];
      return { patches: [patch(input, unit.channel, top, left, [1, 1], sides)] };
    }
    if (step.name === "linear") {
      const { data, shape } = constants[step.weights.weight];
      const weights = data.subarray(unit.channel * shape[1], (unit.channel + 1) * shape[1]);
      return { inputs: input.data, weights, shape: unflattened(steps, values, step.values.input), bias };
    }
    if (step.name === "add.Tensor") {
      const at = offset(values[layer.value].shape, unit);
      return { terms: [input, values[step.values.other]].map(({ data }) => data[at]) };
    }
    return null;
  }

  // The shape of a value before it was flattened.
  function unflattened(steps, values, value) {
    while (value > 0 && NO_CHANGE.has(steps[value - 1].name)) value = steps[value - 1].values.input;
    return values[value].shape;
  }

  return { TIMES, find, describeShape, unitAt, offset, field, inputsOf, FOLLOWERS };
})();
