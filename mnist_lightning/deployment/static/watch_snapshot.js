// Shows a snapshot of the network: the filters of its first layer, one image, and its mistakes.
"use strict";

const snapshotView = (() => {
  const FILTER_SIDE = 55; // pixels of a filter on the page, about
  const GAP = 4;
  const MAX_BARS = 10;

  // Never 100.0 or 0.0 %, which promise too much.
  function percent(share) {
    if (share >= 0.9995) return ">99.9 %";
    return share < 0.0005 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`;
  }

  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

  function cell(name, text, className = "") {
    const node = document.createElement(name);
    node.textContent = text;
    node.className = className;
    return node;
  }

  // A canvas with gray values, one per pixel.
  function grayCanvas(grays, width, height) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    grays.forEach((gray, i) => image.data.set([gray, gray, gray, 255], 4 * i));
    context.putImageData(image, 0, 0);
    return canvas;
  }

  function showFilters(filters, epoch) {
    $("filters").hidden = !filters;
    if (!filters) {
      $("filters-note").textContent = "The weights of the first layer are not images, or not finite.";
      return;
    }
    const [count, height, width] = filters.shape;
    const values = new Int8Array(bytes(filters.values).buffer);
    const zoom = Math.max(1, Math.round(FILTER_SIDE / Math.max(width, height)));
    const columns = Math.min(count, count % 5 === 0 || count > 16 ? 5 : 4);
    const canvas = $("filters");
    canvas.width = columns * (zoom * width + GAP) - GAP;
    canvas.height = Math.ceil(count / columns) * (zoom * height + GAP) - GAP;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    for (let index = 0; index < count; index++) {
      const part = values.subarray(index * width * height, (index + 1) * width * height);
      const small = grayCanvas(Array.from(part, (value) => Math.round(127.5 + value)), width, height);
      const left = (index % columns) * (zoom * width + GAP), top = Math.floor(index / columns) * (zoom * height + GAP);
      context.drawImage(small, left, top, zoom * width, zoom * height);
    }
    const size = `${height} × ${width} weights each`;
    const largest = filters.scale.toPrecision(3);
    const number = count < filters.total ? `${count} of ${filters.total} filters` : `${count} filters`;
    canvas.setAttribute("aria-label", `${number} after epoch ${epoch}, ${size}`);
    $("filters-note").textContent = `${number}, ${size}. Black: −${largest}, gray: 0, white: ${largest}.`;
  }

  function showDigit({ pixels, label, part, probabilities }) {
    const grays = Array.from(bytes(pixels), (ink) => 255 - ink);
    $("digit").getContext("2d").drawImage(grayCanvas(grays, 28, 28), 0, 0);
    $("digit").setAttribute("aria-label", `The first ${part} image, with label ${label}`);
    const place = `The first ${part} image. Its label is ${label}.`;
    $("bars").hidden = !probabilities;
    if (!probabilities) {
      $("digit-note").textContent = `${place} The probabilities are not known.`;
      return;
    }
    const predicted = probabilities.indexOf(Math.max(...probabilities));
    const verdict = predicted === label ? "correct" : "wrong";
    $("digit-note").textContent = `${place} Prediction: ${predicted}, ${percent(probabilities[predicted])}, ${verdict}.`;
    let shown = probabilities.map((probability, digit) => ({ probability, digit }));
    if (shown.length > MAX_BARS) shown = shown.sort((a, b) => b.probability - a.probability).slice(0, MAX_BARS);
    $("bars").tBodies[0].replaceChildren(...shown.map((each) => bar(each, predicted)));
  }

  function bar({ probability, digit }, predicted) {
    const row = cell("tr", "", digit === predicted ? "first" : "");
    const head = cell("th", digit);
    head.scope = "row";
    const meter = document.createElement("meter");
    meter.value = probability;
    meter.setAttribute("aria-label", `${digit}: ${percent(probability)}`);
    const middle = document.createElement("td");
    middle.append(meter);
    row.append(head, middle, cell("td", percent(probability)));
    return row;
  }

  function showConfusion(confusion) {
    $("confusion-scroll").hidden = !confusion;
    if (!confusion) {
      $("confusion-note").textContent = "There is none: no validation followed (also before the training), or there are more than 32 classes.";
      return;
    }
    const total = confusion.flat().reduce((sum, count) => sum + count, 0);
    const correct = confusion.reduce((sum, row, label) => sum + row[label], 0);
    const mistakes = confusion.flatMap((row, label) => row.filter((_, column) => column !== label));
    const mostMistakes = Math.max(1, ...mistakes);
    const heads = confusion.map((_, label) => columnHead(label));
    const first = document.createElement("tr");
    first.append(cell("td", ""), ...heads);
    const rows = confusion.map((counts, label) => confusionRow(counts, label, mostMistakes));
    const head = document.createElement("thead"), body = document.createElement("tbody");
    head.append(first);
    body.append(...rows);
    $("confusion").replaceChildren(head, body);
    $("confusion-note").textContent = `${total.toLocaleString("en")} validation images, ` +
      `${correct.toLocaleString("en")} of them correct. Rows: true label; columns: prediction.`;
  }

  function columnHead(label) {
    const head = cell("th", label);
    head.scope = "col";
    return head;
  }

  function confusionRow(counts, label, mostMistakes) {
    const row = document.createElement("tr");
    const head = cell("th", label);
    head.scope = "row";
    row.append(head);
    const sum = counts.reduce((total, count) => total + count, 0);
    counts.forEach((count, column) => {
      const kind = column === label ? "correct" : count ? "mistake" : "none";
      const node = cell("td", count, kind);
      const share = column === label ? count / Math.max(1, sum) : count / mostMistakes;
      node.style.setProperty("--share", `${Math.round(40 * share)}%`);
      row.append(node);
    });
    return row;
  }

  function show(snapshot) {
    showFilters(snapshot.filters, snapshot.epoch);
    showDigit(snapshot.digit);
    showConfusion(snapshot.confusion);
  }

  return { show };
})();
