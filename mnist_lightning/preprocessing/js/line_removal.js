// Ruled lines as dark as the pen, found and taken away: ruled_lines.py in JavaScript.
"use strict";

const ruledLines = (() => {
  const COVERED = 0.6;
  const THIN = 0.04;
  const STEEPEST = 0.09;
  const STEP = 0.004;
  const FINE = 0.001;
  const SOUGHT = 20000;
  const EDGE = 0.02;
  const LEAST_HELD = 0.3;

  function withoutLines(ink) {
    const mask = arrays.map(ink, (value) => value > pieces.FAINT, Uint8Array);
    const level = levelLines(mask);
    const upright = arrays.transposed(levelLines(arrays.transposed(mask)));
    if (!level.data.includes(1) && !upright.data.includes(1)) return ink;
    const rest = { ...ink, data: ink.data.map((value, i) =>
      level.data[i] || upright.data[i] ? 0 : value) };
    const left = arrays.map(rest, (value) => value > pieces.FAINT, Uint8Array);
    const inner = pieces.label(left, rest).parts.filter((part) => !pieces.atBorder(part, ink));
    const held = Math.max(0, ...inner.map((part) => part.mass));
    return held > LEAST_HELD * arrays.sum(rest.data) ? rest : ink;
  }

  // Mark the pixels of lines from the left border to the right one.
  function levelLines(mask) {
    const { width, height, data } = mask;
    const lines = { width, height, data: new Uint8Array(data.length) };
    const edge = 1 + Math.trunc(EDGE * width);
    const reaches = (left, right) => arrays.cropped(mask, left, 0, right, height).data.includes(1);
    if (!reaches(0, Math.min(edge, width)) || !reaches(Math.max(width - edge, 0), width)) {
      return lines;
    }
    const points = [];
    data.forEach((set, at) => set && points.push({ at, x: at % width, y: Math.trunc(at / width) }));
    const slope = slopeOf(points);
    const { levels, counts } = gather(points, slope);
    const covered = Array.from(counts, (count) => count >= COVERED * width);
    points.forEach(({ at }, i) => {
      const level = levels[i];
      lines.data[at] = covered[level - 1] || covered[level] || covered[level + 1] ? 1 : 0;
    });
    if (!lines.data.includes(1)) return lines;
    const heights = arrays.transposed(runLengths(arrays.transposed(mask))).data;
    const thickness = arrays.median(heights.filter((_, at) => lines.data[at]));
    const most = thickness <= THIN * Math.min(width, height) ? 1.5 * thickness + 1 : 0;
    lines.data.forEach((set, at) => set && heights[at] > most && (lines.data[at] = 0));
    return lines;
  }

  // The row of each point as if it lay level, from 0; and how many points each row has.
  function gather(points, slope) {
    const rows = Int32Array.from(points, ({ x, y }) => arrays.rint(y - slope * x));
    const lowest = rows.reduce((a, b) => Math.min(a, b));
    const levels = rows.map((row) => row - lowest);
    const counts = new Int32Array(arrays.greatest(levels) + 1);
    for (const level of levels) counts[level] += 1;
    return { levels, counts };
  }

  // The slope along which points gather in the fewest rows.
  function slopeOf(points) {
    const every = 1 + Math.trunc(points.length / SOUGHT);
    const some = points.filter((_, i) => i % every === 0);
    const gathered = (slope) =>
      gather(some, slope).counts.reduce((total, count) => total + count * count, 0);
    const best = (middle, reach, step) => {
      const count = Math.ceil((2 * reach + step / 2) / step);
      const slopes = Array.from({ length: count }, (_, i) => middle + (i * step - reach));
      const values = slopes.map(gathered);
      return slopes[values.indexOf(Math.max(...values))];
    };
    return best(best(0, STEEPEST, STEP), STEP, FINE);
  }

  // The length of the run of its row that each set pixel belongs to; 0 elsewhere.
  function runLengths(mask) {
    const data = new Int32Array(mask.data.length);
    for (const { row, begin, end } of pieces.runs(mask)) {
      data.fill(end - begin, row * mask.width + begin, row * mask.width + end);
    }
    return { width: mask.width, height: mask.height, data };
  }

  return { withoutLines };
})();
