// Teaching: lists the corrected digits, starts the fine-tuning, and shows its progress and its result.
"use strict";

(() => {
  const POLL_MILLISECONDS = 1000;
  const SIZE = 42; // pixels of the page for an image of 28x28

  const MAX_REPORTS = 5; // of completed epochs: a screen reader reads each

  let shown = null; // the state that the page shows
  let finished = null; // the last state with a result
  let count = 0; // of the corrected digits
  let isFollowing = false;

  const request = (method, address) => backend.request(address, { method });

  function element(name, text, options = {}) {
    const node = Object.assign(document.createElement(name), options);
    node.textContent = text;
    return node;
  }

  function image(source, label) {
    return Object.assign(new Image(SIZE, SIZE), { src: source, alt: `Drawing with label ${label}` });
  }

  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

  function say(text, isProblem = false) {
    // A live region is read out when its text changes.
    if ($("learned").textContent !== text) $("learned").textContent = text;
    $("learned").className = isProblem ? "problem" : "";
  }

  // The corrected digits.

  function showCorrections({ total, newest }) {
    count = total;
    $("corrected-title").textContent = total ? plural(total, "corrected digit") : "No corrected digits yet";
    $("corrected").replaceChildren(...newest.map((each, place) => correction(each, place + 1)));
    $("learn").disabled = !total || shown?.state === "running";
  }

  function correction({ kept, label, image: source }, number) {
    const item = document.createElement("li");
    const remove = element("button", "✕", { type: "button", title: "Remove" });
    remove.setAttribute("aria-label", `Remove drawing ${number}, label ${label}`);
    remove.onclick = async () => {
      $("kept").textContent = "";
      const place = [...$("corrected").children].indexOf(item);
      await attempt(async () => showCorrections(await request("DELETE", `api/corrections?kept=${kept}`)));
      const rest = $("corrected").children;
      (rest[Math.min(place, rest.length - 1)]?.querySelector("button") ?? $("paper")).focus();
    };
    item.append(image(source, label), String(label), remove);
    return item;
  }

  async function attempt(action) {
    try {
      await action();
    } catch (error) {
      say(error.message, true);
    }
  }

  // Learning.

  const STAGES = {
    starting: ({ base }) => `Starting to fine-tune a copy of ${base} …`,
    training: ({ base, epoch, epochs }) => `Learning (a copy of ${base}): ${epoch} of ${epochs} epochs completed.`,
    comparing: () => "Comparing both networks …",
  };

  function show(state) {
    const before = shown?.state;
    const focused = document.activeElement;
    shown = state;
    const running = state.state === "running";
    $("learn").disabled = running || !count;
    $("cancel").hidden = $("learning").hidden = !running;
    if (running) {
      showProgress(state);
      if (focused === $("learn")) $("cancel").focus();
    }
    if (state.state === "finished") finished = state;
    showNotes(state);
    $("comparison").hidden = running || !finished;
    if (state.state === "finished") showComparison(state);
    const rest = [state.message, finished && "The result below is the earlier one."].filter(Boolean).join(" ");
    if (state.state === "failed") say(`Learning failed: ${rest}`, true);
    if (state.state === "cancelled") say(`Cancelled. ${rest}`.trim());
    if (before === "running" && !running && focused === $("cancel")) {
      (state.state === "finished" ? $("use-after") : $("learn")).focus();
    }
  }

  function showProgress(state) {
    const { stage, epoch, epochs } = state;
    if (stage === "training") $("learning").value = epoch / epochs;
    else if (stage === "comparing") $("learning").value = 1;
    else $("learning").removeAttribute("value"); // the duration is not known
    const isReported = stage !== "training" || epoch % Math.ceil(epochs / MAX_REPORTS) === 0;
    if (isReported || $("learned").className || !$("learned").textContent) say(STAGES[stage](state));
  }

  function showNotes({ notes, comparison }) {
    const known = "The earlier network may have been trained on the held-out images: its figure is too high.";
    const isKnown = comparison && !comparison.held_out.are_new;
    $("learn-notes").replaceChildren(...[...notes, ...(isKnown ? [known] : [])].map((note) => element("li", note)));
  }

  // Show the state until nothing is learned any more; if the server does not respond, try again.
  async function follow() {
    if (isFollowing) return;
    isFollowing = true;
    do {
      await attempt(async () => show(await request("GET", "api/learn")));
      await new Promise((done) => setTimeout(done, POLL_MILLISECONDS));
    } while (shown === null || shown.state === "running");
    isFollowing = false;
    if (shown.state === "finished") addRun();
  }

  async function learn() {
    const address = `api/learn?${new URLSearchParams({ run: $("run").value })}`;
    // If another page has started it, the request fails: show the state then, too.
    await attempt(async () => show(await request("POST", address)));
    if (shown?.state !== "running") {
      const state = await request("GET", "api/learn").catch(() => null);
      if (state?.state === "running") show(state);
    }
    if (shown?.state === "running") await follow();
  }

  // The result.

  function showComparison({ comparison, base, run }) {
    const { own, held_out: heldOut, summary } = comparison;
    say(summary);
    $("use-after").textContent = `Use the new network (${run})`;
    $("use-before").textContent = `Use the earlier network (${base})`;
    const hidden = own.total - own.shown.length;
    $("own").caption.textContent = `Your corrected digits${hidden ? `, without ${hidden.toLocaleString("en")} more` : ""}`;
    $("own").tBodies[0].replaceChildren(...own.shown.map(ownRow));
    $("held-out").caption.textContent = `Held-out images (${heldOut.dataset})`;
    const share = (count) => `${((100 * count) / heldOut.total).toFixed(2)} %`;
    $("held-out").tBodies[0].replaceChildren(
      countRow("images", heldOut.total.toLocaleString("en")),
      countRow("correct before", `${heldOut.before.toLocaleString("en")} (${share(heldOut.before)})`),
      countRow("correct after", `${heldOut.after.toLocaleString("en")} (${share(heldOut.after)})`),
      countRow("correct only before: forgotten", heldOut.forgotten.toLocaleString("en")),
      countRow("correct only after: learned", heldOut.learned.toLocaleString("en")),
      countRow("“probably not a digit” before, after", `${heldOut.rejected_before}, ${heldOut.rejected_after}`),
    );
    showUsed();
  }

  function ownRow({ label, before, after, image: source }) {
    const row = document.createElement("tr");
    const picture = document.createElement("td");
    picture.append(image(source, label));
    const readings = [before, after].map((read) => {
      const mark = read === label ? "✓" : "✗";
      return element("td", `${read < 0 ? "not a digit" : read} ${mark}`, { className: read === label ? "right" : "wrong" });
    });
    row.append(picture, element("td", label), ...readings);
    return row;
  }

  function countRow(name, value) {
    const row = document.createElement("tr");
    row.append(element("th", name, { scope: "row" }), element("td", value));
    return row;
  }

  function addRun() {
    const { run: name, base } = finished;
    if ([...$("run").options].some((option) => option.value === name)) return;
    backend.addRun({ name, watchable: true }, `${name}: ${base}, fine-tuned`);
  }

  function use(name) {
    addRun();
    $("run").value = name;
    $("compare").value = name === finished.run ? finished.base : finished.run;
    for (const id of ["run", "compare"]) $(id).dispatchEvent(new Event("change"));
    showUsed();
  }

  function showUsed() {
    const used = $("run").value;
    $("use-after").setAttribute("aria-pressed", used === finished.run);
    $("use-before").setAttribute("aria-pressed", used === finished.base);
  }

  $("learn").onclick = learn;
  $("cancel").onclick = () => attempt(async () => show(await request("POST", "api/learn/cancel")));
  $("use-after").onclick = () => use(finished.run);
  $("use-before").onclick = () => use(finished.base);
  $("run").addEventListener("change", () => finished && showUsed());
  const list = () => attempt(async () => showCorrections(await request("GET", "api/corrections")));
  document.addEventListener("corrected", list);
  list().then(follow);
})();
