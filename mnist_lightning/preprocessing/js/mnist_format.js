// MNIST's format, from an image to its 28x28 digits: mnist_format.py in JavaScript.
"use strict";

const mnistFormat = (() => {
  const { SIZE, BOX, WHITE_SHARE, INKED_LEVEL } = constants.mnist_format;
  const { rint } = arrays;

  // The digits of an image in reading order: {ink, dark, box, wide, cell}, the ink 28x28. `cell`
  // is the row and column in a form. `multiple` is true, false, or null for several only if they are obvious.
  function findDigits(image, multiple) {
    if (image.width === SIZE && image.height === SIZE) {
      const gray = inkExtraction.grayOf(image);
      if (arrays.median(paperRemoval.borderOf(gray)) === 0) {
        if (arrays.max(gray.data) < 255 * inkExtraction.MIN_CONTRAST) {
          throw new Error("no digit in the image: it is blank");
        }
        const ink = arrays.map(gray, (value) => value, Uint8Array);
        return [{ ink, dark: false, box: [0, 0, SIZE, SIZE], wide: false, cell: null }];
      }
    }
    const crops = inkExtraction.extractDigits(image, multiple);
    return crops.map((crop) => ({ ...crop, ink: fromInk(crop.ink) }));
  }

  const fromInk = (ink) => centerByMass(stretch(fitToBox(arrays.map(cropToInk(ink), Number, Float32Array))));

  function cropToInk(ink) {
    const { parts } = components.labelComponents(ink, ink);
    if (!parts.length) throw new Error("no ink in the image");
    const min = (side) => Math.min(...parts.map((part) => part[side]));
    const max = (side) => Math.max(...parts.map((part) => part[side]));
    return arrays.cropped(ink, min("left"), min("top"), max("right"), max("bottom"));
  }

  function fitToBox(ink) {
    const scale = BOX / Math.max(ink.height, ink.width);
    const [width, height] = [ink.width, ink.height].map((side) => Math.max(1, rint(side * scale)));
    return pillow.resize(ink, width, height, scale < 1 ? "box" : "bicubic");
  }

  function stretch(ink) {
    const max = arrays.max(ink.data);
    const inked = ink.data.filter((value) => value > (INKED_LEVEL / 255) * max);
    const white = arrays.quantiles(inked, [1 - WHITE_SHARE])[0];
    return arrays.map(ink, (value) => rint(Math.min(Math.max(value * (255 / white), 0), 255)), Uint8Array);
  }

  function centerByMass({ width, height, data }) {
    let [mass, across, down] = [0, 0, 0];
    data.forEach((value, i) => {
      mass += value;
      across += value * (i % width);
      down += value * Math.trunc(i / width);
    });
    const place = (center, side) => Math.min(Math.max(rint(SIZE / 2 - center / mass), 0), SIZE - side);
    const [left, top] = [place(across, width), place(down, height)];
    const field = new Uint8Array(SIZE * SIZE);
    for (let y = 0; y < height; y++) {
      field.set(data.subarray(y * width, (y + 1) * width), (top + y) * SIZE + left);
    }
    return { width: SIZE, height: SIZE, data: field };
  }

  return { SIZE, findDigits };
})();
