// Section 1: one entry of a gradient, multiplied out.

const MOST_PRODUCTS = 400; // in a table; of more, the largest

function drawEntry() {
  drawMatrix();
  drawPicture();
  const pass = currentPass();
  const list = products(pass, state.m, state.i, state.j, state.one ? state.t : 0);
  for (const [id, value] of [["i", state.i], ["j", state.j]]) byId(id).value = value;
  const [rows, columns] = MATRICES[state.m];
  byId("i").max = rows - 1;
  byId("j").max = columns - 1;
  byId("one").checked = Boolean(state.one);
  byId("one-label").textContent = `only step t = ${state.t}`;
  if (list.length === 0) {
    const text = `Step ${state.t} is not read, so ${names[state.m]} has no term there.`;
    replace("products", element("p", {}, text));
  } else if (list.length <= MOST_PRODUCTS) replace("products", tableOf(list, "Every product"));
  else drawMany(list);
  drawSum(pass, list);
}

function drawMatrix() {
  const [rows, columns] = MATRICES[state.m];
  const values = library()[state.m];
  const figure = heatMap(names[state.m], { values, rows, columns }, {
    size: 300, marks: [[state.i, state.j]], onpick: (i, j) => update({ i, j }),
  });
  const label = `Gradient ${names[state.m]}, ${rows} by ${columns}: arrow keys choose an entry`;
  const plate = figure.querySelector(".plate");
  plate.classList.add("pickable");
  const old = document.activeElement?.id === "matrix";
  for (const [key, value] of [["id", "matrix"], ["tabindex", 0], ["role", "application"], ["aria-label", label]]) {
    plate.setAttribute(key, value);
  }
  plate.addEventListener("keydown", moveEntry);
  replace("matrix-place", figure);
  if (old) plate.focus({ preventScroll: true });
}

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function moveEntry(event) {
  const move = MOVES[event.key];
  if (!move || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  event.stopPropagation();
  update({ i: Math.max(state.i + move[0], 0), j: Math.max(state.j + move[1], 0) });
}

function factorNames() {
  return { w_hh: ["dz_t", "h_{t-1}"], w_xh: ["dz_t", "x_t"], w_hy: ["dpred_t", "h_t"] }[state.m];
}

function tableOf(list, title, withSums = true) {
  const [d, a] = factorNames();
  const heads = ["t", "n", `${d}[n, ${state.i}]`, `${a}[n, ${state.j}]`, "product"];
  if (withSums) heads.push("running sum");
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = list.map(({ t, n, left, right, product, sum }) => {
    const numbers = [left, right, product].map((value) => number(value));
    const cells = [t, n, ...numbers, ...(withSums ? [number(sum, 10)] : [])];
    return element("tr", {}, ...cells.map((text) => element("td", {}, String(text))));
  });
  const caption = element("caption", {}, `${title} (${list.length})`);
  const parts = [element("thead", {}, head), element("tbody", {}, ...body)];
  const table = element("table", {}, caption, ...parts);
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, table);
}

function drawMany(list) {
  const sorted = [...list].sort((a, b) => Math.abs(b.product) - Math.abs(a.product)).slice(0, 10);
  const shown = sorted.reduce((sum, { product }) => sum + product, 0);
  const rest = list.at(-1).sum - shown;
  const count = (list.length - sorted.length).toLocaleString("en");
  const others = element("p", {}, `The other ${count} products add up to ${number(rest, 10)}.`);
  const place = element("div", { class: "chart" });
  replace("products", tableOf(sorted, "The largest products", false), others, place);
  const bins = histogram(list.map(({ product }) => product), 31);
  const groups = bins.map(({ from, to, count }) => ({ x: number((from + to) / 2, 2), bars: [count] }));
  barChart(place, {
    groups, kinds: [{ name: "products", kind: "first" }], height: 190,
    xLabel: "value of the product", yLabel: "products",
    label: `Histogram of ${list.length} products from ${number(bins[0].from)} to ${number(bins.at(-1).to)}`,
  });
}

function drawSum(pass, list) {
  const sum = list.length ? list.at(-1).sum : 0;
  const index = state.i * MATRICES[state.m][1] + state.j;
  const count = list.length.toLocaleString("en");
  const line = (id, label, value) =>
    [element("dt", {}, label), element("dd", { id }, number(value, 10))];
  const lines = line("sum", `sum of the ${count} products`, sum);
  if (state.one) {
    lines.push(...line("term", `step ${state.t}'s term of ${entryName()}`, currentTerms()[state.t][index]));
  } else {
    const value = library()[state.m][index];
    lines.push(...line("library", `${entryName()} by the library`, value));
    lines.push(element("dt", {}, "they agree in"), element("dd", {}, `${digits(sum, value)} digits`));
  }
  replace("sums", ...lines);
}
