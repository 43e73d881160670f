// Section 2: the same sum over time, one matrix for each step, and what a cut loses.

function drawTime() {
  const list = currentTerms(), [rows, columns] = MATRICES[state.m], T = steps();
  const sums = [list[1].map(() => 0)];
  for (let t = 1; t <= T; t++) {
    sums.push(t <= state.cut ? sums[0] : list[t].map((value, k) => value + sums[t - 1][k]));
  }
  const most = Math.max(...list.slice(1).map(largest), largest(sums[T]));
  const size = clamp(Math.floor(byId("terms-place").clientWidth / T) - 14, 56, 110);
  const draw = (name, values, t) => {
    const figure = heatMap(name, { values, rows, columns }, {
      max: most, size, marks: [[state.i, state.j]], onpick: (i, j) => update({ i, j, t }),
    });
    const text = `|·| ${number(norm(values), 3)}`;
    figure.querySelector("figcaption").replaceChildren(element("b", {}, name), element("span", { class: "most" }, text));
    figure.classList.toggle("faded", t <= state.cut);
    figure.classList.toggle("current", t === state.t);
    return figure;
  };
  replace("terms-place", ...list.slice(1).map((values, k) => draw(`t = ${k + 1}`, values, k + 1)));
  const first = state.cut + 1;
  const upTo = (t) => (t < first ? "cut" : t === first ? `t = ${t}` : `t = ${first}…${t}`);
  replace("running-place", ...sums.slice(1).map((values, k) => draw(upTo(k + 1), values, k + 1)));
  drawCut(list, T);
}

function drawCut(list, T) {
  const slider = byId("cut");
  slider.max = T - 1;
  slider.value = state.cut;
  const { percent, angle: degrees } = truncation(list, state.cut);
  const kept = state.cut ? `steps ${state.cut + 1} to ${T} only` : `all ${T} steps, nothing cut`;
  byId("cut-value").textContent = kept;
  const loses = Number.isFinite(percent)
    ? `The cut loses ${percent.toFixed(percent < 1 ? 3 : 1)} % of the norm of ${names[state.m]} ` +
      `and turns it by ${degrees.toFixed(degrees < 1 ? 3 : 1)}°.`
    : `${names[state.m]} is zero.`;
  byId("cut-loses").textContent = state.cut ? loses : "Nothing is cut, and nothing is lost.";
}
