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

  function toDataUrl({ width, height, data }) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const shades = Uint8ClampedArray.from({ length: 4 * data.length }, (_, i) =>
      i % 4 === 3 ? 255 : data[i >> 2]);
    canvas.getContext("2d").putImageData(new ImageData(shades, width, height), 0, 0);
    return canvas.toDataURL();
  }

  function toDigit({ ink, dark, box, wide }) {
    const polarity = dark ? "dark" : "light";
    return { ...classify(ink.data), box, ink: polarity, wide, input: toDataUrl(ink), pixels: ink.data };
  }

  // The digits in a canvas, now.
  function find(canvas, multiple) {
    const { width, height } = canvas;
    const image = canvas.getContext("2d").getImageData(0, 0, width, height);
    return mnistFormat.findDigits(image, MULTIPLE[multiple]).map(toDigit);
  }

  // The response for a canvas, in the same form as from the server.
  async function read(canvas, multiple) {
    await new Promise((done) => setTimeout(done)); // show the stroke first
    const start = performance.now();
    const digits = find(canvas, multiple);
    const milliseconds = performance.now() - start;
    return { width: canvas.width, height: canvas.height, digits, milliseconds };
  }

  return { read, find, classify, valuesOf, network: loaded };
}
