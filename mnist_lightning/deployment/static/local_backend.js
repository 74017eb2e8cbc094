// Reads images in the page itself, with the network in this file.
"use strict";

const backend = (() => {
  const MAX_SIDE = 4096; // a photo is reduced to this size, which the canvas of every browser supports

  const reader = makeReader(JSON.parse($("model").textContent));

  async function readFile(file) {
    throw new Error(`This browser cannot open ${file.name}: it is not an image, or is damaged.`);
  }

  const start = () => inside.use(reader);

  return { MAX_SIDE, read: reader.read, readFile, reader, start };
})();
