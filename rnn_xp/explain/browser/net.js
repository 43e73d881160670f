// The page's own small network: forward, loss, backpropagation through time. No DOM here.
// Arrays are Float64Array in rows: h is (N, H), entry (n, j) at n * H + j. Lists are by time and
// start at 1, so that hs[0] is the state before the first step. Weights are (outputs, inputs).

const zeros = (size) => new Float64Array(size);

// out (N, K) + a (N, J) @ w.T, for w (K, J)
function addForward(out, a, w, N, J, K) {
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < K; k++) {
      let sum = 0;
      for (let j = 0; j < J; j++) sum += a[n * J + j] * w[k * J + j];
      out[n * K + k] += sum;
    }
  }
  return out;
}

// out (N, J) + d (N, K) @ w, for w (K, J)
function addBack(out, d, w, N, K, J) {
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < K; k++) {
      const factor = d[n * K + k];
      for (let j = 0; j < J; j++) out[n * J + j] += factor * w[k * J + j];
    }
  }
  return out;
}

// out (K, J) + d.T @ a: one outer product for each of the N samples, added up
function addSamples(out, d, a, N, K, J) {
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < K; k++) {
      const factor = d[n * K + k];
      for (let j = 0; j < J; j++) out[k * J + j] += factor * a[n * J + j];
    }
  }
  return out;
}

function repeatRow(row, N) {
  const out = zeros(N * row.length);
  for (let n = 0; n < N; n++) out.set(row, n * row.length);
  return out;
}

function transposed(a, rows, columns) {
  const out = zeros(a.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) out[c * rows + r] = a[r * columns + c];
  }
  return out;
}

const norm = (a) => Math.sqrt(a.reduce((sum, value) => sum + value * value, 0));
const activate = { tanh: Math.tanh, relu: (z) => Math.max(z, 0) };
const slope = { tanh: (h) => 1 - h * h, relu: (h) => (h > 0 ? 1 : 0) };

// z_t = x_t @ w_xh.T + h_{t-1} @ w_hh.T + b_h        h_t = f(z_t)
function forward(p, xs, N, h0) {
  const T = xs.length - 1;
  const hs = [h0 || zeros(N * p.H)];
  const zs = [null];
  for (let t = 1; t <= T; t++) {
    const z = repeatRow(p.b_h, N);
    addForward(z, xs[t], p.w_xh, N, p.I, p.H);
    addForward(z, hs[t - 1], p.w_hh, N, p.H, p.H);
    zs.push(z);
    hs.push(z.map(activate[p.activation]));
  }
  return { hs, zs };
}

// Forward, mean squared error and backpropagation. ys[t] is null where step t is not read.
//   dpred_t = 2 * (pred_t - y_t) / (number of targets)
//   dh_t    = dpred_t @ w_hy + dz_{t+1} @ w_hh         own loss + the future
//   dz_t    = dh_t * f'(z_t)
// `mistake` plants an error: "carry", "transpose", "shift" or "twice".
function backprop(p, xs, ys, N, { h0 = null, mistake = "" } = {}) {
  const T = xs.length - 1;
  const { hs, zs } = forward(p, xs, N, h0);
  const preds = [null], dpreds = [null];
  const total = ys.reduce((sum, y) => sum + (y ? y.length : 0), 0);
  let loss = 0;
  for (let t = 1; t <= T; t++) {
    if (!ys[t]) { preds.push(null); dpreds.push(null); continue; }
    const pred = addForward(repeatRow(p.b_y, N), hs[t], p.w_hy, N, p.H, p.O);
    const divisor = mistake === "twice" ? total * N : total;
    pred.forEach((value, k) => { loss += (value - ys[t][k]) ** 2 / total; });
    preds.push(pred);
    dpreds.push(pred.map((value, k) => 2 * (value - ys[t][k]) / divisor));
  }
  const pass = { p, N, T, xs, ys, hs, zs, preds, dpreds, loss, mistake };
  return Object.assign(pass, backThroughTime(pass));
}

function backThroughTime({ p, N, T, hs, dpreds, mistake }) {
  const [own, future, dhs, dzs] = [[null], [null], [null], [null]];
  let carry = zeros(N * p.H);
  const w = mistake === "transpose" ? transposed(p.w_hh, p.H, p.H) : p.w_hh;
  for (let t = T; t >= 1; t--) {
    own[t] = zeros(N * p.H);
    if (dpreds[t]) addBack(own[t], dpreds[t], p.w_hy, N, p.O, p.H);
    future[t] = carry;
    dhs[t] = own[t].map((value, k) => value + carry[k]);
    dzs[t] = dhs[t].map((value, k) => value * slope[p.activation](hs[t][k]));
    carry = zeros(N * p.H);
    if (mistake !== "carry") addBack(carry, dzs[t], w, N, p.H, p.H);
  }
  return { own, future, dhs, dzs, dh0: carry };
}

// The two factors of step t's term of a weight's gradient: term_t = d.T @ a
function factors(pass, name, t) {
  const { p, xs, hs, dzs, dpreds, mistake } = pass;
  if (name === "w_hy") return { d: dpreds[t], a: hs[t], K: p.O, J: p.H };
  if (name === "w_xh") return { d: dzs[t], a: xs[t], K: p.H, J: p.I };
  return { d: dzs[t], a: hs[mistake === "shift" ? t : t - 1], K: p.H, J: p.H };
}

// One matrix for each step, [null, term_1, ..., term_T]; null where the weight is not used
function terms(pass, name) {
  const list = [null];
  for (let t = 1; t <= pass.T; t++) {
    const { d, a, K, J } = factors(pass, name, t);
    list.push(d ? addSamples(zeros(K * J), d, a, pass.N, K, J) : zeros(K * J));
  }
  return list;
}

const WEIGHTS = ["w_xh", "w_hh", "w_hy"];
const BIASES = { b_h: "dzs", b_y: "dpreds" };

function gradients(pass) {
  const grads = {};
  for (const name of WEIGHTS) {
    grads[name] = zeros(pass.p[name].length);
    for (let t = 1; t <= pass.T; t++) {
      const { d, a, K, J } = factors(pass, name, t);
      if (d) addSamples(grads[name], d, a, pass.N, K, J);
    }
  }
  for (const [name, list] of Object.entries(BIASES)) {
    const size = pass.p[name].length;
    grads[name] = zeros(size);
    for (const d of pass[list]) if (d) d.forEach((value, k) => { grads[name][k % size] += value; });
  }
  return grads;
}
