// Reads images in the page with the description of a network; same responses as the server.
"use strict";

function makeReader(model) {
  const { UNSURE_BELOW } = constants.inference;
  const { MIN_OTHERS } = constants.calibration;
  const MULTIPLE = { auto: null, true: true, false: false };

  const loaded = network.load(model);

  function softmax(logits) {
    const max = Math.max(...logits);
    const exponentials = logits.map((logit) => Math.exp(logit - max));
    const total = arrays.sum(exponentials);
    return exponentials.map((value) => value / total);
  }

  // The probability that the image is a digit, as in networks/calibration.py.
  function digitProbability(probabilities) {
    const ordered = [...probabilities].sort((a, b) => a - b);
    const others = Math.max(arrays.sum(ordered.slice(0, -1)), MIN_OTHERS);
    const logOdds = Math.log(ordered[ordered.length - 1]) - Math.log(others);
    return 1 / (1 + Math.exp(-(model.digit_slope * logOdds + model.digit_offset)));
  }

  function calibrate(logits) {
    const digit = digitProbability(softmax(logits));
    const scaled = softmax(logits.map((logit) => logit / model.temperature));
    return {
      probabilities: scaled.map((share) => digit * share + (1 - digit) / scaled.length),
      notDigit: digit < model.min_digit,
    };
  }

  // Classify 28x28 pixels; `values` are those of every step of the network.
  function classify(pixels) {
    const values = loaded.values(pixels);
    const { probabilities, notDigit } = calibrate(Array.from(values[loaded.output].data));
    const confidence = Math.max(...probabilities);
    const label = probabilities.indexOf(confidence);
    const unsure = !(confidence >= UNSURE_BELOW);
    return { label, confidence, probabilities, unsure, not_digit: notDigit, values, network: loaded };
  }

  // The values of every step for a digit, which another network may have read.
  function valuesOf(digit) {
    if (digit.network !== loaded) Object.assign(digit, { values: loaded.values(digit.pixels), network: loaded });
    return digit.values;
  }

  // The digits of an image {width, height, data}, as in a canvas.
  function find(image, multiple) {
    return mnistFormat.findDigits(image, MULTIPLE[multiple]).map(({ ink, dark, box, wide, cell }) =>
      ({ ...classify(ink.data), pixels: ink.data, ink: dark ? "dark" : "light", box, wide, cell }));
  }

  // The digits, or the problem, in a form that one thread can send to another.
  function answer(image, multiple) {
    try {
      return { digits: find(image, multiple).map((digit) => ({ ...digit, network: null })) };
    } catch (error) {
      return { problem: error.message };
    }
  }

  return { find, answer, classify, valuesOf, network: loaded };
}

// In a thread of its own, this script gets a model, and then images.
if (typeof document === "undefined") {
  let reader = null;
  globalThis.onmessage = ({ data: { model, image, multiple } }) => {
    if (model) reader = makeReader(model);
    else postMessage(reader.answer(image, multiple));
  };
}
