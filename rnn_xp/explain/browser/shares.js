// Section 5: dh_t has two parts, the loss at t itself and what comes back through h_{t+1}.

const canReadAll = I === O && !DATA.linear;

// Targets at every step for a network that is read once: the next input
function everyTarget(pass) {
  const ys = [null];
  for (let t = 1; t < pass.T; t++) ys.push(pass.xs[t + 1]);
  return [...ys, pass.ys[pass.T]];
}

function sharesPass() {
  const pass = currentPass();
  if (!byId("every").checked || DATA.network.every || !canReadAll) return pass;
  pass.every ||= backprop(pass.p, pass.xs, everyTarget(pass), pass.N, { h0: pass.hs[0] });
  return pass.every;
}

function drawShares() {
  byId("every-choice").hidden = DATA.network.every || !canReadAll;
  const pass = sharesPass(), groups = [];
  for (let t = 1; t <= pass.T; t++) {
    groups.push({ x: t, bars: [norm(pass.own[t]), norm(pass.future[t])] });
  }
  const [own, future] = groups[state.t - 1].bars;
  barChart(byId("shares-place"), {
    groups, marked: state.t, xLabel: "step t", yLabel: "norm",
    kinds: [
      { name: "own loss: |dpred_t @ w_hy|", kind: "first" },
      { name: "the future: |dz_{t+1} @ w_hh|", kind: "second" },
    ],
    label: `Own loss and future of dh_t at each of ${pass.T} steps`,
  });
  byId("shares-text").textContent =
    `At t = ${state.t}: own loss ${number(own)}, future ${number(future)}, together ` +
    `|dh_${state.t}| = ${number(norm(pass.dhs[state.t]))}. The arrays add up; their norms need not.`;
}
