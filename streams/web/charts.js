// Two charts as SVG: the acting detector's statistic against its threshold, and the model's error.

import { drawn, figure } from "./elements.js";

const LEFT = 46, RIGHT = 12, TOP = 14, BAND = 18, AXIS = 20;
const HALF_LABEL = 36; // of a day's width, pixels
const POINTS_MAX = 160; // windows up to which each has a point of its own

// Return the scale of some values: logarithmic where all are above zero, which a statistic may span by far.
function scaleOf(values, height, top, upwards = true) {
  const logarithmic = values.every((value) => value > 0);
  const seen = logarithmic ? values.map((value) => Math.max(value, 1e-9)) : values;
  const bend = Math.max(...seen.map(Math.abs), 1e-9) / 10;
  const way = (value) => (logarithmic ? Math.log10(Math.max(value, 1e-9)) : Math.asinh(value / bend));
  let low = Math.min(...seen.map(way)), high = Math.max(...seen.map(way));
  const space = Math.max((high - low) * 0.08, 0.05);
  low -= space;
  high += space;
  return (value) => {
    const share = (way(value) - low) / (high - low);
    return top + (upwards ? 1 - share : share) * height;
  };
}

function frame(width, height, label) {
  return drawn("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
}

function place(i, n, width) {
  return LEFT + ((i + 0.5) / n) * (width - LEFT - RIGHT);
}

function path(points, kind) {
  let broken = true;
  const steps = points.map((point) => {
    if (point === null) { broken = true; return ""; }
    const step = `${broken ? "M" : "L"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    broken = false;
    return step;
  });
  return drawn("path", { d: steps.join(""), class: kind });
}

function days(rows, width, y) {
  const most = Math.max(1, Math.floor((width - LEFT - RIGHT) / 95));
  const step = Math.max(1, Math.ceil(rows.length / most));
  const labels = [];
  for (let i = Math.floor(step / 2); i < rows.length; i += step) {
    const x = Math.min(Math.max(place(i, rows.length, width), HALF_LABEL), width - HALF_LABEL);
    labels.push(drawn("text", { x, y, "text-anchor": "middle" }, rows[i].end));
  }
  return labels;
}

function level(y, value, kind = "") {
  return drawn("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end", class: kind }, figure(value, 2));
}

// Return whether drift lies above the threshold; some statistics are probabilities, where it lies below.
export function driftAbove(rows) {
  const told = rows.find(({ verdict }) => verdict && verdict.drift !== null && verdict.statistic !== null
    && verdict.threshold !== null && verdict.statistic !== verdict.threshold);
  return !told || told.verdict.drift === told.verdict.statistic > told.verdict.threshold;
}

export function timeline(rows, width, chosen) {
  const height = width < 500 ? 210 : 250;
  const inner = height - TOP - BAND - AXIS - 8;
  const svg = frame(width, height, "The acting detector's statistic of each window against its threshold");
  const has = (row, name) => row.verdict !== null && row.verdict[name] !== null;
  const values = rows.flatMap((row) => ["statistic", "threshold"].filter((name) => has(row, name))
    .map((name) => row.verdict[name]));
  const x = (i) => place(i, rows.length, width);
  svg.append(...states(rows, width, height - AXIS - BAND), ...days(rows, width, height - 5));
  svg.append(drawn("line", { x1: LEFT, x2: width - RIGHT, y1: TOP + inner, y2: TOP + inner, class: "axis" }));
  if (values.length) {
    const y = scaleOf(values, inner, TOP, driftAbove(rows));
    const line = (name) => rows.map((row, i) => (has(row, name) ? [x(i), y(row.verdict[name])] : null));
    svg.append(path(line("threshold"), "threshold"), path(line("statistic"), "statistic"));
    const threshold = rows.findLast((row) => has(row, "threshold"))?.verdict.threshold;
    svg.append(...levels(values, threshold, y));
    if (rows.length <= POINTS_MAX) svg.append(...points(rows, line("statistic")));
  } else {
    svg.append(drawn("text", { x: width / 2, y: TOP + inner / 2, "text-anchor": "middle" },
      "no statistic yet: the reference is still being gathered"));
  }
  svg.append(marks(rows, width, TOP + inner));
  if (chosen >= 0) {
    svg.append(drawn("line", { x1: x(chosen), x2: x(chosen), y1: TOP - 6, y2: height - AXIS, class: "cursor" }));
  }
  return svg;
}

function levels(values, threshold, y) {
  const lowest = Math.min(...values), highest = Math.max(...values);
  const shown = [lowest, highest].filter((value) => threshold === undefined || Math.abs(y(value) - y(threshold)) > 14);
  const texts = shown.filter((value, i) => i === 0 || Math.abs(y(value) - y(shown[0])) > 14)
    .map((value) => level(y(value), value));
  if (threshold !== undefined) texts.push(level(y(threshold), threshold, "threshold-word"));
  return texts;
}

function points(rows, line) {
  return line.flatMap((point, i) => {
    if (point === null) return [];
    const drift = rows[i].verdict.drift === true;
    return [drawn("circle", { cx: point[0], cy: point[1], r: drift ? 4 : 2.5, class: drift ? "point drift" : "point" })];
  });
}

// The states as a band of runs, each with its word where it fits.
function states(rows, width, y) {
  const each = (width - LEFT - RIGHT) / rows.length;
  const parts = [];
  for (let start = 0; start < rows.length;) {
    let end = start + 1;
    while (end < rows.length && rows[end].state === rows[start].state) end += 1;
    const x = LEFT + start * each, long = (end - start) * each;
    const state = rows[start].state;
    parts.push(drawn("rect", { x, y: y + 12, width: Math.max(long - 1, 0.5), height: 6, class: state }));
    if (long > state.length * 7.8 + 4) {
      parts.push(drawn("text", { x: x + 1, y: y + 9, class: `state ${state}` }, state));
    }
    start = end;
  }
  return parts;
}

// A triangle where an action was asked for; one path for all of them.
function marks(rows, width, bottom) {
  const triangles = rows.map((row, i) => {
    const x = place(i, rows.length, width);
    return row.action === "none" ? "" : `M${x - 5} ${bottom}L${x + 5} ${bottom}L${x} ${bottom - 8}Z`;
  });
  return drawn("path", { d: triangles.join(""), class: "mark" });
}

// Return the measured and the estimated errors over `horizon` days, each at the window that it is of.
export function errorsOf(rows, horizon) {
  const found = new Map(rows.map((row) => [row.end, { end: row.end, measured: null, estimated: null }]));
  for (const row of rows) {
    const estimate = row.estimates[horizon];
    if (typeof estimate === "number") found.get(row.end).estimated = estimate;
    const figures = row.performance[horizon];
    if (figures && figures.status === "matured" && found.has(figures.of)) found.get(figures.of).measured = figures.mae;
  }
  const all = [...found.values()];
  const known = (entry) => entry.measured !== null || entry.estimated !== null;
  const first = all.findIndex(known);
  return first < 0 ? [] : all.slice(first, all.findLastIndex(known) + 1);
}

export function errors(entries, width) {
  const height = 190, inner = height - TOP - AXIS - 6;
  const values = entries.flatMap((entry) => [entry.measured, entry.estimated]).filter((value) => value !== null);
  const highest = Math.max(...values, 1e-9) * 1.08;
  const y = (value) => TOP + (1 - value / highest) * inner;
  const svg = frame(width, height, "Mean absolute error of the model, measured and estimated");
  const line = (name) => entries.map((entry, i) =>
    (entry[name] === null ? null : [place(i, entries.length, width), y(entry[name])]));
  svg.append(drawn("line", { x1: LEFT, x2: width - RIGHT, y1: y(0), y2: y(0), class: "axis" }));
  svg.append(level(y(0), 0), level(y(Math.max(...values)), Math.max(...values)), ...days(entries, width, height - 5));
  svg.append(path(line("estimated"), "estimate"), path(line("measured"), "statistic"));
  if (entries.length <= POINTS_MAX) {
    for (const [name, kind] of [["estimated", "point ring"], ["measured", "point"]]) {
      svg.append(...line(name).filter(Boolean).map(([cx, cy]) => drawn("circle", { cx, cy, r: 3, class: kind })));
    }
  }
  return svg;
}
