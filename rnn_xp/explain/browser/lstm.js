// An LSTM beside the plain network, for the gradient flow only. Gates in the order i, f, g, o.
//   c_t = f * c_{t-1} + i * g        h_t = o * tanh(c_t)

const sigmoid = (v) => 1 / (1 + Math.exp(-v));

function stepLSTM(p, x, h, c, N) {
  const { I, H } = p, gates = repeatRow(p.b_h, N);
  addForward(gates, x, p.w_xh, N, I, 4 * H);
  addForward(gates, h, p.w_hh, N, H, 4 * H);
  const next = { gates, c, cNew: zeros(N * H), h: zeros(N * H) };
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < H; k++) {
      const at = n * 4 * H + k, s = n * H + k;
      for (const gate of [0, 1, 3]) gates[at + gate * H] = sigmoid(gates[at + gate * H]);
      gates[at + 2 * H] = Math.tanh(gates[at + 2 * H]);
      next.cNew[s] = gates[at + H] * c[s] + gates[at] * gates[at + 2 * H];
      next.h[s] = gates[at + 3 * H] * Math.tanh(next.cNew[s]);
    }
  }
  return next;
}

// dh, dc after the step -> dh, dc before it
function stepBackLSTM(p, step, dh, dc, N) {
  const { H } = p, dz = zeros(N * 4 * H), dcBefore = zeros(N * H);
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < H; k++) {
      const at = n * 4 * H + k, s = n * H + k;
      const [i, f, g, o] = [0, 1, 2, 3].map((gate) => step.gates[at + gate * H]);
      const c = Math.tanh(step.cNew[s]);
      const d = dc[s] + dh[s] * o * (1 - c * c);
      dz[at] = d * g * i * (1 - i);
      dz[at + H] = d * step.c[s] * f * (1 - f);
      dz[at + 2 * H] = d * i * (1 - g * g);
      dz[at + 3 * H] = dh[s] * c * o * (1 - o);
      dcBefore[s] = d * f;
    }
  }
  return { dh: addBack(zeros(N * H), dz, p.w_hh, N, 4 * H, H), dc: dcBefore };
}

// dL/dh_t of every step, many-to-one, mean squared error
function flowLSTM(p, xs, y, N) {
  const T = xs.length - 1, steps = [null];
  let h = zeros(N * p.H), c = zeros(N * p.H);
  for (let t = 1; t <= T; t++) {
    steps.push(stepLSTM(p, xs[t], h, c, N));
    h = steps[t].h;
    c = steps[t].cNew;
  }
  const pred = addForward(repeatRow(p.b_y, N), h, p.w_hy, N, p.H, p.O);
  const dpred = pred.map((value, k) => 2 * (value - y[k]) / y.length);
  const dhs = [null];
  let back = { dh: addBack(zeros(N * p.H), dpred, p.w_hy, N, p.O, p.H), dc: zeros(N * p.H) };
  for (let t = T; t >= 1; t--) {
    dhs[t] = back.dh;
    back = stepBackLSTM(p, steps[t], back.dh, back.dc, N);
  }
  return dhs;
}
