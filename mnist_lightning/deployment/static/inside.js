// Inside the network: the values of every layer for the digit that is shown, and one unit in detail.
"use strict";

const inside = (() => {
  let reader = null; // the network whose layers are shown
  let found = []; // its layers
  let views = []; // for each layer {canvas, mark, part}
  let current = null; // the values of every step for the digit that is shown
  let digit = null;
  let selected = null; // {layer, unit}
  let pinned = false; // whether the pointer leaves the selection unchanged

  const isOpen = () => $("inside").open;
  const shapeOf = (layer) => current[found[layer].value].shape;

  // Show the layers of another network; without a reader, the reason.
  function use(newReader, reason = "") {
    reader = newReader;
    found = reader ? layers.find(reader.network) : [];
    [current, digit, selected, pinned] = [null, null, null, false];
    views = found.map(makeView);
    $("layers").replaceChildren(...views.map(({ figure }) => figure));
    $("inside-note").textContent = reason;
    $("view").hidden = !reader;
    unitPanel.show(null);
  }

  function makeView(layer, index) {
    const labels = document.createElement("div");
    labels.className = "labels";
    const figure = document.createElement("figure");
    const frame = document.createElement("div");
    frame.className = "frame";
    const canvas = document.createElement("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-roledescription", "layer");
    const [mark, part] = ["mark", "mark part"].map((name) => {
      const element = document.createElement("div");
      element.className = name;
      element.hidden = true;
      return element;
    });
    frame.append(canvas, mark, part);
    const caption = document.createElement("figcaption");
    figure.append(caption, frame);
    if (index === found.length - 1) figure.append(labels);
    canvas.onpointermove = (event) => {
      if (!pinned) select(index, unitUnder(event, index));
    };
    canvas.onclick = (event) => {
      const unit = unitUnder(event, index);
      pinned = unit !== null;
      select(index, unit);
    };
    canvas.onkeydown = (event) => move(event, index);
    canvas.onfocus = () => {
      if (current && selected?.layer !== index) {
        pinned = true;
        select(index, layers.unitAt(shapeOf(index), strongest(index)));
      }
    };
    return { figure, canvas, caption, mark, part, labels };
  }

  function strongest(index) {
    const { data } = current[found[index].value];
    return data.indexOf(arrays.max(data));
  }

  // Show the values for a digit; null: for none.
  function showDigit(newDigit) {
    digit = newDigit;
    if (!reader || !isOpen()) return;
    $("inside").classList.toggle("empty", !digit);
    if (!digit) {
      [current, selected, pinned] = [null, null, false];
      return showUnit();
    }
    current = reader.valuesOf(digit);
    found.forEach(paint);
    space.draw();
    showUnit();
  }

  function paint(layer, index) {
    const { canvas, caption, labels } = views[index];
    const value = current[layer.value];
    const isInput = index === 0;
    const former = canvas.width;
    if (isInput) activationImage.paint(canvas, { shape: value.shape, data: digit.pixels }, "ink");
    else activationImage.paint(canvas, value);
    if (former === canvas.width && caption.textContent) return;
    const text = `${isInput ? "Input" : `${index}: ${layer.name}`}, ${layers.describeShape(value.shape)}`;
    caption.textContent = text;
    canvas.setAttribute("aria-label", `${text}. Arrow keys select a unit${value.shape.length > 1 ? ", Page Up and Page Down a map" : ""}.`);
    // Every layer covers about the same area.
    const scale = Math.sqrt(40_000 / (canvas.width * canvas.height));
    canvas.style.width = `${Math.round(canvas.width * Math.min(Math.max(scale, 0.5), 7))}px`;
    const [count, height] = value.shape;
    if (height !== undefined || count > 10) return;
    labels.style.width = canvas.style.width;
    labels.replaceChildren(...Array.from({ length: count }, (_, label) => {
      const element = document.createElement("span");
      element.textContent = label;
      return element;
    }));
  }

  function unitUnder(event, index) {
    if (!current) return null;
    const { canvas } = views[index];
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) * canvas.width) / box.width;
    const y = ((event.clientY - box.top) * canvas.height) / box.height;
    return activationImage.unitAt(shapeOf(index), x, y);
  }

  function move(event, index) {
    const steps = {
      ArrowLeft: [0, 0, -1], ArrowRight: [0, 0, 1], ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0],
      PageUp: [-1, 0, 0], PageDown: [1, 0, 0],
    };
    if (event.key === "Escape") {
      pinned = false;
      return select(index, null);
    }
    if (!current || !(event.key in steps)) return;
    event.preventDefault();
    const unit = selected?.layer === index ? selected.unit : layers.unitAt(shapeOf(index), 0);
    const [channels, height, width] = shapeOf(index);
    const [map, down, across] = steps[event.key];
    const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
    pinned = true;
    select(index, height === undefined
      ? { channel: within(unit.channel + map + down + across, channels) }
      : {
        channel: within(unit.channel + map, channels),
        row: within(unit.row + down, height),
        column: within(unit.column + across, width),
      });
  }

  function select(layer, unit) {
    if (!current) return;
    selected = unit && { layer, unit };
    showUnit();
    space.draw();
    draw(); // the rectangle on the sheet
  }

  // The rectangle of the image that influences the selected unit, in 28x28 pixels.
  function field() {
    if (!selected || !current) return null;
    return layers.field(reader.network, current, found[selected.layer].value, selected.unit);
  }

  function showUnit() {
    const rectangle = field();
    views.forEach(({ mark, part }, index) => {
      mark.hidden = selected?.layer !== index;
      part.hidden = index !== 0 || !rectangle;
      if (!mark.hidden) place(mark, activationImage.placeOf(shapeOf(index), selected.unit));
      if (!part.hidden) {
        const [top, left, bottom, right] = rectangle;
        place(part, activationImage.placeOf(shapeOf(0), { channel: 0, row: top, column: left }, bottom - top, right - left));
      }
    });
    unitPanel.show(selected && {
      network: reader.network,
      values: current,
      layer: found[selected.layer],
      index: selected.layer,
      unit: selected.unit,
    });
  }

  function place(element, fractions) {
    for (const [side, share] of Object.entries(fractions)) element.style[side] = `${100 * share}%`;
  }

  $("inside").ontoggle = () => digit && showDigit(digit);
  matchMedia("(prefers-color-scheme: dark)").onchange = () => {
    activationImage.forgetColors();
    if (digit) showDigit(digit);
  };

  verdict.follow(showDigit);

  return {
    use, select, field,
    pin: () => (pinned = true),
    get views() { return views; },
    get current() { return current; },
    get selected() { return selected; },
    shapeOf,
  };
})();
