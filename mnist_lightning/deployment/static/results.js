// What was read: the verdict, a bar for each label, the digits among which to choose.
"use strict";

const $ = (id) => document.getElementById(id);

const verdict = (() => {
  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  let answer = null;
  let chosen = 0; // which of the answer's digits is looked at

  function show(found) {
    answer = found;
    chosen = Math.min(chosen, found.digits.length - 1);
    const strong = document.createElement("strong");
    strong.textContent = found.digits.map((digit) => digit.label).join(" ");
    const least = Math.min(...found.digits.map((digit) => digit.confidence));
    const sure = found.digits.length === 1 ? percent(least) : `each at least ${percent(least)}`;
    $("verdict").className = "";
    const unsure = found.digits.some((digit) => digit.unsure);
    $("verdict").replaceChildren(strong, unsure ? `unsure, ${sure}` : sure);
    const chips = found.digits.length > 1 ? found.digits.map(chip) : [];
    $("digits").replaceChildren(...chips);
    showDigit();
  }

  function chip(digit, index) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = digit.label;
    button.setAttribute("aria-label", `digit ${index + 1}: ${digit.label}, ${percent(digit.confidence)}`);
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
      ...digit.probabilities.map((probability, label) => bar(probability, label, digit.label)),
    );
    const notes = [`${digit.ink} ink`, `read in ${answer.milliseconds.toFixed(0)} ms`];
    if (digit.wide) notes.push("wide: perhaps several digits that touch");
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
    $("verdict").textContent = "Nothing is drawn yet.";
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
