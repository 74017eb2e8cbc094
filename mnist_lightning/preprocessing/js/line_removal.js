// Find ruled lines that are as dark as the pen, and remove them: line_removal.py in JavaScript.
"use strict";

const lineRemoval = (() => {
  const { MIN_COVERAGE, MAX_THICKNESS, MAX_SLOPE, COARSE_STEP, FINE_STEP, MAX_SAMPLES, BORDER,
    MIN_INSIDE } = constants.line_removal;

  function removeLines(ink) {
    const mask = arrays.map(ink, (value) => value > components.INK_THRESHOLD, Uint8Array);
    const horizontal = findLines(mask);
    const vertical = arrays.transposed(findLines(arrays.transposed(mask)));
    if (!horizontal.data.includes(1) && !vertical.data.includes(1)) return ink;
    const rest = { ...ink, data: ink.data.map((value, i) =>
      horizontal.data[i] || vertical.data[i] ? 0 : value) };
    const restMask = arrays.map(rest, (value) => value > components.INK_THRESHOLD, Uint8Array);
    const { parts } = components.labelComponents(restMask, rest);
    const inner = parts.filter((part) => !components.touchesBorder(part, ink));
    const inside = arrays.sum(inner.map((part) => part.mass));
    return inside > MIN_INSIDE * arrays.sum(rest.data) ? rest : ink;
  }

  // Mark the pixels of lines that run from the left border to the right border.
  function findLines(mask) {
    const { width, height, data } = mask;
    const lines = { width, height, data: new Uint8Array(data.length) };
    const border = 1 + Math.trunc(BORDER * width);
    const hasInk = (left, right) => arrays.cropped(mask, left, 0, right, height).data.includes(1);
    if (!hasInk(0, Math.min(border, width)) || !hasInk(Math.max(width - border, 0), width)) {
      return lines;
    }
    const points = [];
    data.forEach((set, at) => set && points.push({ at, x: at % width, y: Math.trunc(at / width) }));
    const { levels, counts } = leveled(points, findSlope(points));
    const covered = Array.from(counts, (count) => count >= MIN_COVERAGE * width);
    points.forEach(({ at }, i) => {
      const level = levels[i];
      lines.data[at] = covered[level - 1] || covered[level] || covered[level + 1] ? 1 : 0;
    });
    if (!lines.data.includes(1)) return lines;
    const heights = arrays.transposed(runLengths(arrays.transposed(mask))).data;
    const thickness = arrays.median(heights.filter((_, at) => lines.data[at]));
    const isLine = thickness <= MAX_THICKNESS * Math.min(width, height);
    const maxHeight = isLine ? 1.5 * thickness + 1 : 0;
    lines.data.forEach((set, at) => set && heights[at] > maxHeight && (lines.data[at] = 0));
    return lines;
  }

  // The row of each point if lines of the slope were level, from 0; and the points in each row.
  function leveled(points, slope) {
    const levels = new Int32Array(points.length);
    let [lowest, highest] = [Infinity, -Infinity];
    for (let i = 0; i < points.length; i++) {
      const level = arrays.rint(points[i].y - slope * points[i].x);
      levels[i] = level;
      if (level < lowest) lowest = level;
      if (level > highest) highest = level;
    }
    const counts = new Int32Array(highest - lowest + 1);
    for (let i = 0; i < levels.length; i++) counts[(levels[i] -= lowest)] += 1;
    return { levels, counts };
  }

  // The slope along which the points fall into the fewest rows.
  function findSlope(points) {
    const stride = 1 + Math.trunc(points.length / MAX_SAMPLES);
    const samples = points.filter((_, i) => i % stride === 0);
    const concentration = (slope) =>
      leveled(samples, slope).counts.reduce((total, count) => total + count * count, 0);
    const bestSlope = (middle, reach, step) => {
      const count = Math.ceil((2 * reach + step / 2) / step);
      const slopes = Array.from({ length: count }, (_, i) => middle + (i * step - reach));
      const values = slopes.map(concentration);
      return slopes[values.indexOf(Math.max(...values))];
    };
    return bestSlope(bestSlope(0, MAX_SLOPE, COARSE_STEP), COARSE_STEP, FINE_STEP);
  }

  // For each set pixel the length of its run within its row; 0 for the others.
  function runLengths(mask) {
    const data = new Int32Array(mask.data.length);
    for (const { row, begin, end } of components.rowRuns(mask)) {
      data.fill(end - begin, row * mask.width + begin, row * mask.width + end);
    }
    return { width: mask.width, height: mask.height, data };
  }

  return { removeLines, findSlope };
})();
