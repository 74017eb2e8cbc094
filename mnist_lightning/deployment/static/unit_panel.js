// One unit of a layer: what it computes, from which inputs and weights, and step by step.
"use strict";

const unitPanel = (() => {
  let shown = null; // {network, values, layer, index, unit}
  let step = null; // the part of the sum that is shown; null: all
  let timer = 0; // plays the steps

  const number = (value) => (Math.abs(value) < 0.005 ? 0 : value).toFixed(2).replace("-", "−");

  const positionOf = ({ channel, row, column }) =>
    row === undefined ? `unit ${channel}` : `map ${channel}, row ${row}, column ${column}`;

  // The value of a unit after each step of its layer, as text.
  function chain({ network, values, layer, unit }, sum) {
    return layer.steps.map((index, i) => {
      const { data, shape } = values[index + 1];
      const result = number(i === 0 && sum !== null ? sum : data[layers.offset(shape, unit)]);
      return i === 0 ? result : `${layers.FOLLOWERS[network.steps[index].name]}: ${result}`;
    }).join(" → ");
  }

  const sumOf = (inputs, weights) => inputs.reduce((total, input, i) => total + input * weights[i], 0);

  // The parts of a sum: for each input map, or for a single map each pixel.
  function partsOf(computed) {
    if (!computed?.patches?.[0].weights) return [];
    const [first] = computed.patches;
    if (computed.patches.length > 1) return computed.patches.map((patch) => sumOf(patch.inputs, patch.weights));
    return Array.from(first.inputs, (input, i) => input * first.weights[i]);
  }

  function show(selection) {
    if (shown?.index !== selection?.index) step = null;
    shown = selection;
    $("unit").hidden = !shown;
    if (!shown) return stop();
    const { network, values, layer, unit, index } = shown;
    const computed = layers.inputsOf(network, values, layer, unit);
    const value = values[layer.value].data[layers.offset(values[layer.value].shape, unit)];
    $("unit-title").textContent = `Layer ${index}, ${positionOf(unit)}`;
    $("unit-formula").textContent = describe(computed, value);
    showImages(computed);
    showSteps(computed);
  }

  function describe(computed, value) {
    if (shown.index === 0) return `The normalized brightness of this pixel: ${number(value)}.`;
    if (computed?.patches?.[0].weights || computed?.weights) {
      const parts = computed.weights ? [sumOf(computed.inputs, computed.weights)] : partsOf(computed);
      const total = parts.reduce((a, b) => a + b, 0);
      const count = computed.weights?.length ?? computed.patches.length * computed.patches[0].inputs.length;
      const terms = computed.bias ? `${number(total)} + bias ${number(computed.bias)} = ` : "";
      const products = `${count} products of an input and a weight`;
      return `Sum of ${products}: ${terms}${chain(shown, total + computed.bias)}`;
    }
    if (computed?.patches) return `From ${computed.patches[0].inputs.length} inputs: ${chain(shown, null)}`;
    if (computed?.terms) return `${computed.terms.map(number).join(" + ")} = ${chain(shown, null)}`;
    return `Value: ${chain(shown, null)}`;
  }

  // Paint inputs, weights and products, each as one small map for every input map.
  function showImages(computed) {
    const patches = computed?.patches;
    const shape = patches ? [patches.length, ...patches[0].sides] : computed?.shape;
    const join = (name) => patches ? Float32Array.from(patches.flatMap((patch) => [...patch[name]])) : computed[name];
    $("unit-images").hidden = !shape;
    if (!shape) return;
    const hasWeights = Boolean(computed.weights ?? patches[0].weights);
    const inputs = join("inputs");
    const images = { inputs };
    if (hasWeights) {
      images.weights = join("weights");
      images.products = inputs.map((input, i) => input * images.weights[i]);
    }
    for (const name of ["inputs", "weights", "products"]) {
      const canvas = $(`unit-${name}`);
      canvas.parentElement.hidden = !(name in images);
      if (!(name in images)) continue;
      activationImage.paint(canvas, { shape, data: images[name] });
      const scale = Math.min(16, Math.sqrt(14_000 / (canvas.width * canvas.height)));
      canvas.style.width = `${Math.round(canvas.width * Math.max(scale, 1))}px`;
    }
  }

  function showSteps(computed) {
    const parts = partsOf(computed);
    $("steps").hidden = !parts.length;
    $("patch").hidden = !parts.length || step === null;
    if (!parts.length) return stop();
    step = step === null ? null : Math.min(step, parts.length - 1);
    $("step-previous").disabled = !step;
    $("step-next").disabled = step === parts.length - 1;
    $("step-play").textContent = timer ? "Stop" : "Play";
    if (step === null) {
      $("step-text").textContent = `${parts.length} steps`;
      return;
    }
    const total = parts.slice(0, step + 1).reduce((a, b) => a + b, 0);
    const perMap = computed.patches.length > 1;
    const name = perMap ? `input map ${step} of ${parts.length}` : `pixel ${step + 1} of ${parts.length}`;
    const last = step === parts.length - 1 && computed.bias ? `, with the bias ${number(total + computed.bias)}` : "";
    $("step-text").textContent = `${name}: ${number(parts[step])}; sum so far: ${number(total)}${last}`;
    showPatch(computed.patches[perMap ? step : 0], perMap ? null : step);
  }

  // A table of the products of one input map.
  function showPatch({ sides, inputs, weights }, chosen) {
    const rows = Array.from({ length: sides[0] }, (_, row) => {
      const line = document.createElement("tr");
      for (let column = 0; column < sides[1]; column++) {
        const at = row * sides[1] + column;
        const cell = document.createElement("td");
        cell.textContent = `${number(inputs[at])}\n${layers.TIMES}${number(weights[at])}`;
        cell.className = chosen !== null && at > chosen ? "later" : at === chosen ? "chosen" : "";
        line.append(cell);
      }
      return line;
    });
    const note = shown.index === 1 ? " (the background is −0.42, and 0 is outside of the image)" : "";
    $("patch").caption.textContent = `input × weight${note}`;
    $("patch").tBodies[0].replaceChildren(...rows);
  }

  function go(change) {
    step = step === null ? 0 : step + change;
    show(shown);
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    $("step-play").textContent = "Play";
  }

  for (const [name, change] of [["next", 1], ["previous", -1]]) {
    $(`step-${name}`).onclick = () => {
      inside.pin();
      go(change);
    };
  }
  $("step-play").onclick = () => {
    if (timer) return stop();
    inside.pin();
    step = null;
    timer = setInterval(() => ($("step-next").disabled ? stop() : go(1)), 700);
    go(0);
  };

  return { show };
})();
