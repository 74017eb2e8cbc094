// Reads drawings in the page, with the network of the selected run, and other images with the server;
// lists its runs, and sends corrections.
"use strict";

const backend = (() => {
  const MAX_SIDE = 1600; // a photo is reduced to this size before it is sent
  let reader = null; // of the selected run; null while it loads, or if the page does not support it
  let loads = 0; // counts the networks, so that only the last one is used
  let thread = null; // reads drawings with this network
  let shown = []; // the 28x28 pixels of the shown digit

  const post = (address, body) => request(address, { method: "POST", body });

  async function request(address, options) {
    const response = await fetch(address, options).catch(() => {
      throw new Error("The server does not respond. Is it running?");
    });
    const content = await response.json().catch(() => null);
    if (!content) throw new Error(`The server failed (status ${response.status}).`);
    if (!response.ok) throw new Error(content.error.message);
    return content;
  }

  async function readFile(file, multiple) {
    const query = new URLSearchParams({ run: $("run").value, multiple });
    const answer = await post(`api/predict?${query}`, file);
    for (const digit of answer.digits) digit.pixels = await pixelsOf(digit.input);
    return { ...answer, file: async () => file };
  }

  // The 28x28 pixels of an image that the server returns.
  async function pixelsOf(address) {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 28;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, 28, 28).data.filter((_, i) => i % 4 === 0);
  }

  async function read(canvas, multiple, isPhoto) {
    const file = () => new Promise((done) => canvas.toBlob(done, "image/png"));
    if (isPhoto || !reader) return readFile(await file(), multiple);
    return { ...(await thread.read(canvas, multiple)), file };
  }

  const loadModel = (run) => request(`api/network?${new URLSearchParams({ run })}`);

  // Load the network of a run into the page.
  async function useRun() {
    const run = $("run").value;
    const load = ++loads;
    reader = null;
    thread?.stop();
    inside.use(null, "Loading the layers …");
    let [reason, model, loaded] = ["", null, null];
    try {
      model = await loadModel(run);
      loaded = makeReader(model);
    } catch (error) {
      reason = `The layers of this network cannot be shown: ${error.message}.`;
    }
    if (load !== loads) return; // another run was selected meanwhile
    reader = loaded;
    thread = reader && startReading("reading.js", model, reader);
    inside.use(reader, reason);
    neighbors.use(reader, run);
    readAgain();
  }

  async function correct(label) {
    try {
      await post(`api/corrections?label=${label}`, await verdict.answer.file());
      $("kept").textContent = `Saved as a ${label}, for training.`;
      document.dispatchEvent(new Event("corrected"));
    } catch (error) {
      $("kept").textContent = error.message;
    }
  }

  function correction(label) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.onclick = () => correct(label);
    return button;
  }

  // Link the page that shows the training of the selected run; report that it has no checkpoint yet.
  function linkTraining() {
    const { value: name, isWatchable, hasCheckpoint } = $("run").selectedOptions[0];
    $("watch").hidden = hasCheckpoint && !isWatchable;
    $("watch").href = `watch?${new URLSearchParams({ run: name })}`;
    if (hasCheckpoint) return;
    verdict.showProblem(new Error(`${name} has no checkpoint yet. Watch its training, and reload this page later.`));
  }

  // Add a run to both lists.
  function addRun({ name, ready = true, watchable = false }, text, isSelected = false) {
    const option = new Option(text, name, false, isSelected);
    $("run").add(Object.assign(option, { hasCheckpoint: ready, isWatchable: watchable }));
    $("compare").add(new Option(text, name));
  }

  // Remove a note about another digit. If the network was loaded meanwhile, the same digit is read again.
  verdict.follow((digit) => {
    const pixels = digit ? digit.pixels : [];
    if (pixels.length !== shown.length || pixels.some((ink, i) => ink !== shown[i])) $("kept").textContent = "";
    shown = pixels;
  });

  async function start() {
    const labels = Array.from({ length: 10 }, (_, label) => label);
    $("correction").querySelector(".tools").append(...labels.map(correction));
    const [health, runs] = await Promise.all(
      ["api/health", "api/runs"].map((address) => request(address)),
    );
    $("correction").hidden = !health.collects;
    const names = runs.map((run) => run.name);
    if (!names.includes(health.run)) runs.unshift({ name: health.run });
    for (const run of runs) {
      const facts = [run.network, run.dataset].filter(Boolean);
      if (run.val_accuracy) facts.push(`${(100 * run.val_accuracy).toFixed(1)} %`);
      const text = facts.length ? `${run.name}: ${facts.join(", ")}` : run.name;
      addRun(run, text, run.name === health.run);
    }
    $("run").addEventListener("change", linkTraining);
    linkTraining();
    $("run").onchange = () => {
      useRun();
      readAgain(); // meanwhile by the server
    };
    await useRun();
  }

  return {
    MAX_SIDE, read, readFile, start, request, loadModel, addRun,
    get reader() { return reader; },
  };
})();
