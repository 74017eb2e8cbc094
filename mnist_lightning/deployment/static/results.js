// The results: the labels, a bar for each probability, and buttons to choose a digit.
"use strict";

const $ = (id) => document.getElementById(id);

const verdict = (() => {
  const SPEECH_PAUSE = 700; // ms
  // Never 100.0 or 0.0 %, which promise too much.
  function percent(share) {
    if (share >= 0.9995) return ">99.9 %";
    return share < 0.0005 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`;
  }

  const labelOf = (digit) => (digit.not_digit ? "?" : digit.label);

  const [bars] = $("bars").tBodies;
  const followers = []; // functions that show more about the digit, or null
  let other = null; // another network: {classify, describe}
  let answer = null;
  let isPending = false; // whether the drawing has changed since the answer
  let timer = null;
  let chosen = 0; // the index of the digit that is shown in detail

  // Show a response; if the drawing has changed since, the page says so.
  function show(response, isLatest) {
    answer = response;
    setPending(!isLatest);
    chosen = Math.min(chosen, response.digits.length - 1);
    const { digits } = response;
    const columns = digits[0].cell && Math.max(...digits.map(({ cell }) => cell[1])); // of a form
    const strong = document.createElement("strong");
    strong.textContent = digits.map(labelOf).join(" ");
    const title = digits.length === 1 ? "1 digit in a form" : `${digits.length} digits in a form`;
    $("verdict").className = "";
    $("verdict").replaceChildren(...(columns ? [`${title}; ${describe(digits)}`] : [strong, describe(digits)]));
    announce();
    const chips = columns || digits.length > 1 ? digits.map(chip) : [];
    $("digits").className = columns ? "form" : "tools";
    $("digits").style.gridTemplateColumns = columns ? `repeat(${columns}, minmax(1.7rem, 1fr))` : "";
    $("digits").replaceChildren(...chips);
    showDigit();
  }

  // Let a screen reader say the verdict, once it has not changed for a moment.
  function announce() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const text = [...$("verdict").childNodes].map((node) => node.textContent).join(", ");
      if ($("spoken").textContent !== text) $("spoken").textContent = text;
    }, SPEECH_PAUSE);
  }

  function setPending(value) {
    isPending = value;
    $("prediction").setAttribute("aria-busy", value);
  }

  function describe(digits) {
    const single = digits.length === 1;
    const strange = digits.filter((digit) => digit.not_digit).length;
    if (strange) return single ? "probably not a digit" : `${strange} probably not a digit`;
    const min = percent(Math.min(...digits.map((digit) => digit.confidence)));
    const confidence = single ? min : `the least certain: ${min}`;
    return digits.some((digit) => digit.unsure) ? `unsure, ${confidence}` : confidence;
  }

  function chip(digit, index) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = labelOf(digit);
    const name = digit.cell ? `row ${digit.cell[0]}, column ${digit.cell[1]}` : `digit ${index + 1}`;
    const note = digit.unsure ? ", unsure" : "";
    button.className = digit.unsure ? "unsure" : "";
    button.setAttribute("aria-label", `${name}: ${labelOf(digit)}, ${percent(digit.confidence)}${note}`);
    if (digit.cell) button.style.gridArea = digit.cell.join(" / ");
    button.onclick = () => {
      chosen = index;
      showDigit();
      draw();
    };
    return button;
  }

  function showDigit() {
    const digit = answer.digits[chosen];
    [...$("digits").children].forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
    $("details").hidden = false;
    paintInput(digit.pixels);
    const second = other?.classify(digit);
    const first = digit.not_digit ? null : digit.label;
    while (bars.rows.length > digit.probabilities.length) bars.deleteRow(-1);
    digit.probabilities.forEach((probability, label) => showBar(label, first, probability, second?.probabilities[label]));
    if (other) $("agreement").textContent = other.describe(digit, second);
    const notes = [`${digit.ink} ink`, `read in ${answer.milliseconds.toFixed(0)} ms`];
    if (digit.wide) notes.push("wide: possibly several touching digits");
    $("notes").textContent = notes.join(" · ");
    for (const follower of followers) follower(digit);
  }

  // Paint the 28x28 pixels that the network reads.
  function paintInput(pixels) {
    const image = new ImageData(28, 28);
    const colors = new Uint32Array(image.data.buffer);
    pixels.forEach((ink, i) => (colors[i] = (255 << 24) | (ink << 16) | (ink << 8) | ink));
    $("input").getContext("2d").putImageData(image, 0, 0);
  }

  // Show a row with a bar for each network.
  function showBar(label, first, ...probabilities) {
    const shares = probabilities.filter((probability) => probability !== undefined);
    const row = bars.rows[label] ?? addRow(label);
    const [, middle, end] = row.cells;
    row.className = label === first ? "first" : "";
    const text = shares.map(percent).join("\n");
    if (end.textContent === text) return; // each change costs a layout
    end.textContent = text;
    while (middle.children.length > shares.length) middle.lastChild.remove();
    shares.forEach((share, i) => {
      const meter = middle.children[i] ?? middle.appendChild(document.createElement("meter"));
      meter.value = share;
      meter.setAttribute("aria-label", `${label}: ${percent(share)}`);
    });
  }

  function addRow(label) {
    const row = bars.insertRow();
    const head = row.appendChild(document.createElement("th"));
    head.scope = "row";
    head.textContent = label;
    row.append(document.createElement("td"), document.createElement("td"));
    return row;
  }

  function forget() {
    answer = null;
    chosen = 0;
  }

  function showNothing() {
    $("verdict").className = "";
    $("verdict").textContent = "Nothing drawn yet.";
    announce();
    answer = null;
    hideDetails();
  }

  function showProblem(error) {
    $("verdict").className = "problem";
    $("verdict").textContent = error.message;
    announce();
    answer = null;
    hideDetails();
  }

  function hideDetails() {
    $("details").hidden = true;
    $("digits").replaceChildren();
    $("notes").textContent = "";
    setPending(false);
    if (other) $("agreement").textContent = "";
    for (const follower of followers) follower(null);
  }

  return {
    show,
    showNothing,
    showProblem,
    forget,
    percent,
    refresh: () => answer && showDigit(),
    follow: (follower) => followers.push(follower),
    compareWith: (network) => (other = network),
    expectChange: () => setPending(answer !== null),
    get isPending() { return isPending; },
    get answer() { return answer; },
    get chosen() { return chosen; },
  };
})();
