"use strict";
// The numbers that came with the page. Arrays are bytes of float64, written in base64.

function decode(array) {
  const text = atob(array.f8);
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  return new Float64Array(bytes.buffer);
}

function decodeAll(object) {
  if (object === null || typeof object !== "object") return object;
  if (object.f8 !== undefined) return decode(object);
  if (Array.isArray(object)) return object.map(decodeAll);
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [key, decodeAll(value)]));
}

const DATA = decodeAll(JSON.parse(document.getElementById("data").textContent));
const { I, H, O } = DATA.network;
const STEPS = DATA.steps;
const PARAMS = { ...DATA.network, ...DATA.params };
const INITIAL = { ...DATA.network, ...DATA.initial };

// Step t (from 0) of an array (rows, STEPS, size), for N rows `stride` apart: (N, size)
function atStep(array, t, size, N, stride) {
  const out = new Float64Array(N * size);
  for (let n = 0; n < N; n++) {
    const from = (n * stride * STEPS + t) * size;
    out.set(array.subarray(from, from + size), n * size);
  }
  return out;
}

// N values of the series from `first` on, `stride` apart: (N, I)
function fromSeries(first, N, stride) {
  const out = new Float64Array(N * I);
  for (let n = 0; n < N; n++) {
    const from = (first + n * stride) * I;
    out.set(DATA.series.subarray(from, from + I), n * I);
  }
  return out;
}

// Inputs of N rows, [null, x_1, ..., x_T], each (N, I). If the rows are the windows of a series,
// step t of row n is its value n + t - 1.
function inputs(N, { T = STEPS, first = 0, stride = 1 } = {}) {
  const xs = [null];
  for (let t = first; t < first + T; t++) {
    xs.push(DATA.series ? fromSeries(t, N, stride) : atStep(DATA.x, t, I, N, stride));
  }
  return xs;
}

// Targets of these rows, [null, y_1, ..., y_T]; null where a step is not read.
function targets(N, { T = STEPS, first = 0, stride = 1 } = {}) {
  const ys = [null];
  for (let t = first; t < first + T; t++) {
    if (DATA.network.every) ys.push(atStep(DATA.y, t, O, N, stride));
    else ys.push(t === STEPS - 1 ? lastTargets(N, stride) : null);
  }
  return ys;
}

function lastTargets(N, stride) {
  const y = new Float64Array(N * O);
  for (let n = 0; n < N; n++) y.set(DATA.y.subarray(n * stride * O, (n * stride + 1) * O), n * O);
  return y;
}
