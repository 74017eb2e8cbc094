// Paints the values of a layer as an image: a grid of maps, or of units.
"use strict";

const activationImage = (() => {
  const UNIT = 4; // pixels of a unit without rows and columns
  const GAP = 1; // pixels between two maps
  const SHADES = 255;

  let palettes = null; // for each kind, colors from the most negative to the most positive value

  const channelsOf = (color) => color.match(/\d+/g).slice(0, 3).map(Number);

  // Mix the colors of the page: [negative, zero, positive] to 2 * SHADES + 1 pixels.
  function palette(names) {
    const probe = document.body.appendChild(document.createElement("i"));
    const colors = names.map((name) => {
      probe.style.color = `var(${name})`;
      return channelsOf(getComputedStyle(probe).color);
    });
    probe.remove();
    return Uint32Array.from({ length: 2 * SHADES + 1 }, (_, i) => {
      const share = Math.abs(i - SHADES) / SHADES;
      const end = colors[i < SHADES ? 0 : 2];
      const [red, green, blue] = colors[1].map((zero, c) => Math.round(zero + share * (end[c] - zero)));
      return (255 << 24) | (blue << 16) | (green << 8) | red;
    });
  }

  function colors(kind) {
    palettes ??= {
      signed: palette(["--negative", "--card", "--positive"]),
      ink: palette(["--card", "--card", "--text"]),
    };
    return palettes[kind];
  }

  // About twice as many columns as rows, so that the last row is full if possible.
  function columnsFor(channels) {
    const wanted = Math.min(channels, Math.ceil(Math.sqrt(2 * channels)));
    for (let columns = wanted; columns <= 2 * wanted; columns++) {
      if (channels % columns === 0) return columns;
    }
    return wanted;
  }

  // The position of each map or unit: the size of the image, and of one cell.
  function gridOf([channels, height, width]) {
    const isFlat = height === undefined;
    const zoom = isFlat || height * width === 1 ? UNIT : 1;
    const cell = { height: (height ?? 1) * zoom, width: (width ?? 1) * zoom };
    const columns = isFlat && channels <= 10 ? channels : columnsFor(channels);
    const rows = Math.ceil(channels / columns);
    return {
      columns,
      zoom,
      cell,
      width: columns * (cell.width + GAP) - GAP,
      height: rows * (cell.height + GAP) - GAP,
    };
  }

  const cornerOf = ({ columns, cell }, channel) => ({
    x: (channel % columns) * (cell.width + GAP),
    y: Math.floor(channel / columns) * (cell.height + GAP),
  });

  // Paint a value; its largest absolute value has the full color. Return that value.
  function paint(canvas, { shape, data }, kind = "signed") {
    const grid = gridOf(shape);
    const [channels, height = 1, width = 1] = shape;
    if (canvas.width !== grid.width || canvas.height !== grid.height) {
      [canvas.width, canvas.height] = [grid.width, grid.height];
    }
    const context = canvas.getContext("2d");
    const image = context.createImageData(grid.width, grid.height);
    const pixels = new Uint32Array(image.data.buffer);
    let max = 1e-9;
    for (let i = 0; i < data.length; i++) max = Math.max(max, Math.abs(data[i]));
    const [shades, scale] = [colors(kind), SHADES / max];
    for (let channel = 0, from = 0; channel < channels; channel++) {
      const { x, y } = cornerOf(grid, channel);
      for (let row = 0; row < height; row++) {
        for (let column = 0; column < width; column++, from++) {
          const color = shades[Math.floor(SHADES + scale * data[from] + 0.5)];
          const corner = (y + row * grid.zoom) * grid.width + x + column * grid.zoom;
          for (let dy = 0; dy < grid.zoom; dy++) {
            for (let dx = 0; dx < grid.zoom; dx++) pixels[corner + dy * grid.width + dx] = color;
          }
        }
      }
    }
    context.putImageData(image, 0, 0);
    return max;
  }

  // The unit at a point of the image, in pixels; null between two maps.
  function unitAt(shape, x, y) {
    const { columns, cell, zoom } = gridOf(shape);
    const [channels, height, width] = shape;
    const [column, row] = [Math.floor(x / (cell.width + GAP)), Math.floor(y / (cell.height + GAP))];
    const channel = row * columns + column;
    const inner = [x - column * (cell.width + GAP), y - row * (cell.height + GAP)].map((at) => Math.floor(at / zoom));
    if (column < 0 || row < 0 || column >= columns || channel >= channels) return null;
    if (inner[0] >= (width ?? 1) || inner[1] >= (height ?? 1)) return null;
    return height === undefined ? { channel } : { channel, row: inner[1], column: inner[0] };
  }

  // The rectangle of a unit, or of a part of its map, as fractions of the image.
  function placeOf(shape, { channel, row = 0, column = 0 }, rows = 1, columns = 1) {
    const grid = gridOf(shape);
    const { x, y } = cornerOf(grid, channel);
    return {
      left: (x + column * grid.zoom) / grid.width,
      top: (y + row * grid.zoom) / grid.height,
      width: (columns * grid.zoom) / grid.width,
      height: (rows * grid.zoom) / grid.height,
    };
  }

  const forgetColors = () => (palettes = null);

  return { paint, gridOf, unitAt, placeOf, forgetColors };
})();
