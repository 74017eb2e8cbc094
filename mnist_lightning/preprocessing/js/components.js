// Connected pieces of ink, and the digits that they are parts of: pieces.py in JavaScript.
"use strict";

const pieces = (() => {
  const FAINT = Math.fround(0.35);
  const FIRM = Math.fround(0.6);
  const SPECK = 0.02;
  const NEAR = 0.2;
  const HIGH = 0.45;
  const CLEARLY_HIGH = 0.5;
  const CLEARLY_INKED = 0.1;
  const WIDE = 1.4;
  const MOST_DIGITS = 200;

  const heightOf = (part) => part.bottom - part.top;
  const widthOf = (part) => part.right - part.left;
  const longerSide = (part) => Math.max(heightOf(part), widthOf(part));

  // The first of the things with the greatest, or the least, value.
  const first = (things, value) => things.reduce((a, b) => (value(b) > value(a) ? b : a));

  function around(parts) {
    return {
      label: parts[0].label,
      top: Math.min(...parts.map((part) => part.top)),
      left: Math.min(...parts.map((part) => part.left)),
      bottom: Math.max(...parts.map((part) => part.bottom)),
      right: Math.max(...parts.map((part) => part.right)),
      mass: parts.reduce((mass, part) => mass + part.mass, 0),
    };
  }

  function gap(one, other) {
    const across = Math.max(one.left - other.right, other.left - one.right);
    const down = Math.max(one.top - other.bottom, other.top - one.bottom);
    return Math.max(across, down, 0);
  }

  const isNear = (part, whole) => gap(part, whole) < NEAR * longerSide(whole);

  const atBorder = (part, { width, height }) =>
    part.top === 0 || part.left === 0 || part.bottom === height || part.right === width;

  // The runs of set pixels within the rows of a mask: row, begin and end (excluded) of each.
  function runs({ width, height, data }) {
    const found = [];
    for (let row = 0; row < height; row++) {
      for (let x = 0; x < width; x++) {
        if (!data[row * width + x]) continue;
        const begin = x;
        while (x < width && data[row * width + x]) x++;
        found.push({ row, begin, end: x });
      }
    }
    return found;
  }

  // Number the pieces that runs make where they touch those of the next row, from 1 on.
  function joined(found) {
    const parent = found.map((_, run) => run);
    const root = (run) => {
      while (parent[run] !== run) run = parent[run] = parent[parent[run]];
      return run;
    };
    let above = 0;
    for (let here = 0; here < found.length; here++) {
      const run = found[here];
      while (found[above].row < run.row - 1) above++;
      while (found[above].row < run.row && found[above].end < run.begin) above++;
      for (let i = above; found[i].row < run.row && found[i].begin <= run.end; i++) {
        parent[root(here)] = root(i);
      }
    }
    const roots = found.map((_, run) => root(run));
    const order = [...new Set(roots)].sort((a, b) => a - b);
    const numbers = new Map(order.map((each, i) => [each, i + 1]));
    return roots.map((each) => numbers.get(each));
  }

  // The number of its piece for each pixel of a mask, 0 for none; and the pieces 1, 2, …
  function label(mask, ink) {
    const found = runs(mask);
    const labels = new Int32Array(mask.data.length);
    const parts = [];
    joined(found).forEach((number, i) => {
      const { row, begin, end } = found[i];
      const from = row * mask.width;
      labels.fill(number, from + begin, from + end);
      const mass = arrays.sum(ink.data.subarray(from + begin, from + end));
      const part = (parts[number - 1] ??= {
        label: number, top: row, left: begin, bottom: row + 1, right: end, mass: 0,
      });
      part.left = Math.min(part.left, begin);
      part.right = Math.max(part.right, end);
      part.bottom = row + 1;
      part.mass += mass;
    });
    return { labels: { width: mask.width, height: mask.height, data: labels }, parts };
  }

  // The digits in (H, W) ink, 0 to 1, in reading order: their boxes, and which pixels are theirs.
  function findDigits(ink, multiple) {
    const { labels, parts } = label(arrays.map(ink, (value) => value > FAINT, Uint8Array), ink);
    const firm = new Set(labels.data.filter((_, i) => ink.data[i] > FIRM));
    const firmParts = parts.filter((part) => firm.has(part.label));
    const found = firmParts.length ? firmParts : parts;
    const inner = found.filter((part) => !atBorder(part, ink));
    const main = mainGroup(found, inner, ink.height);
    let groups = [main];
    if (multiple !== false) {
      const beside = inner.includes(main[0]) ? inner : found;
      const several = beside.filter((part) => part.mass >= SPECK * main[0].mass);
      if (several.length <= MOST_DIGITS) groups = digitGroups(several);
      if (groups.length < 2 || (multiple === null && !areObvious(groups))) groups = [main];
    }
    return inReadingOrder(groups).map((group) => digit(group, labels));
  }

  function digit(group, labels) {
    const { left, top, right, bottom } = around(group);
    const own = new Set(group.map((part) => part.label));
    const place = arrays.cropped(labels, left, top, right, bottom);
    return {
      mask: arrays.map(place, (number) => own.has(number), Uint8Array),
      box: [left, top, right, bottom],
      wide: right - left > WIDE * (bottom - top),
    };
  }

  function mainGroup(found, inner, height) {
    let main = first(found, (part) => part.mass);
    if (inner.length && !inner.includes(main)) {
      const whole = first(inner, (part) => part.mass);
      if (whole.mass > 0.15 * main.mass && heightOf(whole) > 0.2 * height) main = whole;
    }
    const others = inner.includes(main) ? inner : found;
    return [main].concat(
      others.filter((part) => part !== main && part.mass > SPECK * main.mass && isNear(part, main)),
    );
  }

  function digitGroups(parts) {
    const highest = Math.max(...parts.map(heightOf));
    const groups = [];
    const rest = [];
    for (const part of [...parts].sort((a, b) => heightOf(b) - heightOf(a))) {
      const home = groups.find((group) => belongs(part, around(group)));
      if (home) home.push(part);
      else if (heightOf(part) >= HIGH * highest) groups.push([part]);
      else rest.push(part);
    }
    for (const part of rest) {
      const nearest = first(groups, (group) => -gap(part, around(group)));
      if (isNear(part, around(nearest))) nearest.push(part);
    }
    return groups;
  }

  function belongs(part, whole) {
    const shared = Math.min(part.right, whole.right) - Math.max(part.left, whole.left);
    return shared > 0.5 * Math.min(widthOf(part), widthOf(whole)) && isNear(part, whole);
  }

  function areObvious(groups) {
    const wholes = groups.map(around);
    const highest = Math.max(...wholes.map(heightOf));
    const most = Math.max(...wholes.map((whole) => whole.mass));
    const clear = wholes.filter(
      (whole) => heightOf(whole) >= CLEARLY_HIGH * highest && whole.mass >= CLEARLY_INKED * most,
    );
    if (clear.length < groups.length || clear.length < 2) return false;
    return clear.every((one) => clear.every((other) => one === other || gap(one, other) > 0));
  }

  function inReadingOrder(groups) {
    const lines = [];
    for (const group of [...groups].sort((a, b) => around(a).top - around(b).top)) {
      const { top, bottom } = around(group);
      const last = lines.at(-1);
      if (last && (top + bottom) / 2 < around(last.flat()).bottom) last.push(group);
      else lines.push([group]);
    }
    return lines.flatMap((line) => line.sort((a, b) => around(a).left - around(b).left));
  }

  return { FAINT, runs, label, atBorder, findDigits };
})();
