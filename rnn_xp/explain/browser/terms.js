// The single products whose sum is an entry of a gradient. No DOM here.

// Every product d_t[n, i] * a_t[n, j], by time and then by sample; `only` selects one step.
function products(pass, name, i, j, only = 0) {
  const list = [];
  let sum = 0;
  for (let t = only || 1; t <= (only || pass.T); t++) {
    const { d, a, K, J } = factors(pass, name, t);
    if (!d) continue;
    for (let n = 0; n < pass.N; n++) {
      const left = d[n * K + i], right = a[n * J + j];
      sum += left * right;
      list.push({ t, n, left, right, product: left * right, sum });
    }
  }
  return list;
}

function histogram(values, bins) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const width = (high - low) / bins || 1;
  const counts = new Array(bins).fill(0);
  for (const value of values) counts[clamp(Math.floor((value - low) / width), 0, bins - 1)] += 1;
  return counts.map((count, k) => ({ from: low + k * width, to: low + (k + 1) * width, count }));
}

const angle = (a, b) => {
  const along = a.reduce((sum, value, k) => sum + value * b[k], 0) / (norm(a) * norm(b));
  return (Math.acos(clamp(along, -1, 1)) * 180) / Math.PI;
};

// What truncated backpropagation loses, if it leaves out the terms of the first `cut` steps
function truncation(list, cut) {
  const add = (part) => part.reduce((sum, term) => sum.map((value, k) => value + term[k]));
  const none = list[1].map(() => 0);
  const full = add(list.slice(1)), lost = add([none, ...list.slice(1, cut + 1)]);
  const kept = full.map((value, k) => value - lost[k]);
  return { percent: (100 * norm(lost)) / norm(full), angle: cut ? angle(kept, full) : 0 };
}
