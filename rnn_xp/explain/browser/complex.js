// The complex step: the definition of the derivative, without subtraction. It runs the network
// forward with complex numbers and knows nothing of backpropagation. A complex array is [re, im].

const STEP = 1e-30;

// out + a @ w.T for complex out (N, K), a (N, J), w (K, J)
function addComplex(out, a, w, N, J, K) {
  const [ar, ai] = a, [wr, wi] = w;
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < K; k++) {
      let re = 0, im = 0;
      for (let j = 0; j < J; j++) {
        const s = n * J + j, q = k * J + j;
        re += ar[s] * wr[q] - ai[s] * wi[q];
        im += ar[s] * wi[q] + ai[s] * wr[q];
      }
      out[0][n * K + k] += re;
      out[1][n * K + k] += im;
    }
  }
  return out;
}

// tanh(a + ib) = (tanh a + i tan b) / (1 + i tanh a tan b); relu by the sign of the real part
function activateComplex([re, im], activation) {
  for (let k = 0; k < re.length; k++) {
    if (activation === "relu") {
      if (re[k] <= 0) re[k] = im[k] = 0;
      continue;
    }
    const t = Math.tanh(re[k]), u = Math.tan(im[k]), divisor = 1 + t * t * u * u;
    re[k] = (t + t * u * u) / divisor;
    im[k] = (u - t * t * u) / divisor;
  }
}

// d loss(params + s * direction) / ds at s = 0; `direction` holds arrays by parameter name
function complexStep(p, direction, xs, ys, N, h0 = null) {
  const at = {};
  for (const name of [...WEIGHTS, ...Object.keys(BIASES)]) {
    const u = direction[name];
    at[name] = [p[name], u ? u.map((value) => STEP * value) : zeros(p[name].length)];
  }
  const both = (row) => row.map((part) => repeatRow(part, N));
  const real = (a) => [a, zeros(a.length)];
  const total = ys.reduce((sum, y) => sum + (y ? y.length : 0), 0);
  let h = real(h0 || zeros(N * p.H)), imaginary = 0;
  for (let t = 1; t < xs.length; t++) {
    const z = both(at.b_h);
    addComplex(z, real(xs[t]), at.w_xh, N, p.I, p.H);
    addComplex(z, h, at.w_hh, N, p.H, p.H);
    activateComplex(z, p.activation);
    h = z;
    if (!ys[t]) continue;
    const [re, im] = addComplex(both(at.b_y), h, at.w_hy, N, p.H, p.O);
    ys[t].forEach((y, k) => { imaginary += 2 * (re[k] - y) * im[k] / total; });
  }
  return imaginary / STEP;
}

function complexEntry(p, name, index, xs, ys, N, h0 = null) {
  const one = zeros(p[name].length);
  one[index] = 1;
  return complexStep(p, { [name]: one }, xs, ys, N, h0);
}
