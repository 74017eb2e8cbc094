// Follows a run: asks the server every second for what is new, and shows it.
"use strict";

const $ = (id) => document.getElementById(id);

const SECOND = 1000;
const RETRY = 2 * SECOND; // after a failed request
const PAUSE = 5 * SECOND; // between two requests, while nothing happens
const TIMEOUT = 20 * SECOND;
const MAX_STEPS = 3000; // losses of single steps in memory; of more, every second one is removed
const TABLE_ROWS = 5;
const page = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const requested = new URLSearchParams(location.search).get("run");

let known = nothing();
let answer = null; // the last response
let answeredAt = null; // its time
let live = true; // whether the last snapshot is shown
let described = 0; // the last epoch in the summary

function nothing() {
  return { lastEpoch: 0, lastSnapshot: -1, epochs: new Map(), steps: [], snapshots: new Map(), damaged: new Set() };
}

class FailedError extends Error {} // the server has answered that it failed
class RefusedError extends FailedError {} // the request is invalid

async function request() {
  // The last epoch is requested again: its validation may have been missing.
  const after = Math.max(0, known.lastEpoch - 1);
  const query = new URLSearchParams({ after, snapshots_after: known.lastSnapshot, page });
  if (requested !== null) query.set("run", requested);
  const response = await fetch(`api/watch?${query}`, { signal: AbortSignal.timeout(TIMEOUT) });
  const content = await response.json();
  const Problem = response.status >= 500 ? FailedError : RefusedError;
  if (!response.ok) throw new Problem(content.error.message);
  return content;
}

// Whether a response is not the continuation of the earlier ones: another run, or a run that was resumed earlier.
function isOther(next) {
  if (!answer) return false;
  const restarted = answer.started !== null && next.started !== answer.started;
  const isEarlier = next.last_epoch < known.lastEpoch || next.last_snapshot < known.lastSnapshot;
  return next.run !== answer.run || restarted || isEarlier;
}

async function poll() {
  let next;
  try {
    next = await request();
  } catch (error) {
    showFailure(error);
    // A refused request would be refused again.
    if (!(error instanceof RefusedError)) setTimeout(poll, RETRY);
    return;
  }
  if (isOther(next)) {
    known = nothing();
    answer = null;
    live = true;
    described = 0;
    setText($("summary"), "No epoch is complete yet.");
    setTimeout(poll, 0);
    return;
  }
  answer = next;
  answeredAt = new Date();
  const seen = known.epochs.has(next.last_epoch);
  merge(next);
  showState();
  showCurves();
  describe(seen);
  showSlider();
  if (isFollowed()) setTimeout(poll, next.follow ? SECOND : PAUSE);
}

function merge(next) {
  for (const epoch of next.epochs) known.epochs.set(epoch.epoch, epoch);
  if (next.step_losses.length) {
    const from = next.step_losses[0][0];
    known.steps = known.steps.filter(([step]) => step < from).concat(next.step_losses);
    if (known.steps.length > MAX_STEPS) known.steps = known.steps.filter((_, index) => index % 2 === 0);
  }
  for (const snapshot of next.snapshots) known.snapshots.set(snapshot.epoch, snapshot);
  for (const epoch of next.damaged) known.damaged.add(epoch);
  known.lastEpoch = next.last_epoch;
  known.lastSnapshot = next.last_snapshot;
}

// A run that was interrupted may be resumed, while `serve` goes on.
const isFollowed = () => answer.follow || (answer.can_draw && answer.state !== "finished");

const byEpoch = (values) => [...values].sort((a, b) => a.epoch - b.epoch);
const time = (date) => date.toLocaleTimeString("en-GB");

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text; // a live region announces each change
}

const STATES = {
  starting: "Starting",
  running: "Running",
  finished: "Finished",
  interrupted: "Interrupted",
  failed: "Failed",
  unknown: "No state",
};

function showState() {
  document.body.classList.remove("stale");
  document.body.dataset.state = answer.state;
  setText($("state"), STATES[answer.state]);
  $("run").textContent = [answer.run, answer.network, answer.dataset].filter(Boolean).join(" · ");
  document.title = `${STATES[answer.state]}: ${answer.run}`;
  $("position").textContent = position();
  $("updated").textContent = isFollowed()
    ? `Updated ${time(answeredAt)}.`
    : `Updated ${time(answeredAt)}; this page does not change any more.`;
  $("draw").hidden = !answer.can_draw;
  $("problem").hidden = !answer.problem;
  setText($("problem"), answer.problem ? `The curves cannot be read: ${answer.problem}.` : "");
  const damaged = [...known.damaged].sort((a, b) => a - b);
  $("damaged").hidden = !damaged.length;
  $("damaged").textContent = `Damaged snapshots, not shown: ${damaged.slice(0, 10).join(", ")}${damaged.length > 10 ? ", …" : ""}`;
}

function position() {
  const { state, done, max_epochs: total, step } = answer;
  const of = total === null ? "" : ` of ${total.toLocaleString("en")}`;
  const steps = `${step.toLocaleString("en")} steps logged`;
  if (state === "starting") return "the first epoch has not begun.";
  if (state === "unknown") return "this run has not begun, or has no summary.";
  if (state !== "running" && done === 0) return "before the end of the first epoch.";
  if (state === "interrupted") {
    const name = answer.run.replace(/^version_/, "");
    return `after epoch ${done.toLocaleString("en")}${of}; to continue it: python -m mnist_lightning resume ${name}.`;
  }
  const test = answer.test_accuracy === null ? "" : `; test accuracy ${accuracy(answer.test_accuracy)}`;
  if (state !== "running") return `after epoch ${done.toLocaleString("en")}${of}${test}.`;
  if (total !== null && done >= total) return "the last epoch is complete; the network is tested.";
  return `epoch ${(done + 1).toLocaleString("en")}${of}, ${steps}.`;
}

function showFailure(error) {
  document.body.classList.add("stale");
  const answered = error instanceof FailedError;
  const since = answeredAt ? `since ${time(answeredAt)}: the values below are from then` : "yet";
  const silence = `The server has not responded ${since}. It may have ended; this page tries again.`;
  setText($("state"), answered ? "Not shown" : "Not connected");
  setText($("problem"), answered ? `${error.message}.` : silence);
  $("problem").hidden = false;
  $("updated").textContent = "";
}

function showCurves() {
  charts.show(byEpoch(known.epochs.values()), known.steps, answer.step);
  const rows = byEpoch(known.epochs.values()).slice(-TABLE_ROWS).reverse();
  $("last").tBodies[0].replaceChildren(...rows.map(tableRow));
}

const loss = (value) => (value === null ? "–" : value.toFixed(4));
const accuracy = (value) => (value === null ? "–" : `${(100 * value).toFixed(2)} %`);

function tableRow(metrics) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = metrics.epoch;
  const values = [
    loss(metrics.train_loss), accuracy(metrics.train_accuracy), loss(metrics.val_loss), accuracy(metrics.val_accuracy),
  ];
  row.append(head, ...values.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return row;
}

// Describe the last epoch in the live region, once: with its validation, or if no validation has followed.
function describe(seen) {
  const last = known.epochs.get(known.lastEpoch);
  if (!last && answer.done > 0) setText($("summary"), "The metrics of this run are not in its metrics.csv.");
  if (!last || last.epoch === described) return;
  const isValidated = last.val_loss !== null;
  if (!isValidated && !seen && answer.follow) return;
  described = last.epoch;
  const parts = [`training loss ${loss(last.train_loss)}, accuracy ${accuracy(last.train_accuracy)}`];
  if (isValidated) parts.push(`validation loss ${loss(last.val_loss)}, accuracy ${accuracy(last.val_accuracy)}`);
  setText($("summary"), `Epoch ${last.epoch}: ${parts.join("; ")}.`);
}

// The snapshots, in order; the slider selects one by its index.
const snapshots = () => byEpoch(known.snapshots.values());

function showSlider() {
  const all = snapshots();
  $("network").hidden = !all.length;
  $("no-network").hidden = all.length > 0 || answer.done === 0;
  $("curves").hidden = !all.length && !known.epochs.size && answer.done > 0;
  if (!all.length) return;
  const slider = $("epoch");
  slider.max = all.length - 1;
  if (live) slider.value = slider.max;
  showSnapshot(all);
}

let shown = null;

function showSnapshot(all) {
  const slider = $("epoch");
  const snapshot = all[Math.min(slider.valueAsNumber, all.length - 1)];
  const moment = snapshot.epoch === 0 ? "before the training" : `after epoch ${snapshot.epoch}`;
  slider.setAttribute("aria-valuetext", moment);
  $("moment").textContent = moment;
  $("live").setAttribute("aria-pressed", live);
  $("live").textContent = answer.follow ? "Live" : "Last";
  if (snapshot === shown) return;
  shown = snapshot;
  snapshotView.show(snapshot);
}

$("epoch").oninput = () => {
  live = $("epoch").value === $("epoch").max;
  showSnapshot(snapshots());
};
$("live").onclick = () => {
  live = true;
  showSlider();
};
new ResizeObserver(() => {
  if (answer) showCurves();
}).observe($("charts"));

poll();
