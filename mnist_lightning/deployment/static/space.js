// The layers as planes in space that a pointer or the arrow keys rotate; an orthographic projection.
"use strict";

const space = (() => {
  const DISTANCE = 70; // between two layers
  const AREA = 14_000; // of each layer
  const START = { yaw: -0.95, pitch: 0.32 };

  const canvas = $("space");
  const context = canvas.getContext("2d");
  let { yaw, pitch } = START;
  let planes = []; // from the farthest to the nearest: {index, matrix}
  let dragged = null; // {x, y, yaw, pitch, moved}

  const isShown = () => !canvas.hidden;

  // Project a point of a plane at depth z, in the units of the space.
  function project(u, v, z) {
    const depth = z * Math.cos(yaw) - u * Math.sin(yaw);
    return [u * Math.cos(yaw) + z * Math.sin(yaw), v * Math.cos(pitch) - depth * Math.sin(pitch)];
  }

  function draw() {
    if (!isShown() || !inside.current) return;
    const ratio = devicePixelRatio;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * ratio));
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const { views } = inside;
    const middle = (views.length - 1) / 2;
    const zoom = Math.min(width / (views.length * DISTANCE), height / 320);
    context.resetTransform();
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    planes = views.map(({ canvas: image }, index) => {
      const size = Math.sqrt(AREA / (image.width * image.height));
      const z = (middle - index) * DISTANCE;
      const at = (x, y) => project((x - image.width / 2) * size, (y - image.height / 2) * size, z)
        .map((place, axis) => place * zoom + (axis ? height : width) / 2);
      const [origin, right, down] = [at(0, 0), at(1, 0), at(0, 1)];
      const matrix = new DOMMatrix([right[0] - origin[0], right[1] - origin[1], down[0] - origin[0], down[1] - origin[1], ...origin]);
      return { index, image, matrix, at, depth: z * Math.cos(yaw) };
    });
    planes.sort((a, b) => a.depth - b.depth);
    const style = getComputedStyle(canvas);
    for (const { image, matrix } of planes) {
      context.setTransform(matrix);
      context.drawImage(image, 0, 0);
    }
    context.resetTransform();
    context.lineWidth = ratio;
    context.strokeStyle = style.borderColor;
    for (const plane of planes) outline(plane, 0, 0, plane.image.width, plane.image.height);
    drawSelection(style.color);
  }

  function outline({ at }, left, top, right, bottom) {
    context.beginPath();
    [[left, top], [right, top], [right, bottom], [left, bottom]].forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](...at(x, y)));
    context.closePath();
    context.stroke();
  }

  // Outline the selected unit and its receptive field, and connect them.
  function drawSelection(color) {
    const { selected } = inside;
    if (!selected) return;
    const plane = planes.find(({ index }) => index === selected.layer);
    const image = planes.find(({ index }) => index === 0);
    const [top, left, bottom, right] = inside.field();
    const place = activationImage.placeOf(inside.shapeOf(selected.layer), selected.unit);
    const [x, y] = [place.left * plane.image.width, place.top * plane.image.height];
    const [x2, y2] = [x + place.width * plane.image.width, y + place.height * plane.image.height];
    context.strokeStyle = color;
    outline(plane, x, y, x2, y2);
    outline(image, left, top, right, bottom);
    context.globalAlpha = 0.5;
    for (const [from, to] of [[[left, top], [x, y]], [[right, top], [x2, y]], [[right, bottom], [x2, y2]], [[left, bottom], [x, y2]]]) {
      context.beginPath();
      context.moveTo(...image.at(...from));
      context.lineTo(...plane.at(...to));
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  // The layer and unit at a point of the page.
  function unitAt({ clientX, clientY }) {
    const box = canvas.getBoundingClientRect();
    const point = new DOMPoint((clientX - box.left) * devicePixelRatio, (clientY - box.top) * devicePixelRatio);
    for (const { index, matrix } of [...planes].reverse()) {
      const { x, y } = matrix.inverse().transformPoint(point);
      const unit = activationImage.unitAt(inside.shapeOf(index), x, y);
      if (unit) return [index, unit];
    }
    return [0, null];
  }

  function rotate(newYaw, newPitch) {
    yaw = newYaw;
    pitch = Math.min(Math.max(newPitch, -1.4), 1.4);
    draw();
  }

  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    dragged = { x: event.clientX, y: event.clientY, yaw, pitch, moved: false };
  };
  canvas.onpointermove = (event) => {
    if (!dragged) return;
    const [x, y] = [event.clientX - dragged.x, event.clientY - dragged.y];
    dragged.moved ||= Math.hypot(x, y) > 4;
    if (dragged.moved) rotate(dragged.yaw + x / 150, dragged.pitch + y / 150);
  };
  canvas.onpointerup = (event) => {
    if (dragged && !dragged.moved) {
      inside.pin();
      inside.select(...unitAt(event));
    }
    dragged = null;
  };
  canvas.onpointercancel = () => (dragged = null);
  canvas.onkeydown = (event) => {
    const turns = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (event.key === "Home") rotate(START.yaw, START.pitch);
    else if (event.key in turns) rotate(yaw + turns[event.key][0], pitch + turns[event.key][1]);
    else return;
    event.preventDefault();
  };
  new ResizeObserver(draw).observe(canvas);

  // Show the layers flat, or in space.
  function show(isSolid) {
    canvas.hidden = !isSolid;
    $("layers").hidden = isSolid;
    $("panes").classList.toggle("solid", isSolid);
    $("view-flat").setAttribute("aria-pressed", !isSolid);
    $("view-solid").setAttribute("aria-pressed", isSolid);
    draw();
  }
  $("view-flat").onclick = () => show(false);
  $("view-solid").onclick = () => show(true);

  return { draw };
})();
