// Section 3: the entry by backpropagation and by the complex step, with common digits marked.

const MOST_COMPLEX_ROWS = 64; // beyond these, only on request: it takes a second or two
const asked = new Set();

function drawRight() {
  const pass = currentPass(), key = `${entryName()} ${state.n} ${state.short}`;
  const index = state.i * MATRICES[state.m][1] + state.j;
  const list = products(pass, state.m, state.i, state.j);
  const byBPTT = list.at(-1).sum;
  if (pass.N > MOST_COMPLEX_ROWS && !asked.has(key)) {
    const start = () => { asked.add(key); drawRight(); };
    const words = `Run the network forward with complex numbers, on ${pass.N} rows`;
    replace("right-place", element("button", { id: "complex", type: "button", onclick: start }, words));
    return;
  }
  pass.complex ||= new Map();
  if (!pass.complex.has(key)) {
    pass.complex.set(key, complexEntry(pass.p, state.m, index, pass.xs, pass.ys, pass.N, pass.hs[0]));
  }
  const byStep = pass.complex.get(key);
  const agree = digits(byBPTT, byStep);
  const verdict = agree >= 10 || Math.abs(byBPTT - byStep) < 1e-15 ? "right" : "wrong";
  const row = (label, id, value) => element("tr", {},
    element("th", { scope: "row" }, label), element("td", { id }, ...withMarks(value, byBPTT, byStep)));
  replace("right-place",
    element("table", { class: "digits" },
      row("backpropagation through time", "by-bptt", byBPTT),
      row("complex step, imag(f(w + 1e-30i)) / 1e-30", "by-step", byStep)),
    element("p", { class: `verdict ${verdict}`, id: "right-verdict" },
      `${entryName()}: ${agree} digits agree. The gradient is ${verdict}.`));
}

// A number as text in which the digits that both numbers begin with are marked
function withMarks(value, a, b) {
  const [text, first, second] = [value, a, b].map((x) => x.toExponential(16));
  let same = 0;
  while (same < first.length && first[same] === second[same]) same += 1;
  const end = text.indexOf("e");
  const common = first.slice(first.indexOf("e")) === second.slice(second.indexOf("e")) ? same : 0;
  const cut = Math.min(common, end);
  return [element("mark", {}, text.slice(0, cut)), text.slice(cut)];
}
