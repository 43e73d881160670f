// Lines and bars as SVG, drawn in the pixels of their place so that text keeps its size.

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const MARGIN = { left: 64, right: 12, top: 14, bottom: 42 };

function frameOf(place, label, height) {
  const width = Math.max(place.clientWidth, 260);
  const root = shape("svg", { width, height, role: "img", "aria-label": label });
  place.replaceChildren(root);
  return { root, width, height };
}

// Round values between two ends, for an axis
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const list = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) {
    list.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  }
  return list;
}

function logTicks(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const every = Math.max(1, Math.ceil((last - first) / 6));
  const list = [];
  for (let power = first; power <= last; power += every) list.push(10 ** power);
  return list.filter((value) => value >= low * 0.999 && value <= high * 1.001);
}

const powerOfTen = (v) => (v >= 0.01 && v <= 1000 ? String(Number(v.toPrecision(1))) : v.toExponential(0));

function axes(root, { width, height }, { x, y, xTicks, yTicks, xLabel, yLabel, log }) {
  const right = width - MARGIN.right, bottom = height - MARGIN.bottom;
  for (const value of yTicks) {
    root.append(shape("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(value), y2: y(value) }));
    const text = log ? powerOfTen(value) : String(Number(value.toPrecision(3)));
    root.append(shape("text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  for (const value of xTicks) {
    root.append(shape("text", { x: x(value), y: bottom + 16, "text-anchor": "middle" }, String(value)));
  }
  const middle = (MARGIN.left + right) / 2, half = (MARGIN.top + bottom) / 2;
  root.append(shape("text", { x: middle, y: height - 6, "text-anchor": "middle" }, xLabel));
  const turned = `rotate(-90 12 ${half})`;
  root.append(shape("text", { x: 12, y: half, "text-anchor": "middle", transform: turned }, yLabel));
}

// series: [{ name, values: [[x, y], ...], kind }], where kind is a class of the style sheet
function lineChart(place, { series, xLabel, yLabel, label, log = false, height = 250 }) {
  const frame = frameOf(place, label, height), { root, width } = frame;
  const points = series.flatMap(({ values }) => values).filter(([, y]) => !log || y > 0);
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  let [low, high] = [Math.min(...ys), Math.max(...ys)];
  if (low === high) [low, high] = log ? [low / 10, high * 10] : [low - 1, high + 1];
  const on = log ? Math.log10 : (value) => value;
  const x = (v) => MARGIN.left + ((v - left) / (right - left || 1)) * (width - MARGIN.left - MARGIN.right);
  const span = height - MARGIN.top - MARGIN.bottom;
  const y = (v) => height - MARGIN.bottom - ((on(v) - on(low)) / (on(high) - on(low))) * span;
  const xTicks = ticks(left, right, Math.min(10, width / 60)).filter(Number.isInteger);
  const yTicks = log ? logTicks(low, high) : ticks(low, high, 6);
  axes(root, frame, { x, y, xTicks, yTicks, xLabel, yLabel, log });
  for (const { values, kind } of series) {
    const drawn = values.filter(([, v]) => !log || v > 0);
    const path = drawn.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");
    root.append(shape("polyline", { points: path, class: `line ${kind}` }));
  }
  place.append(legend(series));
}

// groups: [{ x, bars: [y, ...] }]; kinds: [{ name, kind }] of the bars in a group
function barChart(place, { groups, kinds, xLabel, yLabel, label, height = 230, marked = null }) {
  const frame = frameOf(place, label, height), { root, width } = frame;
  const high = 1.05 * Math.max(...groups.flatMap(({ bars }) => bars)) || 1;
  const step = (width - MARGIN.left - MARGIN.right) / groups.length;
  const centre = new Map(groups.map((group, k) => [group.x, MARGIN.left + (k + 0.5) * step]));
  const span = height - MARGIN.top - MARGIN.bottom;
  const y = (value) => height - MARGIN.bottom - (value / high) * span;
  const every = Math.ceil(groups.length / (width / 60));
  const xTicks = groups.filter((_, k) => k % every === 0).map((group) => group.x);
  axes(root, frame, { x: (v) => centre.get(v), y, xTicks, yTicks: ticks(0, high, 6), xLabel, yLabel });
  const wide = Math.max((0.8 * step) / kinds.length, 1);
  for (const { x, bars } of groups) {
    if (x === marked) {
      const box = { x: centre.get(x) - step / 2, y: MARGIN.top, width: step, height: span };
      root.prepend(shape("rect", { ...box, class: "here" }));
    }
    bars.forEach((value, k) => {
      const at = centre.get(x) + (k - kinds.length / 2) * wide;
      const box = { x: at, y: y(value), width: wide, height: Math.max(y(0) - y(value), 0) };
      const title = shape("title", {}, `${kinds[k].name}, ${xLabel} ${x}: ${number(value)}`);
      root.append(shape("rect", { ...box, class: `bar ${kinds[k].kind}` }, title));
    });
  }
  if (kinds.length > 1) place.append(legend(kinds));
}

function legend(series) {
  const items = series.map(({ name, kind }) =>
    element("span", {}, element("i", { class: `key ${kind}`, "aria-hidden": "true" }), name));
  return element("p", { class: "legend" }, ...items);
}
