// What the page shows, kept in its address: #t=7&i=3&j=2 is a link to a frame.

const DEFAULTS = {
  t: STEPS, i: 0, j: 0, m: "w_hh", n: DATA.sizes.find((n) => n >= 4) || DATA.sizes.at(-1),
  pass: "forward", one: 0, short: 0, columns: 0, cut: 0,
};
const PASSES = ["forward", "loss", "backward"];
const MATRICES = { w_hh: [H, H], w_xh: [H, I], w_hy: [O, H] };
const state = { ...DEFAULTS };
const sections = []; // functions that draw a part of the page

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const whole = (value, otherwise) => (/^\d+$/.test(value) ? Number(value) : otherwise);
const steps = () => (state.short ? 2 : STEPS);

function setState(changes) {
  for (const key of Object.keys(DEFAULTS)) {
    if (!(key in changes)) continue;
    const text = String(changes[key]);
    if (key === "m") state.m = text in MATRICES ? text : state.m;
    else if (key === "pass") state.pass = PASSES.includes(text) ? text : state.pass;
    else state[key] = whole(text, state[key]);
  }
  const [rows, columns] = MATRICES[state.m];
  state.i = clamp(state.i, 0, rows - 1);
  state.j = clamp(state.j, 0, columns - 1);
  if (!DATA.sizes.includes(state.n)) state.n = DEFAULTS.n;
  for (const key of ["one", "short", "columns"]) state[key] = clamp(state[key], 0, 1);
  const short = Object.keys(DATA.library_of_last_two).map(Number);
  if (short.length === 0) state.short = 0;
  if (state.short) state.n = Math.min(state.n, Math.max(...short));
  state.t = clamp(state.t, 1, steps());
  state.cut = clamp(state.cut, 0, steps() - 1);
}

function readAddress() {
  setState({ ...DEFAULTS, ...Object.fromEntries(new URLSearchParams(location.hash.slice(1))) });
}

function writeAddress() {
  const always = ["t", "i", "j"];
  const keys = Object.keys(DEFAULTS).filter((k) => always.includes(k) || state[k] !== DEFAULTS[k]);
  const hash = "#" + keys.map((key) => `${key}=${state[key]}`).join("&");
  try {
    history.replaceState(null, "", hash);
  } catch {
    // A frame without an address of its own, in a notebook, keeps none.
  }
}

function update(changes) {
  setState(changes);
  writeAddress();
  for (const draw of sections) draw();
}

// The pass that is shown, computed once for each number of rows and view of time.
const passes = new Map();
function currentPass() {
  const key = `${state.n} ${state.short}`;
  if (!passes.has(key)) passes.set(key, state.short ? lastTwo(state.n) : wholePass(state.n));
  return passes.get(key);
}

const wholePass = (N) => backprop(PARAMS, inputs(N), targets(N), N);

// The last two steps alone; h_0 is the state that the steps before them left, taken as a constant.
function lastTwo(N) {
  const part = { T: 2, first: STEPS - 2 };
  const h0 = forward(PARAMS, inputs(N, { T: STEPS - 2 }), N).hs[STEPS - 2];
  return backprop(PARAMS, inputs(N, part), targets(N, part), N, { h0 });
}

function library() {
  return (state.short ? DATA.library_of_last_two : DATA.library)[state.n];
}

function currentTerms() {
  const pass = currentPass();
  pass.terms ||= {};
  pass.terms[state.m] ||= terms(pass, state.m);
  return pass.terms[state.m];
}

const names = { w_hh: "dw_hh", w_xh: "dw_xh", w_hy: "dw_hy" };
const entryName = () => `${names[state.m]}[${state.i}, ${state.j}]`;

function number(value, digits = 5) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size < 1e-4 || size >= 1e6 ? value.toExponential(digits - 1) : value.toPrecision(digits);
}

// In how many significant digits two numbers agree
function digits(a, b) {
  if (a === b) return 16;
  return clamp(Math.floor(-Math.log10(Math.abs(a - b) / Math.max(Math.abs(a), Math.abs(b)))), 0, 16);
}
