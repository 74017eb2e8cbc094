// Draws a chart of a metric as SVG: solid for training, dashed for validation, dotted for single steps.
"use strict";

const charts = (() => {
  const HEIGHT = 230;
  const LEFT = 56, RIGHT = 12, TOP = 10, BOTTOM = 36; // the space around the plot
  const MAX_MARKERS = 40; // with more epochs, the lines have no markers
  const SVG = "http://www.w3.org/2000/svg";

  function element(name, attributes, text = "") {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return node;
  }

  // The distance of ticks, 1, 2 or 5 times a power of ten, for at most `count` of them.
  function tickDistance(span, count) {
    const rough = span / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough * 0.999);
  }

  function ticks(low, high, count) {
    const distance = tickDistance(high - low, count);
    const values = [];
    for (let i = Math.ceil(low / distance - 1e-6) + 0; i * distance <= high * (1 + 1e-9); i++) values.push(i * distance);
    return values;
  }

  // The ticks of the horizontal axis: epochs at the steps of their ends; before the first end, steps.
  function stepTicks(epochs, lastStep, count) {
    if (!epochs.length) {
      return { title: "step", places: ticks(0, lastStep, count).map((step) => [step, step.toLocaleString("en")]) };
    }
    const distance = Math.max(1, tickDistance(epochs[epochs.length - 1].epoch, count));
    const shown = epochs.filter((each) => each.epoch % distance === 0);
    return { title: "epoch", places: [[0, "0"], ...shown.map((each) => [each.step, each.epoch.toLocaleString("en")])] };
  }

  // A path through points [x, y]; null interrupts it.
  function path(points) {
    let command = "M";
    const parts = [];
    for (const [x, y] of points) {
      if (y === null) command = "M";
      else {
        parts.push(`${command}${x.toFixed(1)} ${y.toFixed(1)}`);
        command = "L";
      }
    }
    return parts.join("");
  }

  // lines: [{ name, points: [[step, value or null], …], markers }].
  function draw(svg, { lines, epochs, lastStep, low, high, format, label }) {
    const width = Math.max(260, svg.clientWidth || 440);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.setAttribute("height", HEIGHT);
    svg.setAttribute("aria-label", label);
    const right = width - RIGHT, bottom = HEIGHT - BOTTOM;
    const x = (step) => LEFT + ((right - LEFT) * step) / Math.max(1, lastStep);
    const y = (value) => bottom - ((bottom - TOP) * (value - low)) / (high - low);
    const nodes = [];
    for (const value of ticks(low, high, 5)) {
      nodes.push(element("line", { class: "grid", x1: LEFT, x2: right, y1: y(value), y2: y(value) }));
      nodes.push(element("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)));
    }
    const { title, places } = stepTicks(epochs, lastStep, Math.max(2, Math.floor(width / 80)));
    for (const [step, text] of places) {
      nodes.push(element("line", { class: "grid", x1: x(step), x2: x(step), y1: bottom, y2: bottom + 4 }));
      nodes.push(element("text", { x: x(step), y: bottom + 17, "text-anchor": "middle" }, text));
    }
    nodes.push(element("text", { x: (LEFT + right) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, title));
    const clip = element("clipPath", { id: `${svg.id}-clip` });
    clip.append(element("rect", { x: LEFT - 5, y: TOP - 5, width: right - LEFT + 10, height: bottom - TOP + 10 }));
    const plot = element("g", { "clip-path": `url(#${svg.id}-clip)` });
    for (const { name, points, markers } of lines) {
      const placed = points.map(([step, value]) => [x(step), value === null ? null : y(value)]);
      plot.append(element("path", { class: name, d: path(placed) }));
      if (!markers || points.length > MAX_MARKERS) continue;
      for (const [left, top] of placed) {
        if (top === null) continue;
        if (markers === "circle") plot.append(element("circle", { class: name, cx: left, cy: top, r: 3 }));
        else plot.append(element("rect", { class: name, x: left - 3.5, y: top - 3.5, width: 7, height: 7 }));
      }
    }
    svg.replaceChildren(clip, ...nodes, plot);
  }

  const finite = (values) => values.filter((value) => value !== null);

  function meanLines(epochs, metric) {
    return [
      { name: "train", markers: "circle", points: epochs.map((each) => [each.step, each[`train_${metric}`]]) },
      { name: "val", markers: "square", points: epochs.map((each) => [each.step, each[`val_${metric}`]]) },
    ];
  }

  function describe(name, epochs, metric, format) {
    const last = epochs[epochs.length - 1];
    if (!last) return `${name}: no values yet`;
    const text = (value) => (value === null ? "unknown" : format(value));
    return `${name} after epoch ${last.epoch}: training ${text(last[`train_${metric}`])}, validation ${text(last[`val_${metric}`])}`;
  }

  // epochs: the metrics of the epochs, in order; steps: [[step, loss], …].
  function show(epochs, steps, lastStep) {
    const losses = finite(epochs.flatMap((each) => [each.train_loss, each.val_loss]));
    const highest = Math.max(...(losses.length ? losses : steps.map(([, loss]) => loss)), 1e-6);
    const end = Math.max(lastStep, 1);
    const loss = (value) => value.toFixed(highest < 0.1 ? 3 : 2);
    draw($("loss"), {
      lines: [{ name: "steps", points: steps }, ...meanLines(epochs, "loss")],
      epochs, lastStep: end, low: 0, high: 1.08 * highest, format: loss,
      label: describe("Loss", epochs, "loss", (value) => value.toFixed(4)),
    });
    const accuracies = finite(epochs.flatMap((each) => [each.train_accuracy, each.val_accuracy]));
    const lowest = Math.min(...accuracies, 0.95);
    draw($("accuracy"), {
      lines: meanLines(epochs, "accuracy"),
      epochs, lastStep: end, low: Math.floor(20 * lowest) / 20, high: 1,
      format: (value) => `${(100 * value).toFixed(lowest > 0.94 ? 1 : 0)} %`,
      label: describe("Accuracy", epochs, "accuracy", (value) => `${(100 * value).toFixed(2)} %`),
    });
  }

  return { show };
})();
