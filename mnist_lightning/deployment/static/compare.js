// Compares the selected run with another one, on the same drawing.
"use strict";

(() => {
  let reader = null; // of the other run
  let problem = "";

  // The probabilities of the other network for a digit; null without one.
  function classify(digit) {
    return reader && digit.pixels ? reader.classify(digit.pixels) : null;
  }

  const nameOf = (id) => $(id).value;
  const labelOf = ({ not_digit, label }) => (not_digit ? "no digit" : label);
  const readingOf = (digit) =>
    digit.not_digit ? labelOf(digit) : `${labelOf(digit)} (${verdict.percent(digit.confidence)})`;

  // State whether both networks agree.
  function describe(digit, other) {
    if (!other) return problem;
    const [first, second] = [digit, other].map(labelOf);
    if (first === second) return `Both networks read ${first}.`;
    return `They disagree: ${nameOf("run")} reads ${readingOf(digit)}, ${nameOf("compare")} reads ${readingOf(other)}.`;
  }

  $("compare").onchange = async () => {
    const run = nameOf("compare");
    [reader, problem] = [null, ""];
    if (run) {
      const loaded = await backend.loadModel(run).then(makeReader).catch((error) => {
        problem = `${run} cannot be compared: ${error.message}.`;
        return null;
      });
      if (run !== nameOf("compare")) return;
      reader = loaded;
    }
    verdict.refresh();
  };

  verdict.compareWith({ classify, describe });
})();
