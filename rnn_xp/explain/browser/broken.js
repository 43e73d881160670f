// Section 7: planted mistakes. The loss falls all the same; the check tells.

const DESCENT = { rate: 0.05, updates: 60, rows: 16 };
const TOLERANCE = 1e-12;
const MISTAKES = {
  "": "dh_{t-1} = dz_t @ w_hh        dw_hh = sum_t dz_t.T @ h_{t-1}        dpred = 2 * (pred - y) / N",
  carry: "dh_{t-1} = 0                   nothing comes back: each step for itself",
  transpose: "dh_{t-1} = dz_t @ w_hh.T       the transpose of the forward pass, forgotten",
  shift: "dw_hh = sum_t dz_t.T @ h_t     h_t instead of h_{t-1}",
  twice: "dpred = 2 * (pred - y) / N / N   the mean, taken twice",
};

function brokenRows() {
  const N = Math.min(DESCENT.rows, DATA.rows), stride = Math.floor(DATA.rows / N);
  return { N, xs: inputs(N, { stride }), ys: targets(N, { stride }) };
}

// Gradient descent with a mistake in the gradient, from fresh weights: the loss before each update
function descend(mistake) {
  const { N, xs, ys } = brokenRows();
  let p = INITIAL;
  const losses = [];
  for (let k = 0; k <= DESCENT.updates; k++) {
    const pass = backprop(p, xs, ys, N, { mistake });
    losses.push([k, pass.loss]);
    const grads = gradients(pass), next = { ...p };
    for (const name of Object.keys(grads)) {
      next[name] = p[name].map((value, q) => value - DESCENT.rate * grads[name][q]);
    }
    p = next;
  }
  return losses;
}

// A direction that is the same on every computer, between -1 and 1
function direction(grads) {
  let seed = 1;
  const draw = () => {
    seed = (seed * 16807) % 2147483647;
    return (2 * seed) / 2147483647 - 1;
  };
  return Object.fromEntries(Object.entries(grads).map(([name, grad]) => [name, grad.map(draw)]));
}

// The relative error of the gradient along a direction, by the complex step
function errorOf(mistake) {
  const { N, xs, ys } = brokenRows();
  const grads = gradients(backprop(INITIAL, xs, ys, N, { mistake }));
  const u = direction(grads);
  const products = Object.keys(grads).flatMap((name) => [...grads[name].map((g, k) => g * u[name][k])]);
  const slope = products.reduce((sum, value) => sum + value, 0);
  const size = products.reduce((sum, value) => sum + Math.abs(value), 0);
  return Math.abs(slope - complexStep(INITIAL, u, xs, ys, N)) / size;
}

function drawBroken() {
  const mistake = document.querySelector("input[name=mistake]:checked").value;
  byId("mistake-line").textContent = MISTAKES[mistake];
  const losses = descend(mistake), error = errorOf(mistake);
  lineChart(byId("broken-place"), {
    series: [{ name: "loss", values: losses, kind: "first" }],
    xLabel: "updates", yLabel: "loss (mse)", height: 210,
    label: `Loss over ${DESCENT.updates} updates, from ${number(losses[0][1])} to ${number(losses.at(-1)[1])}`,
  });
  const [first, last] = [losses[0][1], losses.at(-1)[1]];
  byId("broken-loss").textContent =
    `The loss ${last < first ? "falls" : "does not fall"}: ${number(first, 4)} to ${number(last, 4)}.`;
  const good = error <= TOLERANCE;
  byId("broken-check").className = `verdict ${good ? "right" : "wrong"}`;
  byId("broken-check").textContent =
    `${good ? "✓ check passed" : "✗ check FAILED"}: complex step, relative error ` +
    `${error.toExponential(1)}, tolerance ${TOLERANCE}`;
}
