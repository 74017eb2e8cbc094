// Reads pictures on this page itself: what a server would answer, from the network in this file.
"use strict";

const reader = (() => {
  const MOST_SIDE = 4096; // a photo is reduced to this: more than every browser's canvas takes
  const UNSURE = 0.8;
  const MULTIPLE = { auto: null, true: true, false: false };

  const model = JSON.parse($("model").textContent);
  const logitsOf = network.load(model);

  function probabilitiesOf(ink) {
    const logits = Array.from(logitsOf(ink), (logit) => logit / model.temperature);
    const most = Math.max(...logits);
    const powers = logits.map((logit) => Math.exp(logit - most));
    const total = arrays.sum(powers);
    return powers.map((power) => power / total);
  }

  function pictureOf({ width, height, data }) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const shades = Uint8ClampedArray.from({ length: 4 * data.length }, (_, i) =>
      i % 4 === 3 ? 255 : data[i >> 2]);
    canvas.getContext("2d").putImageData(new ImageData(shades, width, height), 0, 0);
    return canvas.toDataURL();
  }

  function described({ ink, dark, box, wide }) {
    const probabilities = probabilitiesOf(ink.data);
    const confidence = Math.max(...probabilities);
    return {
      label: probabilities.indexOf(confidence),
      confidence,
      probabilities,
      box,
      ink: dark ? "dark" : "light",
      wide,
      unsure: confidence < UNSURE,
      input: pictureOf(ink),
    };
  }

  // The answer about a canvas, in the form in which a server gives it.
  async function read(canvas, multiple) {
    await new Promise((done) => setTimeout(done)); // the stroke is to be seen first
    const began = performance.now();
    const { width, height } = canvas;
    const picture = canvas.getContext("2d").getImageData(0, 0, width, height);
    const digits = images.findDigits(picture, MULTIPLE[multiple]).map(described);
    return { width, height, digits, milliseconds: performance.now() - began };
  }

  async function readFile(file) {
    throw new Error(`This browser cannot show ${file.name}: it is no picture, or damaged.`);
  }

  return { MOST_SIDE, read, readFile };
})();
