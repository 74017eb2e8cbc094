// The page: a sheet of strokes or a photo, sent as a PNG after each change; what comes back is shown.
"use strict";

const PEN = 26; // pixels of the sheet's 420: what MNIST's strokes measure in it
const STEP = 14; // of the pen that the arrow keys move
const SENT_SIDE = 280; // a drawing is reduced to this before it is sent: ten times MNIST's
const MOST_SIDE = 1600; // and a photo to this

const $ = (id) => document.getElementById(id);
const paper = $("paper");
const pen = paper.getContext("2d");

let strokes = []; // each a list of points [x, y]
let photo = null; // an ImageBitmap in place of strokes
let place = { x: 0, y: 0, scale: 1 }; // where the photo lies on the sheet
let cursor = null; // the keyboard's pen: {x, y, down}
let answer = null;
let chosen = 0; // which of the answer's digits is looked at
let changes = 0; // counts what was drawn, so that the newest is asked in the end
let sheet = 0; // counts the sheets, so that an answer about another one is not shown
let sent = null; // what the answer is about, for a correction
let asking = false;

function line(points, context) {
  context.beginPath();
  context.moveTo(...points[0]);
  if (points.length === 1) context.lineTo(points[0][0] + 0.01, points[0][1]);
  for (let i = 1; i < points.length; i++) {
    const [x, y] = points[i - 1];
    context.quadraticCurveTo(x, y, (x + points[i][0]) / 2, (y + points[i][1]) / 2);
  }
  context.lineTo(...points[points.length - 1]);
  context.stroke();
}

function drawInk(context) {
  context.fillStyle = "#fff";
  context.fillRect(0, 0, paper.width, paper.height);
  context.strokeStyle = "#111";
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  for (const points of strokes) line(points, context);
}

function draw() {
  drawInk(pen);
  if (photo) {
    pen.drawImage(photo, place.x, place.y, photo.width * place.scale, photo.height * place.scale);
  }
  const empty = !strokes.length && !photo;
  if (!empty && answer && answer.digits.length > 1) answer.digits.forEach(drawBox);
  if (cursor && document.activeElement === paper) drawCursor();
  $("invitation").style.display = empty && !answer ? "" : "none";
  $("undo").disabled = !strokes.length;
  $("clear").disabled = empty && !answer;
}

function drawBox(digit, index) {
  const scale = (photo ? place.scale * photo.width : paper.width) / answer.width;
  const [left, top, right, bottom] = digit.box.map((value) => value * scale);
  pen.lineWidth = index === chosen ? 4 : 2;
  pen.strokeStyle = index === chosen ? "#2a6f4e" : "#7a7a72";
  pen.strokeRect(place.x + left - 4, place.y + top - 4, right - left + 8, bottom - top + 8);
}

function drawCursor() {
  pen.lineWidth = 2;
  pen.strokeStyle = cursor.down ? "#2a6f4e" : "#7a7a72";
  pen.beginPath();
  pen.arc(cursor.x, cursor.y, PEN / 2 + 3, 0, 2 * Math.PI);
  pen.stroke();
}

function changed() {
  changes += 1;
  $("kept").textContent = "";
  draw();
  if (!strokes.length && !photo) return showNothing();
  if (!asking) ask();
}

function pictureBlob() {
  const sheet = document.createElement("canvas");
  const context = sheet.getContext("2d");
  if (photo) {
    const scale = Math.min(1, MOST_SIDE / Math.max(photo.width, photo.height));
    sheet.width = Math.max(1, Math.round(photo.width * scale));
    sheet.height = Math.max(1, Math.round(photo.height * scale));
    context.drawImage(photo, 0, 0, sheet.width, sheet.height);
  } else {
    sheet.width = sheet.height = SENT_SIDE;
    context.scale(SENT_SIDE / paper.width, SENT_SIDE / paper.height);
    drawInk(context);
  }
  return new Promise((done) => sheet.toBlob(done, "image/png"));
}

async function send(address, body) {
  const response = await fetch(address, { method: "POST", body });
  const content = await response.json().catch(() => null);
  if (!content) throw new Error(`The server failed (status ${response.status}).`);
  if (!response.ok) throw new Error(content.error.message);
  return content;
}

// One question at a time: while it is out, changes gather, and the newest is asked next.
async function ask() {
  asking = true;
  try {
    let asked;
    do {
      asked = changes;
      if (!strokes.length && !photo) break;
      const about = sheet;
      const blob = await pictureBlob();
      const query = new URLSearchParams({ run: $("run").value, multiple: $("multiple").value });
      try {
        const found = await send(`api/predict?${query}`, blob);
        if (about === sheet) show(found, blob);
      } catch (error) {
        if (about === sheet) showProblem(error);
      }
    } while (asked !== changes);
  } finally {
    asking = false;
  }
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function show(found, blob) {
  answer = found;
  sent = blob;
  chosen = Math.min(chosen, found.digits.length - 1);
  const verdict = $("verdict");
  verdict.className = "";
  verdict.replaceChildren();
  const strong = document.createElement("strong");
  strong.textContent = found.digits.map((digit) => digit.label).join(" ");
  const least = Math.min(...found.digits.map((digit) => digit.confidence));
  const sure = found.digits.length === 1 ? percent(least) : `each at least ${percent(least)}`;
  verdict.append(strong, found.digits.some((digit) => digit.unsure) ? `unsure, ${sure}` : sure);
  const chips = found.digits.length > 1 ? found.digits.map(chip) : [];
  $("digits").replaceChildren(...chips);
  showDigit();
  draw();
}

function chip(digit, index) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = digit.label;
  button.setAttribute("aria-label", `digit ${index + 1}: ${digit.label}, ${percent(digit.confidence)}`);
  button.onclick = () => {
    chosen = index;
    showDigit();
    draw();
  };
  return button;
}

function showDigit() {
  const digit = answer.digits[chosen];
  [...$("digits").children].forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
  $("details").hidden = false;
  $("input").src = digit.input;
  $("bars").tBodies[0].replaceChildren(
    ...digit.probabilities.map((probability, label) => bar(probability, label, digit.label)),
  );
  const notes = [`${digit.ink} ink`, `read in ${answer.milliseconds.toFixed(0)} ms`];
  if (digit.wide) notes.push("wide: perhaps several digits that touch");
  $("notes").textContent = notes.join(" · ");
  $("correction").hidden = !collects || answer.digits.length > 1;
}

function bar(probability, label, first) {
  const row = document.createElement("tr");
  row.className = label === first ? "first" : "";
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = label;
  const meter = document.createElement("meter");
  meter.value = probability;
  meter.setAttribute("aria-label", `${label}: ${percent(probability)}`);
  const middle = document.createElement("td");
  middle.append(meter);
  const end = document.createElement("td");
  end.textContent = percent(probability);
  row.append(head, middle, end);
  return row;
}

function showNothing() {
  $("verdict").className = "";
  $("verdict").textContent = "Nothing is drawn yet.";
  hideDetails();
}

function showProblem(error) {
  $("verdict").className = "problem";
  $("verdict").textContent = error instanceof TypeError ? "The server does not answer." : error.message;
  answer = null;
  hideDetails();
  draw();
}

function hideDetails() {
  $("details").hidden = $("correction").hidden = true;
  $("digits").replaceChildren();
  $("notes").textContent = "";
}

function clear() {
  if (cursor) cursor.down = false;
  strokes = [];
  photo = answer = null;
  sheet += 1;
  place = { x: 0, y: 0, scale: 1 };
  chosen = 0;
  changed();
}

function undo() {
  if (cursor) cursor.down = false;
  strokes.pop();
  if (!strokes.length) return clear();
  changed();
}

function pointOf(event) {
  const box = paper.getBoundingClientRect();
  const scale = paper.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

let drawing = null; // the stroke of the pointer that is down

paper.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || drawing) return;
  if (photo) clear();
  paper.setPointerCapture(event.pointerId);
  cursor = null;
  drawing = { id: event.pointerId, points: [pointOf(event)] };
  strokes.push(drawing.points);
  changed();
});
paper.addEventListener("pointermove", (event) => {
  if (!drawing || drawing.id !== event.pointerId) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const each of events.length ? events : [event]) drawing.points.push(pointOf(each));
  changed();
});
for (const name of ["pointerup", "pointercancel"]) {
  paper.addEventListener(name, (event) => {
    if (drawing && drawing.id === event.pointerId) drawing = null;
  });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

paper.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    event.preventDefault();
    return clear();
  }
  if (!(event.key in ARROWS) && event.key !== " ") return;
  event.preventDefault();
  if (photo) clear();
  cursor ??= { x: paper.width / 2, y: paper.height / 4, down: false };
  if (event.key === " ") {
    cursor.down = !cursor.down;
    $("pen").textContent = cursor.down ? "pen down" : "pen lifted";
    if (cursor.down) strokes.push([[cursor.x, cursor.y]]);
  } else {
    const [x, y] = ARROWS[event.key];
    cursor.x = Math.min(Math.max(cursor.x + STEP * x, PEN), paper.width - PEN);
    cursor.y = Math.min(Math.max(cursor.y + STEP * y, PEN), paper.height - PEN);
    if (cursor.down) strokes[strokes.length - 1].push([cursor.x, cursor.y]);
  }
  if (cursor.down) changed();
  else draw();
});
paper.addEventListener("blur", draw);

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && strokes.length) {
    event.preventDefault();
    undo();
  }
});

async function take(file) {
  if (!file) return;
  clear();
  try {
    photo = await createImageBitmap(file);
  } catch {
    // What the browser cannot show the server may read, or say what is wrong with it.
    return askFile(file);
  }
  const scale = Math.min(paper.width / photo.width, paper.height / photo.height);
  place = {
    x: (paper.width - photo.width * scale) / 2,
    y: (paper.height - photo.height * scale) / 2,
    scale,
  };
  changed();
}

async function askFile(file) {
  const about = sheet;
  const query = new URLSearchParams({ run: $("run").value, multiple: $("multiple").value });
  try {
    const found = await send(`api/predict?${query}`, file);
    if (about === sheet) show(found, file);
  } catch (error) {
    if (about === sheet) showProblem(error);
  }
}

$("undo").onclick = undo;
$("clear").onclick = clear;
$("upload").onclick = () => $("file").click();
$("file").onchange = () => {
  take($("file").files[0]);
  $("file").value = "";
};
$("run").onchange = $("multiple").onchange = () => {
  if (strokes.length || photo) changed();
};
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
  if (file) take(file);
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("sheet").classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("sheet").classList.remove("over");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
}

let collects = false;

async function correct(label) {
  try {
    await send(`api/corrections?label=${label}`, sent);
    $("kept").textContent = `Kept as a ${label}, to learn from.`;
  } catch (error) {
    $("kept").textContent = error.message;
  }
}

async function begin() {
  for (let label = 0; label < 10; label++) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.onclick = () => correct(label);
    $("correction").querySelector(".tools").append(button);
  }
  const [health, runs] = await Promise.all(
    ["api/health", "api/runs"].map(async (address) => (await fetch(address)).json()),
  );
  collects = health.collects;
  const names = runs.map((run) => run.name);
  if (!names.includes(health.run)) runs.unshift({ name: health.run });
  for (const run of runs) {
    const facts = [run.network, run.dataset].filter(Boolean);
    if (run.val_accuracy) facts.push(percent(run.val_accuracy));
    const text = facts.length ? `${run.name}: ${facts.join(", ")}` : run.name;
    $("run").add(new Option(text, run.name, false, run.name === health.run));
  }
}

draw();
begin();
