// Why? Covers parts of the digit, one after the other, and shows how the probability changes.
"use strict";

const why = (() => {
  const SIDE = 28;
  const COVER = 6; // pixels of the square that is covered
  const STEP = 2; // pixels between two squares
  const MAX_STROKES = 12;
  const PAUSE = 250; // ms without a change before the computation starts

  let result = null; // {digit, heat, part, stroke}
  let run = 0; // counts the computations: only the last one continues
  let isOn = false;

  const percent = (share) => verdict.percent(share);
  const pause = (ms = 0) => new Promise((done) => setTimeout(done, ms));

  // The pixels without the ink of a square; null without ink there.
  function cover(pixels, top, left) {
    const covered = Uint8Array.from(pixels);
    let ink = 0;
    for (let y = Math.max(0, top); y < Math.min(SIDE, top + COVER); y++) {
      for (let x = Math.max(0, left); x < Math.min(SIDE, left + COVER); x++) {
        ink += covered[y * SIDE + x];
        covered[y * SIDE + x] = 0;
      }
    }
    return ink > 0 ? { covered, ink, top, left } : null;
  }

  // Read the digit with each part covered; return the parts, and the mean loss of each pixel.
  async function coverAll(reader, digit, isCurrent) {
    const parts = [];
    const [loss, count] = [new Float32Array(SIDE * SIDE), new Float32Array(SIDE * SIDE)];
    let start = performance.now();
    for (let top = -STEP; top < SIDE; top += STEP) {
      for (let left = -STEP; left < SIDE; left += STEP) {
        const part = cover(digit.pixels, top, left);
        if (!part) continue;
        const { label, probabilities } = reader.classify(part.covered);
        const drop = digit.probabilities[digit.label] - probabilities[digit.label];
        parts.push({ ...part, label, probabilities, drop });
        for (let y = Math.max(0, top); y < Math.min(SIDE, top + COVER); y++) {
          for (let x = Math.max(0, left); x < Math.min(SIDE, left + COVER); x++) {
            loss[y * SIDE + x] += drop;
            count[y * SIDE + x] += 1;
          }
        }
        if (performance.now() - start < 12) continue;
        await pause();
        if (!isCurrent()) return null;
        start = performance.now();
      }
    }
    return { parts, heat: loss.map((sum, i) => (count[i] ? sum / count[i] : 0)) };
  }

  const lengthOf = (points) =>
    points.reduce((sum, [x, y], i) => (i ? sum + Math.hypot(x - points[i - 1][0], y - points[i - 1][1]) : 0), 0);

  // The shortest stroke without which the drawing is read as another digit, if there is one.
  function decisiveStroke(reader, digit) {
    const count = strokes.length;
    if (count < 2 || count > MAX_STROKES || verdict.answer.digits.length > 1) return null;
    const ordered = strokes.map((points, stroke) => ({ stroke, length: lengthOf(points) }));
    for (const { stroke } of ordered.sort((a, b) => a.length - b.length)) {
      let digits;
      try {
        digits = reader.find(pixelsOf(currentImage(strokes.filter((_, i) => i !== stroke))), "false");
      } catch {
        continue; // nothing is left
      }
      const [other] = digits;
      if (other && !other.not_digit && other.label !== digit.label) return { stroke, other };
    }
    return null;
  }

  function explain(digit, parts, decisive) {
    if (digit.not_digit) return { text: "The network finds no digit here." };
    if (decisive) {
      const { label, confidence } = decisive.other;
      const text = `Without the marked stroke it reads ${label} (${percent(confidence)}).`;
      return { text, stroke: decisive.stroke };
    }
    const changed = parts.filter((part) => part.label !== digit.label).sort((a, b) => a.ink - b.ink);
    if (changed.length) {
      const [part] = changed;
      const text = `Without the marked part it reads ${part.label} (${percent(part.probabilities[part.label])}).`;
      return { text, part };
    }
    const part = parts.reduce((most, each) => (each.drop > most.drop ? each : most), parts[0]);
    if (!part || part.drop < 0.0005) return { text: `No part decides: with any part covered, it still reads ${digit.label}.` };
    const [before, after] = [digit.confidence, part.probabilities[digit.label]].map(percent);
    const text = `With any part covered, it still reads ${digit.label}. The marked part matters most: without it, the probability falls from ${before} to ${after}.`;
    return { text, part };
  }

  // Explain the digit that is shown, once the drawing has not changed for a moment.
  async function update(digit) {
    const number = ++run;
    if (result && result.digit !== digit) clearResult();
    const { reader } = backend;
    $("why").hidden = !reader || !digit;
    if (!isOn || !digit || !reader || result) return;
    $("why-text").textContent = "Computing …";
    await pause(PAUSE);
    const isCurrent = () => number === run;
    const covered = isCurrent() && (await coverAll(reader, digit, isCurrent));
    if (!covered) return;
    const explained = explain(digit, covered.parts, decisiveStroke(reader, digit));
    result = { digit, heat: toImage(covered.heat), ...explained };
    $("why-text").textContent = explained.text;
    draw();
  }

  // The heat map as an image: orange where ink speaks for the digit, blue where against it.
  function toImage(heat) {
    const max = Math.max(...heat.map(Math.abs), 1e-6);
    const image = new ImageData(SIDE, SIDE);
    const [red, blue] = [[214, 80, 10], [20, 100, 190]];
    heat.forEach((value, i) => {
      const alpha = 200 * Math.min(1, Math.abs(value) / max);
      image.data.set([...(value > 0 ? red : blue), alpha], 4 * i);
    });
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  function clearResult() {
    result = null;
    $("why-text").textContent = "";
  }

  // Draw the result over the drawing; `toSheet` maps 28x28 pixels to the sheet.
  function drawResult(context, toSheet, drawStroke) {
    if (!isOn || !result || verdict.isPending || result.digit !== verdict.answer?.digits[verdict.chosen]) return;
    const [left, top] = toSheet(0, 0);
    const [right, bottom] = toSheet(SIDE, SIDE);
    context.save();
    context.globalAlpha = 0.8;
    context.drawImage(result.heat, left, top, right - left, bottom - top);
    context.restore();
    context.strokeStyle = "#b4450a";
    context.lineWidth = 3;
    if (result.part) {
      const corner = toSheet(result.part.left, result.part.top);
      const end = toSheet(result.part.left + COVER, result.part.top + COVER);
      context.setLineDash([8, 6]);
      context.strokeRect(...corner, end[0] - corner[0], end[1] - corner[1]);
      context.setLineDash([]);
    }
    if (result.stroke !== undefined) drawStroke(result.stroke);
  }

  $("why-toggle").onclick = () => {
    isOn = !isOn;
    $("why-toggle").setAttribute("aria-pressed", isOn);
    if (!isOn) clearResult();
    update(verdict.answer?.digits[verdict.chosen] ?? null);
    draw();
  };

  verdict.follow(update);

  return {
    drawResult,
    get result() { return result; },
  };
})();
