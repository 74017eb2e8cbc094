// The training digits that are most similar to the drawing for the network, and a map of them.
"use strict";

const neighbors = (() => {
  const SIDE = 28;
  const SHOWN = 10;
  const PLACING = 5; // nearest digits that determine the place in the map
  const PAUSE = 150; // ms without a change before they are searched: not in each frame while one draws
  const COLORS = ["#1b6ca8", "#c2570c", "#2a7d4f", "#a8323e", "#6b4fa0", "#80552b", "#b0428a", "#5c6b73", "#8a7d10", "#0f8b8d"];

  let reader = null;
  let known = null; // {rows, positions, labels, columns} of the network
  let image = null; // the digits
  let shown = null; // the digit
  let timer = null;

  // Use the network of another run.
  async function use(newReader, run) {
    [reader, known] = [newReader, null];
    $("neighbors").hidden = !reader;
    if (!reader) return;
    const [data, loaded] = await Promise.all([
      backend.request(`api/neighbors?${new URLSearchParams({ run })}`),
      loadImage(),
    ]).catch(() => [null, null]);
    if (reader !== newReader) return;
    $("neighbors").hidden = !data;
    if (!data) return;
    image = loaded;
    const { shape, data: values } = network.unpack(data.features);
    known = { ...data, values, dimension: shape[1], labels: data.positions.map((_, i) => Math.floor(i / data.per_label)) };
    show(shown);
  }

  async function loadImage() {
    const loaded = new Image();
    loaded.src = "training_digits.png";
    await loaded.decode();
    return loaded;
  }

  // The inputs of the last linear layer, or the logits if there is none.
  function featuresOf(values) {
    const { steps, output } = reader.network;
    const last = steps.findLastIndex(({ name }) => name === "linear");
    return values[last < 0 ? output : steps[last].values.input].data;
  }

  // The training digits from the nearest to the farthest: {index, distance}.
  function sorted(features) {
    const { dimension, values, labels } = known;
    return labels.map((_, index) => {
      let sum = 0;
      for (let i = 0, at = index * dimension; i < dimension; i++, at++) sum += (values[at] - features[i]) ** 2;
      return { index, distance: Math.sqrt(sum) };
    }).sort((a, b) => a.distance - b.distance);
  }

  function show(digit) {
    if (!known || !$("neighbors").open) return;
    const nearest = digit ? sorted(featuresOf(reader.valuesOf(digit))) : [];
    const first = nearest.slice(0, SHOWN);
    $("nearest").replaceChildren(...first.map(thumbnail));
    const labels = first.map(({ index }) => known.labels[index]);
    $("neighbors-text").textContent = labels.length
      ? `The labels of the ${SHOWN} nearest: ${labels.join(" ")}.`
      : "Draw a digit to see the most similar ones of 500 training digits.";
    drawMap(nearest.slice(0, PLACING));
  }

  function thumbnail({ index, distance }) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const [x, y] = [(index % known.columns) * SIDE, Math.floor(index / known.columns) * SIDE];
    canvas.getContext("2d").drawImage(image, x, y, SIDE, SIDE, 0, 0, SIDE, SIDE);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `training digit ${known.labels[index]}`);
    canvas.title = `label ${known.labels[index]}, distance ${distance.toFixed(1)}`;
    return canvas;
  }

  function drawMap(nearest) {
    const canvas = $("map");
    const context = canvas.getContext("2d");
    const at = ([x, y]) => [14 + x * (canvas.width - 28), 14 + y * (canvas.height - 28)];
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.font = "600 15px system-ui, sans-serif";
    [context.textAlign, context.textBaseline] = ["center", "middle"];
    known.positions.forEach((position, index) => {
      const label = known.labels[index];
      context.globalAlpha = nearest.some((each) => each.index === index) ? 1 : 0.55;
      context.fillStyle = COLORS[label % COLORS.length];
      context.fillText(label, ...at(position));
    });
    context.globalAlpha = 1;
    if (!nearest.length) return;
    const weights = nearest.map(({ distance }) => 1 / (distance + 1e-6));
    const total = weights.reduce((a, b) => a + b);
    const mean = [0, 1].map((axis) =>
      nearest.reduce((sum, { index }, i) => sum + known.positions[index][axis] * weights[i], 0) / total);
    context.strokeStyle = getComputedStyle(canvas).color;
    context.lineWidth = 3;
    context.beginPath();
    context.arc(...at(mean), 12, 0, 2 * Math.PI);
    context.stroke();
  }

  $("neighbors").ontoggle = () => show(shown);

  verdict.follow((digit) => {
    shown = digit;
    clearTimeout(timer);
    timer = setTimeout(() => show(shown), PAUSE);
  });

  return { use };
})();
