// The results: the labels, a bar for each probability, and buttons to choose a digit.
"use strict";

const $ = (id) => document.getElementById(id);

const verdict = (() => {
  // Never 100.0 or 0.0 %, which promise too much.
  function percent(share) {
    if (share >= 0.9995) return ">99.9 %";
    return share < 0.0005 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`;
  }

  const labelOf = (digit) => (digit.not_digit ? "?" : digit.label);

  let answer = null;
  let chosen = 0; // the index of the digit that is shown in detail

  function show(response) {
    answer = response;
    chosen = Math.min(chosen, response.digits.length - 1);
    const strong = document.createElement("strong");
    strong.textContent = response.digits.map(labelOf).join(" ");
    $("verdict").className = "";
    $("verdict").replaceChildren(strong, describe(response.digits));
    const chips = response.digits.length > 1 ? response.digits.map(chip) : [];
    $("digits").replaceChildren(...chips);
    showDigit();
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
    button.setAttribute("aria-label", `digit ${index + 1}: ${labelOf(digit)}, ${percent(digit.confidence)}`);
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
    $("input").src = digit.input;
    $("bars").tBodies[0].replaceChildren(
      ...digit.probabilities.map((probability, label) => bar(probability, label, digit.not_digit ? null : digit.label)),
    );
    const notes = [`${digit.ink} ink`, `read in ${answer.milliseconds.toFixed(0)} ms`];
    if (digit.wide) notes.push("wide: possibly several touching digits");
    $("notes").textContent = notes.join(" · ");
  }

  function bar(probability, label, first) {
    const row = document.createElement("tr");
    row.className = label === first ? "first" : "";
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = label;
    const meter = document.createElement("meter");
    meter.value = probability;
    meter.setAttribute("aria-label", `${label}: ${percent(probability)}`);
    const middle = document.createElement("td");
    middle.append(meter);
    const end = document.createElement("td");
    end.textContent = percent(probability);
    row.append(head, middle, end);
    return row;
  }

  function forget() {
    answer = null;
    chosen = 0;
  }

  function showNothing() {
    $("verdict").className = "";
    $("verdict").textContent = "Nothing drawn yet.";
    hideDetails();
  }

  function showProblem(error) {
    $("verdict").className = "problem";
    $("verdict").textContent = error.message;
    answer = null;
    hideDetails();
  }

  function hideDetails() {
    $("details").hidden = true;
    $("digits").replaceChildren();
    $("notes").textContent = "";
  }

  return {
    show,
    showNothing,
    showProblem,
    forget,
    get answer() { return answer; },
    get chosen() { return chosen; },
  };
})();
