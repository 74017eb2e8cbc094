// Reads images in another thread, so that the page shows strokes meanwhile.
"use strict";

// Start the thread: `script` is the address of the scripts that predict, `model` the description of a
// network, and `reader` the page's own reader of it. The latter reads if the browser starts no thread.
function startReading(script, model, reader) {
  const waiting = []; // the requests without an answer: {image, multiple, finish}
  let worker = null;
  try {
    worker = new Worker(script);
    worker.onmessage = ({ data }) => waiting.shift().finish(data);
    worker.onerror = stop;
    worker.postMessage({ model });
  } catch {
    worker = null;
  }

  function readHere() {
    for (const { image, multiple, finish } of waiting.splice(0)) finish(reader.answer(image, multiple));
  }

  // End the thread; the page answers what is left.
  function stop() {
    worker?.terminate();
    worker = null;
    readHere();
  }

  // The response for a canvas, in the same form as from the server.
  async function read(canvas, multiple) {
    const start = performance.now();
    const image = pixelsOf(canvas);
    const { digits, problem } = await new Promise((finish) => {
      waiting.push({ image, multiple, finish });
      if (worker) worker.postMessage({ image, multiple });
      else setTimeout(readHere); // show the stroke first
    });
    if (problem) throw new Error(problem);
    for (const digit of digits) digit.network = reader.network;
    return { width: canvas.width, height: canvas.height, digits, milliseconds: performance.now() - start };
  }

  return { read, stop };
}
