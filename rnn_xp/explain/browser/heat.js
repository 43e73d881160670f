// Elements, and arrays as small heat maps: blue is negative, orange positive, and the paper zero.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null) node.setAttribute(key, value);
  }
  node.append(...children); // strings become text, never markup
  return node;
}

const byId = (id) => document.getElementById(id);
const replace = (id, ...children) => byId(id).replaceChildren(...children);

const COLOURS = {
  light: { zero: [246, 246, 244], negative: [20, 90, 170], positive: [196, 88, 0] },
  dark: { zero: [38, 40, 46], negative: [110, 180, 255], positive: [255, 165, 70] },
};

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function paint(canvas, values, rows, columns, max) {
  canvas.width = columns;
  canvas.height = rows;
  const { zero, negative, positive } = COLOURS[isDark() ? "dark" : "light"];
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let k = 0; k < rows * columns; k++) {
    const end = values[k] < 0 ? negative : positive;
    const share = max > 0 ? Math.min(Math.abs(values[k]) / max, 1) : 0;
    for (let c = 0; c < 3; c++) image.data[4 * k + c] = zero[c] + share * (end[c] - zero[c]);
    image.data[4 * k + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const MOST_ROWS = 32; // of samples that are drawn

// An array as it is drawn: its first rows only, and turned where samples are columns.
function asShown({ values, rows, columns, samples = false }) {
  const kept = samples ? Math.min(rows, MOST_ROWS) : rows;
  const some = kept < rows ? `, first ${kept} drawn` : "";
  const part = kept < rows ? values.subarray(0, kept * columns) : values;
  if (!samples || !state.columns) {
    return { values: part, rows: kept, columns, shape: `(${rows}, ${columns})${some}` };
  }
  const turned = transposed(part, kept, columns);
  return { values: turned, rows: columns, columns: kept, shape: `(${columns}, ${rows})${some}` };
}

// A heat map with its name, shape and largest value; the value under the pointer is told.
function heatMap(name, array, { max = null, size = 110, marks = [], onpick = null } = {}) {
  const shown = asShown(array);
  const most = max === null ? largest(array.values) : max;
  const canvas = element("canvas", { "aria-hidden": "true" });
  paint(canvas, shown.values, shown.rows, shown.columns, most);
  const plate = element("div", { class: "plate" }, canvas);
  const cell = size / Math.max(shown.rows, shown.columns);
  const least = Math.min(0.3 * size, 40); // so that a flat array can be seen
  plate.style.width = `${Math.max(cell * shown.columns, least)}px`;
  plate.style.height = `${Math.max(cell * shown.rows, least)}px`;
  for (const [row, column] of marks) plate.append(mark(row, column, shown));
  const where = (event) => {
    const box = plate.getBoundingClientRect();
    const inside = (share, count) => clamp(Math.floor(share * count), 0, count - 1);
    return [
      inside((event.clientY - box.top) / box.height, shown.rows),
      inside((event.clientX - box.left) / box.width, shown.columns),
    ];
  };
  plate.addEventListener("mousemove", (event) => {
    const [row, column] = where(event);
    tell(`${name}[${row}, ${column}] = ${number(shown.values[row * shown.columns + column], 8)}`);
  });
  plate.addEventListener("mouseleave", () => tell(""));
  if (onpick) plate.addEventListener("click", (event) => onpick(...where(event)));
  const size_ = element("span", { class: "shape" }, shown.shape);
  const caption = element("figcaption", {}, element("b", {}, name), " ", size_);
  caption.append(element("span", { class: "most" }, `max |·| ${number(most, 3)}`));
  return element("figure", { class: "heat" }, plate, caption);
}

function mark(row, column, { rows, columns }) {
  const span = element("span", { class: "mark" });
  span.style.left = `${(100 * column) / columns}%`;
  span.style.top = `${(100 * row) / rows}%`;
  span.style.width = `${100 / columns}%`;
  span.style.height = `${100 / rows}%`;
  return span;
}

function tell(text) {
  byId("hover").textContent = text;
}
