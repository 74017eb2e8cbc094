// Reads images in the page itself, with the network in this file; same responses as the server.
"use strict";

const backend = (() => {
  const MAX_SIDE = 4096; // a photo is reduced to this size, which the canvas of every browser supports
  const { UNSURE_BELOW } = constants.inference;
  const { MIN_OTHERS } = constants.calibration;
  const MULTIPLE = { auto: null, true: true, false: false };

  const model = JSON.parse($("model").textContent);
  const logitsOf = network.load(model);

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

  function toDataUrl({ width, height, data }) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const shades = Uint8ClampedArray.from({ length: 4 * data.length }, (_, i) =>
      i % 4 === 3 ? 255 : data[i >> 2]);
    canvas.getContext("2d").putImageData(new ImageData(shades, width, height), 0, 0);
    return canvas.toDataURL();
  }

  function toAnswer({ ink, dark, box, wide }) {
    const { probabilities, notDigit } = calibrate(Array.from(logitsOf(ink.data)));
    const confidence = Math.max(...probabilities);
    return {
      label: probabilities.indexOf(confidence),
      confidence,
      probabilities,
      box,
      ink: dark ? "dark" : "light",
      wide,
      unsure: !(confidence >= UNSURE_BELOW),
      not_digit: notDigit,
      input: toDataUrl(ink),
    };
  }

  // The response for a canvas, in the same form as from the server.
  async function read(canvas, multiple) {
    await new Promise((done) => setTimeout(done)); // show the stroke first
    const start = performance.now();
    const { width, height } = canvas;
    const image = canvas.getContext("2d").getImageData(0, 0, width, height);
    const digits = mnistFormat.findDigits(image, MULTIPLE[multiple]).map(toAnswer);
    return { width, height, digits, milliseconds: performance.now() - start };
  }

  async function readFile(file) {
    throw new Error(`This browser cannot open ${file.name}: it is not an image, or is damaged.`);
  }

  return { MAX_SIDE, read, readFile };
})();
