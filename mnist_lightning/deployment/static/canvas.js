// The sheet: strokes or a photo, sent to the backend after each change.
"use strict";

const PEN = 26; // pixels of the sheet's 420: the width of MNIST's strokes at this scale
const STEP = 14; // pixels that an arrow key moves the pen
const DRAWING_SIDE = 140; // a drawing is reduced to this size before it is read: five times MNIST's

const paper = $("paper");
const pen = paper.getContext("2d");

let strokes = []; // each a list of points [x, y]
let photo = null; // an ImageBitmap instead of strokes
let place = { x: 0, y: 0, scale: 1 }; // the position of the photo on the sheet
let cursor = null; // the pen of the keyboard: {x, y, down}
let changes = 0; // counts the changes, so that the last state is read in the end
let sheet = 0; // counts the sheets, so that a response for an earlier sheet is not shown
let busy = false; // whether a request is running

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

function drawInk(context, drawn) {
  context.fillStyle = "#fff";
  context.fillRect(0, 0, paper.width, paper.height);
  context.strokeStyle = "#111";
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  for (const points of drawn) line(points, context);
}

function draw() {
  drawInk(pen, strokes);
  if (photo) {
    pen.drawImage(photo, place.x, place.y, photo.width * place.scale, photo.height * place.scale);
  }
  const empty = !strokes.length && !photo;
  const { answer } = verdict;
  if (!empty && answer && answer.digits.length > 1) answer.digits.forEach(drawBox);
  if (!empty && answer) drawExplanation(answer.digits[verdict.chosen]);
  if (cursor && document.activeElement === paper) drawCursor();
  $("invitation").style.display = empty && !answer ? "" : "none";
  $("undo").disabled = !strokes.length;
  $("clear").disabled = empty && !answer;
}

function drawBox(digit, index) {
  const scale = (photo ? place.scale * photo.width : paper.width) / verdict.answer.width;
  const [left, top, right, bottom] = digit.box.map((value) => value * scale);
  const chosen = index === verdict.chosen;
  pen.lineWidth = chosen ? 4 : 2;
  pen.strokeStyle = chosen ? "#2a6f4e" : "#7a7a72";
  pen.strokeRect(place.x + left - 4, place.y + top - 4, right - left + 8, bottom - top + 8);
}

// Return a function from 28x28 pixels of a digit to the sheet: the ink of both has the same extent.
function sheetOf(digit) {
  const extent = [28, 28, 0, 0]; // left, top, right, bottom
  digit.pixels.forEach((ink, i) => {
    if (!ink) return;
    const [x, y] = [i % 28, Math.floor(i / 28)];
    [extent[0], extent[1]] = [Math.min(extent[0], x), Math.min(extent[1], y)];
    [extent[2], extent[3]] = [Math.max(extent[2], x + 1), Math.max(extent[3], y + 1)];
  });
  const scale = (photo ? place.scale * photo.width : paper.width) / verdict.answer.width;
  const [left, top, right, bottom] = digit.box.map((value) => value * scale);
  return (x, y) => [
    place.x + left + ((x - extent[0]) * (right - left)) / (extent[2] - extent[0]),
    place.y + top + ((y - extent[1]) * (bottom - top)) / (extent[3] - extent[1]),
  ];
}

// Draw the parts of a digit that matter, and the receptive field of the selected unit.
function drawExplanation(digit) {
  if (!digit.pixels) return;
  const toSheet = sheetOf(digit);
  why.drawResult(pen, toSheet, (stroke) => {
    pen.lineWidth = PEN / 3;
    line(strokes[stroke], pen);
  });
  const field = inside.field();
  if (!field) return;
  const [top, left, bottom, right] = field;
  const [corner, end] = [toSheet(left, top), toSheet(right, bottom)];
  pen.lineWidth = 3;
  pen.strokeStyle = "#0b5cad";
  pen.strokeRect(...corner, end[0] - corner[0], end[1] - corner[1]);
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
  if (!strokes.length && !photo) verdict.showNothing();
  else verdict.expectChange();
  draw();
  if (!strokes.length && !photo) return;
  if (!busy) update();
}

function currentImage(drawn = strokes) {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (photo) {
    const scale = Math.min(1, backend.MAX_SIDE / Math.max(photo.width, photo.height));
    canvas.width = Math.max(1, Math.round(photo.width * scale));
    canvas.height = Math.max(1, Math.round(photo.height * scale));
    context.imageSmoothingQuality = "high";
    context.drawImage(photo, 0, 0, canvas.width, canvas.height);
  } else {
    canvas.width = canvas.height = DRAWING_SIDE;
    context.scale(DRAWING_SIDE / paper.width, DRAWING_SIDE / paper.height);
    drawInk(context, drawn);
  }
  return canvas;
}

// The pixels of a canvas: {width, height, data}.
function pixelsOf(canvas) {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  return { width, height, data };
}

// One request at a time: changes during a request are sent together in the next one.
async function update() {
  busy = true;
  try {
    let request = send();
    while (request) {
      const { state, response, sentSheet } = request;
      await response.catch(() => null);
      request = state === changes ? null : send(); // it is read while this response is shown
      await showResponse(response, sentSheet, () => state === changes);
    }
  } finally {
    busy = false;
  }
}

function send() {
  if (!strokes.length && !photo) return null;
  return { state: changes, sentSheet: sheet, response: backend.read(currentImage(), $("multiple").value, photo) };
}

// Show the response, if it belongs to the current sheet.
async function showResponse(response, sentSheet = sheet, isLatest = () => true) {
  try {
    const answer = await response;
    if (sentSheet === sheet) verdict.show(answer, isLatest());
  } catch (error) {
    if (sentSheet === sheet) verdict.showProblem(error);
  }
  if (sentSheet === sheet) draw();
}

function clear() {
  if (cursor) cursor.down = false;
  strokes = [];
  photo = null;
  sheet += 1;
  place = { x: 0, y: 0, scale: 1 };
  verdict.forget();
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

let drawing = null; // the stroke that the pointer is drawing

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
  for (const point of events.length ? events : [event]) drawing.points.push(pointOf(point));
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

async function openFile(file) {
  if (!file) return;
  clear();
  try {
    // Use the pixel values of the file, without its color profile.
    photo = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    const opened = changes;
    const response = backend.readFile(file, $("multiple").value);
    await response.catch(() => null);
    return opened === changes ? showResponse(response) : null; // unless one draws meanwhile
  }
  const scale = Math.min(paper.width / photo.width, paper.height / photo.height);
  place = {
    x: (paper.width - photo.width * scale) / 2,
    y: (paper.height - photo.height * scale) / 2,
    scale,
  };
  changed();
}

$("undo").onclick = undo;
$("clear").onclick = clear;
$("upload").onclick = () => $("file").click();
$("file").onchange = () => {
  openFile($("file").files[0]);
  $("file").value = "";
};
// Read again, after a choice has changed.
function readAgain() {
  if (strokes.length || photo) changed();
}

$("multiple").onchange = readAgain;
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((item) => item.type.startsWith("image/"));
  if (file) openFile(file);
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
    if (name === "drop") openFile(event.dataTransfer.files[0]);
  });
}
