// Section 6: the gradient on its way back, for a scaled w_hh; computed here, by the page's network.

const FLOW_STEPS = 30;

// Rows that are longer than the windows, if there is a series to take them from
function flowRows() {
  const available = DATA.series ? DATA.series.length / I : 0;
  const T = available >= FLOW_STEPS + 8 && O === 1 ? Math.max(FLOW_STEPS, STEPS) : STEPS;
  if (T === STEPS) {
    const N = Math.min(32, DATA.rows), stride = Math.floor(DATA.rows / N);
    return { N, xs: inputs(N, { stride }), y: targets(N, { stride }).at(-1) };
  }
  const N = Math.min(32, available - T), stride = Math.floor((available - T) / N);
  const next = fromSeries(T, N, stride);
  return { N, xs: inputs(N, { T, stride }), y: Float64Array.from({ length: N }, (_, n) => next[n * I]) };
}

const scaled = (p, s) => ({ ...p, w_hh: p.w_hh.map((value) => s * value) });

// |dL/dh_t|, relative to the last step's, for both networks, and the bound
function flowOf(s) {
  const { N, xs, y } = flowRows(), T = xs.length - 1;
  const ys = [...new Array(T).fill(null), y];
  const rnn = backprop(scaled(PARAMS, s), xs, ys, N).dhs;
  const lstm = flowLSTM(scaled({ ...DATA.lstm, I, O }, s), xs, y, N);
  const relative = (dhs) => dhs.map((dh, t) => (t ? [t, norm(dh) / norm(dhs[T])] : null)).slice(1);
  const factor = s * DATA.largest_singular_value;
  const bound = Array.from({ length: T }, (_, k) => [k + 1, factor ** (T - k - 1)]);
  return { rnn: relative(rnn), lstm: relative(lstm), bound, factor, T, N };
}

function drawFlow() {
  const s = Number(byId("scale").value);
  const { rnn, lstm, bound, factor, T, N } = flowOf(s);
  byId("scale-value").textContent = `${s.toFixed(2)} * w_hh`;
  lineChart(byId("flow-place"), {
    series: [
      { name: "this network", values: rnn, kind: "first" },
      { name: `LSTM, ${DATA.lstm.H} hidden units`, values: lstm, kind: "second" },
      { name: "bound: s**(T - t)", values: bound, kind: "dashed" },
    ],
    log: true, xLabel: "step t", yLabel: "|dh_t| / |dh_T|",
    label: `Norm of dh_t relative to the last step, for w_hh times ${s}`,
  });
  const change = rnn[0][1];
  const kind = change <= 0.1 ? "vanish" : change >= 10 ? "explode" : "stay within a factor of ten";
  byId("flow-text").textContent =
    `Gradients ${kind}: from step ${T} back to 1, |dh_t| is multiplied by ${number(change, 3)}, in the ` +
    `LSTM by ${number(lstm[0][1], 3)}. The largest singular value of w_hh is s = ${number(factor, 4)}; ` +
    `no step can grow the gradient more. ${N} windows of ${T} steps.`;
}
