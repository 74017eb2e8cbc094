// Reads images in the page itself, with the network in this file.
"use strict";

const backend = (() => {
  const MAX_SIDE = 4096; // a photo is reduced to this size, which the canvas of every browser supports

  const model = JSON.parse($("model").textContent);
  const reader = makeReader(model);
  const script = new Blob([$("reading").textContent], { type: "text/javascript" });
  const { read } = startReading(URL.createObjectURL(script), model, reader);

  async function readFile(file) {
    throw new Error(`This browser cannot open ${file.name}: it is not an image, or is damaged.`);
  }

  const start = () => inside.use(reader);

  return { MAX_SIDE, read, readFile, reader, start };
})();
