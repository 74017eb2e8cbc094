// Connected components of ink, and how they form digits: components.py in JavaScript.
"use strict";

const components = (() => {
  const {
    MIN_MASS, MAX_GAP, MAX_BREAK, EDGE_LINE, MIN_HEIGHT, CLEAR_HEIGHT, CLEAR_MASS, MAX_ASPECT,
    MAX_DIGITS,
  } = constants.components;
  const INK_THRESHOLD = Math.fround(constants.components.INK_THRESHOLD);
  const CORE_THRESHOLD = Math.fround(constants.components.CORE_THRESHOLD);

  const heightOf = (part) => part.bottom - part.top;
  const widthOf = (part) => part.right - part.left;
  const longerSide = (part) => Math.max(heightOf(part), widthOf(part));

  // The first of the items with the largest value.
  const maxBy = (items, value) => items.reduce((a, b) => (value(b) > value(a) ? b : a));

  function bounds(parts) {
    return {
      label: parts[0].label,
      top: Math.min(...parts.map((part) => part.top)),
      left: Math.min(...parts.map((part) => part.left)),
      bottom: Math.max(...parts.map((part) => part.bottom)),
      right: Math.max(...parts.map((part) => part.right)),
      mass: parts.reduce((mass, part) => mass + part.mass, 0),
    };
  }

  function gap(a, b) {
    const across = Math.max(a.left - b.right, b.left - a.right);
    const down = Math.max(a.top - b.bottom, b.top - a.bottom);
    return Math.max(across, down, 0);
  }

  const isNear = (part, digit) => gap(part, digit) < MAX_GAP * longerSide(digit);

  const touchesBorder = (part, { width, height }) =>
    part.top === 0 || part.left === 0 || part.bottom === height || part.right === width;

  // The runs of set pixels in the rows of a mask, each with row, begin and end (excluded).
  function rowRuns({ width, height, data }) {
    const runs = [];
    for (let row = 0; row < height; row++) {
      for (let x = 0; x < width; x++) {
        if (!data[row * width + x]) continue;
        const begin = x;
        while (x < width && data[row * width + x]) x++;
        runs.push({ row, begin, end: x });
      }
    }
    return runs;
  }

  // Number from 1 the components that runs form by touching runs of the next row, also at `corners`.
  function numberComponents(runs, corners) {
    const reach = corners ? 0 : 1;
    const parent = runs.map((_, run) => run);
    const root = (run) => {
      while (parent[run] !== run) run = parent[run] = parent[parent[run]];
      return run;
    };
    let above = 0;
    for (let here = 0; here < runs.length; here++) {
      const run = runs[here];
      while (runs[above].row < run.row - 1) above++;
      while (runs[above].row < run.row && runs[above].end < run.begin + reach) above++;
      for (let i = above; runs[i].row < run.row && runs[i].begin <= run.end - reach; i++) {
        const [first, second] = [root(here), root(i)].sort((a, b) => a - b);
        parent[second] = first;
      }
    }
    const roots = runs.map((_, run) => root(run));
    const order = [...new Set(roots)].sort((a, b) => a - b);
    const numbers = new Map(order.map((run, i) => [run, i + 1]));
    return roots.map((run) => numbers.get(run));
  }

  // For each pixel of a mask the number of its component, 0 for none; and the components 1, 2, …
  function labelComponents(mask, ink, corners = true) {
    const runs = rowRuns(mask);
    const labels = new Int32Array(mask.data.length);
    const parts = [];
    numberComponents(runs, corners).forEach((number, i) => {
      const { row, begin, end } = runs[i];
      const start = row * mask.width;
      labels.fill(number, start + begin, start + end);
      let mass = 0;
      for (let at = start + begin; at < start + end; at++) mass += ink.data[at];
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

  // The digits of (H, W) ink, 0 to 1, in reading order: their boxes, and masks of their pixels.
  function segmentDigits(ink, multiple, isScan) {
    const mask = arrays.map(ink, (value) => value > INK_THRESHOLD, Uint8Array);
    const { labels, parts } = labelComponents(mask, ink);
    const cores = new Set(labels.data.filter((_, i) => ink.data[i] > CORE_THRESHOLD));
    const withCores = parts.filter((part) => cores.has(part.label));
    let strokes = withCores.length ? withCores : parts;
    const withoutLines = strokes.filter((part) => !isEdgeLine(part, ink));
    if (isScan && withoutLines.length) strokes = withoutLines;
    const inner = strokes.filter((part) => isScan || !touchesBorder(part, ink));
    const main = mainGroup(strokes, inner, ink.height, isScan);
    let groups = [main];
    if (multiple !== false) {
      const candidates = inner.includes(main[0]) ? inner : strokes;
      const large = candidates.filter((part) => part.mass >= MIN_MASS * main[0].mass);
      if (large.length <= MAX_DIGITS) groups = digitGroups(large);
      if (groups.length < 2 || (multiple === null && !areObvious(groups))) groups = [main];
    }
    return inReadingOrder(groups).map((group) => toDigit(group, labels));
  }

  function toDigit(group, labels) {
    const { left, top, right, bottom } = bounds(group);
    const own = new Set(group.map((part) => part.label));
    const crop = arrays.cropped(labels, left, top, right, bottom);
    return {
      mask: arrays.map(crop, (number) => own.has(number), Uint8Array),
      box: [left, top, right, bottom],
      wide: right - left > MAX_ASPECT * (bottom - top),
    };
  }

  function mainGroup(strokes, inner, height, isScan) {
    let main = maxBy(strokes, (part) => part.mass);
    if (inner.length && !inner.includes(main)) {
      const largest = maxBy(inner, (part) => part.mass);
      if (largest.mass > 0.15 * main.mass && heightOf(largest) > 0.2 * height) main = largest;
    }
    const rest = (inner.includes(main) ? inner : strokes).filter(
      (part) => part !== main && part.mass > MIN_MASS * main.mass,
    );
    const group = [main, ...rest.filter((part) => isNear(part, main))];
    let left = rest.filter((part) => !group.includes(part));
    while (left.length <= MAX_DIGITS) {
      const whole = bounds(group);
      const added = left.filter((part) => continues(part, whole, isScan));
      if (!added.length) break;
      group.push(...added);
      left = left.filter((part) => !added.includes(part));
    }
    return group;
  }

  // Whether a part continues broken strokes, and is not another digit beside them.
  function continues(part, whole, isScan) {
    const isBeside = part.left >= whole.right || part.right <= whole.left;
    if (isBeside && heightOf(part) >= MIN_HEIGHT * heightOf(whole)) return false;
    return gap(part, whole) <= Math.max(MAX_BREAK, isScan ? MAX_GAP * longerSide(whole) : 0);
  }

  // Whether a part is a thin line along a border of the image.
  function isEdgeLine(part, { width, height }) {
    const upright = widthOf(part) <= EDGE_LINE * width && heightOf(part) > 0.5 * height;
    const level = heightOf(part) <= EDGE_LINE * height && widthOf(part) > 0.5 * width;
    return (upright && (part.left === 0 || part.right === width)) ||
      (level && (part.top === 0 || part.bottom === height));
  }

  function digitGroups(parts) {
    const highest = Math.max(...parts.map(heightOf));
    const groups = [];
    const rest = [];
    for (const part of [...parts].sort((a, b) => heightOf(b) - heightOf(a))) {
      const owner = groups.find((group) => belongs(part, bounds(group)));
      if (owner) owner.push(part);
      else if (heightOf(part) >= MIN_HEIGHT * highest) groups.push([part]);
      else rest.push(part);
    }
    for (const part of rest) {
      const nearest = maxBy(groups, (group) => -gap(part, bounds(group)));
      if (isNear(part, bounds(nearest))) nearest.push(part);
    }
    return groups;
  }

  function belongs(part, digit) {
    const shared = Math.min(part.right, digit.right) - Math.max(part.left, digit.left);
    return shared > 0.5 * Math.min(widthOf(part), widthOf(digit)) && isNear(part, digit);
  }

  function areObvious(groups) {
    const digits = groups.map(bounds);
    const highest = Math.max(...digits.map(heightOf));
    const maxMass = Math.max(...digits.map((digit) => digit.mass));
    const clear = digits.filter(
      (digit) => heightOf(digit) >= CLEAR_HEIGHT * highest && digit.mass >= CLEAR_MASS * maxMass,
    );
    if (clear.length < groups.length || clear.length < 2) return false;
    return clear.every((a) => clear.every((b) => a === b || gap(a, b) > 0));
  }

  function inReadingOrder(groups) {
    const lines = [];
    for (const group of [...groups].sort((a, b) => bounds(a).top - bounds(b).top)) {
      const { top, bottom } = bounds(group);
      const last = lines.at(-1);
      if (last && (top + bottom) / 2 < bounds(last.flat()).bottom) last.push(group);
      else lines.push([group]);
    }
    return lines.flatMap((line) => line.sort((a, b) => bounds(a).left - bounds(b).left));
  }

  return { INK_THRESHOLD, CORE_THRESHOLD, rowRuns, labelComponents, touchesBorder, segmentDigits };
})();
