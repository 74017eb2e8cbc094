// What a 28x28 digit is: images.py in JavaScript.
"use strict";

const images = (() => {
  const SIZE = 28;
  const BOX = 20;
  const WHITE = 0.43;
  const INKED = 40;
  const { rint } = arrays;

  // The digits in a picture, in reading order: {ink, dark, box, wide}, the ink 28x28. `multiple`
  // is true, false, or null for what is obvious.
  function findDigits(picture, multiple) {
    if (picture.width === SIZE && picture.height === SIZE) {
      const gray = inkOf.grayOf(picture);
      if (arrays.median(inkOf.edgeOf(gray)) === 0) {
        if (arrays.greatest(gray.data) < 255 * inkOf.LEAST_CONTRAST) {
          throw new Error("no digit in the picture: it is blank");
        }
        const ink = arrays.map(gray, (value) => value, Uint8Array);
        return [{ ink, dark: false, box: [0, 0, SIZE, SIZE], wide: false }];
      }
    }
    return inkOf.trace(picture, multiple).map((found) => ({ ...found, ink: fromInk(found.ink) }));
  }

  const fromInk = (ink) => centerByMass(stretch(fitToBox(arrays.map(cropToInk(ink), Number, Float32Array))));

  function cropToInk(ink) {
    const { parts } = pieces.label(ink, ink);
    if (!parts.length) throw new Error("no ink in the picture");
    const least = (name) => Math.min(...parts.map((part) => part[name]));
    const most = (name) => Math.max(...parts.map((part) => part[name]));
    return arrays.cropped(ink, least("left"), least("top"), most("right"), most("bottom"));
  }

  function fitToBox(ink) {
    const scale = BOX / Math.max(ink.height, ink.width);
    const [width, height] = [ink.width, ink.height].map((side) => Math.max(1, rint(side * scale)));
    return pillow.resize(ink, width, height, scale < 1 ? "box" : "bicubic");
  }

  function stretch(ink) {
    const most = arrays.greatest(ink.data);
    const inked = ink.data.filter((value) => value > (INKED / 255) * most);
    const white = arrays.quantiles(inked, [1 - WHITE])[0];
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
