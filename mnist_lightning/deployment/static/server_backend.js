// Reads images with the server; lists its runs, and sends corrections.
"use strict";

const backend = (() => {
  const MAX_SIDE = 1600; // a photo is reduced to this size before it is sent

  async function send(address, body) {
    const response = await fetch(address, { method: "POST", body }).catch(() => {
      throw new Error("The server does not respond. Is it running?");
    });
    const content = await response.json().catch(() => null);
    if (!content) throw new Error(`The server failed (status ${response.status}).`);
    if (!response.ok) throw new Error(content.error.message);
    return content;
  }

  async function readFile(file, multiple) {
    $("kept").textContent = "";
    const query = new URLSearchParams({ run: $("run").value, multiple });
    return { ...(await send(`api/predict?${query}`, file)), file };
  }

  async function read(canvas, multiple) {
    return readFile(await new Promise((done) => canvas.toBlob(done, "image/png")), multiple);
  }

  async function correct(label) {
    try {
      await send(`api/corrections?label=${label}`, verdict.answer.file);
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

  async function start() {
    const labels = Array.from({ length: 10 }, (_, label) => label);
    $("correction").querySelector(".tools").append(...labels.map(correction));
    const [health, runs] = await Promise.all(
      ["api/health", "api/runs"].map(async (address) => (await fetch(address)).json()),
    );
    $("correction").hidden = !health.collects;
    const names = runs.map((run) => run.name);
    if (!names.includes(health.run)) runs.unshift({ name: health.run });
    for (const run of runs) {
      const facts = [run.network, run.dataset].filter(Boolean);
      if (run.val_accuracy) facts.push(`${(100 * run.val_accuracy).toFixed(1)} %`);
      const text = facts.length ? `${run.name}: ${facts.join(", ")}` : run.name;
      $("run").add(new Option(text, run.name, false, run.name === health.run));
    }
  }

  start();
  return { MAX_SIDE, read, readFile };
})();
