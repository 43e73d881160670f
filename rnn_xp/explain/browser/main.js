// Controls, keys and the first drawing.

function relativeError(mine, theirs) {
  const difference = mine.reduce((most, value, k) => Math.max(most, Math.abs(value - theirs[k])), 0);
  return difference / (largest(theirs) || 1);
}

// The largest relative difference between the page's own network and the library's numbers
function differenceFromLibrary() {
  const N = DATA.arrays.h.length / (STEPS * H), pass = wholePass(N), errors = [];
  for (let t = 1; t <= STEPS; t++) {
    const part = (name) => DATA.arrays[name].subarray((t - 1) * N * H, t * N * H);
    errors.push(relativeError(pass.hs[t], part("h")), relativeError(pass.dhs[t], part("dh")));
  }
  for (const n of DATA.sizes.filter((n) => n <= 32)) {
    const grads = gradients(wholePass(n));
    for (const name of Object.keys(grads)) errors.push(relativeError(grads[name], DATA.library[n][name]));
  }
  return Math.max(...errors);
}

function drawControls() {
  byId("rows").value = DATA.sizes.indexOf(state.n);
  byId("rows-value").textContent = `N = ${state.n}`;
  byId("short").value = state.short;
  byId("convention").value = state.columns;
  for (const radio of document.querySelectorAll("input[name=matrix]")) radio.checked = radio.value === state.m;
}

function drawAbout() {
  const { activation, every } = DATA.network;
  const some = DATA.rows < DATA.given ? `the first ${DATA.rows} of ${DATA.given} rows` : `${DATA.rows} rows`;
  byId("title").textContent = DATA.title || "A network";
  byId("about").textContent =
    `${some} of ${STEPS} steps; I = ${I}, H = ${H}, O = ${O}, ${activation}, ` +
    `${every ? "many-to-many" : "many-to-one"}, mean squared error, float64.` +
    (DATA.linear ? " What the linear path predicts is taken off the targets, since h plays no part in it." : "");
  byId("difference").textContent =
    "This page computes all of this itself. Largest difference from the library's numbers, relative: " +
    `${differenceFromLibrary().toExponential(1)}.`;
}

function onKey(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const busy = event.target.closest("input, select, textarea, .scroll, #matrix");
  if (!step || busy || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  goToFrame(frameIndex() + step);
}

function listen() {
  const on = (id, name, action) => byId(id).addEventListener(name, action);
  on("rows", "input", (event) => update({ n: DATA.sizes[event.target.value] }));
  on("short", "change", (event) => update({ short: event.target.value, t: STEPS }));
  on("convention", "change", (event) => update({ columns: event.target.value }));
  on("one", "change", (event) => update({ one: Number(event.target.checked) }));
  on("cut", "input", (event) => update({ cut: event.target.value }));
  for (const key of ["i", "j"]) on(key, "change", (event) => update({ [key]: event.target.value }));
  for (const radio of document.querySelectorAll("input[name=matrix]")) {
    radio.addEventListener("change", () => update({ m: radio.value }));
  }
  on("back", "click", () => goToFrame(frameIndex() - 1));
  on("forward", "click", () => goToFrame(frameIndex() + 1));
  on("frame-slider", "input", (event) => goToFrame(Number(event.target.value)));
  on("png", "click", savePicture);
  on("every", "change", drawShares);
  on("scale", "input", drawFlow);
  for (const radio of document.querySelectorAll("input[name=mistake]")) radio.addEventListener("change", drawBroken);
  on("theme", "click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    drawAll();
  });
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => { readAddress(); drawAll(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawAll(); } });
}

function drawAll() {
  for (const draw of [...sections, drawFlow, drawBroken]) draw();
}

function start() {
  readAddress();
  byId("rows").max = DATA.sizes.length - 1;
  byId("short-choice").hidden = Object.keys(DATA.library_of_last_two).length === 0;
  byId("short").options[0].textContent = `T = ${STEPS}, all steps`;
  sections.push(drawControls, drawEntry, drawTime, drawRight, drawUnrolled, drawShares);
  listen();
  drawAbout();
  drawAll();
}

start();
