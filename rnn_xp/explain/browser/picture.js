// The product dz.T @ h beside the entry: row i and column j are lit, and the summed axis is named.

function drawPicture() {
  const [K, J] = MATRICES[state.m];
  const pass = currentPass();
  const rows = state.one || (state.m === "w_hy" && !DATA.network.every) ? pass.N : pass.T * pass.N;
  const [d, a] = { w_hh: ["dz", "h_prev"], w_xh: ["dz", "x"], w_hy: ["dpred", "h"] }[state.m];
  const left = state.columns ? d : `${d}.T`, right = state.columns ? `${a}.T` : a;
  const axis = rows === pass.N ? `n = 0 … ${pass.N - 1}` : `t, n: ${pass.T} × ${pass.N} rows`;
  const label = `${names[state.m]} = ${left} @ ${right}: (${K}, ${rows}) @ (${rows}, ${J}) -> (${K}, ${J}). ` +
    `Row ${state.i} times column ${state.j}, summed over ${axis}.`;
  const root = shape("svg", { viewBox: "0 0 440 230", class: "picture", role: "img", "aria-label": label });
  const box = (x, y, width, height) => root.append(shape("rect", { x, y, width, height, class: "array" }));
  const lit = (x, y, width, height) => root.append(shape("rect", { x, y, width, height, class: "lit" }));
  const text = (x, y, words, kind = "") =>
    root.append(shape("text", { x, y, class: kind, "text-anchor": "middle" }, words));
  const row = 100 + (state.i / K) * 74, column = 215 + (state.j / J) * 64;
  box(16, 100, 150, 80);
  lit(16, row, 150, 6);
  box(215, 62, 70, 150);
  lit(column, 62, 6, 150);
  box(340, 100, 70, 80);
  lit(340 + (state.j / J) * 64, row, 6, 6);
  text(190, 145, "@", "sign");
  text(312, 145, "=", "sign");
  text(91, 80, `${left} (${K}, ${rows})`);
  text(250, 50, `${right} (${rows}, ${J})`);
  text(375, 88, `${names[state.m]} (${K}, ${J})`);
  text(91, 200, `row i = ${state.i}`);
  text(250, 227, `column j = ${state.j}`);
  root.append(shape("line", { x1: 16, x2: 166, y1: 91, y2: 91, class: "axis" }));
  root.append(shape("line", { x1: 204, x2: 204, y1: 62, y2: 212, class: "axis" }));
  text(180, 16, `summed over ${axis}`, "summed");
  replace("picture-place", root);
  const indices = rows === pass.N ? "n" : "t, n";
  const [dOne, aOne] = rows === pass.N ? [d, a] : factorNames();
  byId("formula").textContent =
    `${names[state.m]}[${state.i}, ${state.j}] = sum over ${indices} of ` +
    `${dOne}[n, ${state.i}] * ${aOne}[n, ${state.j}] = (${left} @ ${right})[${state.i}, ${state.j}]`;
}
