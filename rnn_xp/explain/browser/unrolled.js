// Section 4: the unrolled network. A frame is a step of the forward or of the backward pass.

const frameCount = () => 2 * steps() + 1;

function frameIndex() {
  if (state.pass === "loss") return steps();
  return state.pass === "forward" ? state.t - 1 : 2 * steps() + 1 - state.t;
}

function goToFrame(index) {
  const T = steps(), k = clamp(index, 0, frameCount() - 1);
  if (k < T) update({ pass: "forward", t: k + 1 });
  else if (k === T) update({ pass: "loss", t: T });
  else update({ pass: "backward", t: 2 * T + 1 - k });
}

function drawUnrolled() {
  const pass = currentPass(), at = frameIndex();
  const columns = [];
  for (let t = 1; t <= pass.T; t++) columns.push(stepButton(pass, t, at));
  replace("strip", ...columns);
  byId("frame-slider").max = frameCount() - 1;
  byId("frame-slider").value = at;
  const { title, equations, maps, remark } = frameOfPass(pass);
  byId("frame-value").textContent = `frame ${at + 1} of ${frameCount()}`;
  replace("frame-title", title);
  replace("equations", equations.map(inConvention).join("\n"));
  replace("frame", ...maps.map(([name, array]) => heatMap(name, array, { size: 130 })));
  replace("frame-remark", remark);
}

// A step in the row of steps: h_t above, dh_t below; what is not yet computed is empty.
function stepButton(pass, t, at) {
  const size = { size: 52 }, T = pass.T;
  const array = (values) => ({ values, rows: pass.N, columns: H, samples: true });
  const isForward = at >= t - 1, isBack = at >= 2 * T + 1 - t;
  const map = (name, values, there) => {
    const figure = heatMap(name, array(values), size);
    figure.querySelector("figcaption").replaceChildren(name);
    figure.classList.toggle("empty", !there);
    return figure;
  };
  const go = () => update({ t, pass: state.pass === "backward" ? "backward" : "forward" });
  const pressed = String(t === state.t);
  return element("button", { type: "button", class: "step", onclick: go, "aria-pressed": pressed },
    map(`h_${t}`, pass.hs[t], isForward), map(`dh_${t}`, pass.dhs[t], isBack));
}

function frameOfPass(pass) {
  if (state.pass === "forward") return forwardFrame(pass, state.t);
  return state.pass === "loss" ? lossFrame(pass) : backwardFrame(pass, state.t);
}

const ofSamples = (values, rows, columns) => ({ values, rows, columns, samples: true });

function forwardFrame(pass, t) {
  const { N, p } = pass;
  return {
    title: `forward, step ${t}`,
    equations: [
      [`z_${t} = x_${t} @ w_xh.T + h_${t - 1} @ w_hh.T + b_h`, `z_${t} = w_xh @ x_${t} + w_hh @ h_${t - 1} + b_h`],
      [`h_${t} = ${p.activation}(z_${t})`],
    ],
    maps: [
      [`x_${t}`, ofSamples(pass.xs[t], N, I)],
      [`h_${t - 1}`, ofSamples(pass.hs[t - 1], N, H)],
      ["w_hh", { values: p.w_hh, rows: H, columns: H }],
      [`z_${t}`, ofSamples(pass.zs[t], N, H)],
      [`h_${t}`, ofSamples(pass.hs[t], N, H)],
    ],
    remark: "Samples do not meet: a row of the result depends on the same row of the input. All rows " +
      "and all steps use the same weights.",
  };
}

function lossFrame(pass) {
  const { N, T, p } = pass, y = `y${pass.ys[1] ? `_${T}` : ""}`;
  const count = pass.ys.filter(Boolean).length > 1 ? "(N * T * O)" : "(N * O)";
  return {
    title: `the loss, ${number(pass.loss, 8)}`,
    equations: [
      [`pred_${T} = h_${T} @ w_hy.T + b_y`, `pred_${T} = w_hy @ h_${T} + b_y`],
      [`loss = sum((pred - y)**2) / ${count}`],
      [`dpred_${T} = 2 * (pred_${T} - ${y}) / ${count}`],
    ],
    maps: [
      [`h_${T}`, ofSamples(pass.hs[T], N, H)],
      ["w_hy", { values: p.w_hy, rows: O, columns: H }],
      [`pred_${T}`, ofSamples(pass.preds[T], N, O)],
      [y, ofSamples(pass.ys[T], N, O)],
      [`dpred_${T}`, ofSamples(pass.dpreds[T], N, O)],
    ],
    remark: "The mean divides once, here. The factor travels along, and no later line divides again.",
  };
}

function backwardFrame(pass, t) {
  const { N, T } = pass, own = Boolean(pass.dpreds[t]), after = t < T;
  const rows = [own && `dpred_${t} @ w_hy`, after && `dz_${t + 1} @ w_hh`].filter(Boolean);
  const turned = [own && `w_hy.T @ dpred_${t}`, after && `w_hh.T @ dz_${t + 1}`].filter(Boolean);
  const f = pass.p.activation === "tanh" ? `(1 - h_${t}**2)` : `(h_${t} > 0)`;
  const term = terms(pass, "w_hh")[t];
  return {
    title: `backward, step ${t}`,
    equations: [
      [`dh_${t} = ${rows.join(" + ")}`, `dh_${t} = ${turned.join(" + ")}`],
      [`dz_${t} = dh_${t} * ${f}`],
      [`dw_hh += dz_${t}.T @ h_${t - 1}`, `dw_hh += dz_${t} @ h_${t - 1}.T`],
    ],
    maps: [
      [`dh_${t}`, ofSamples(pass.dhs[t], N, H)],
      [`dz_${t}`, ofSamples(pass.dzs[t], N, H)],
      [`h_${t - 1}`, ofSamples(pass.hs[t - 1], N, H)],
      [`term ${t} of dw_hh`, { values: term, rows: H, columns: H }],
    ],
    remark: remarkOnTerm(T, t),
  };
}

function remarkOnTerm(T, t) {
  if (T !== 2) return "The batch axis is contracted: each term of dw_hh is a sum over all samples.";
  return t === 2
    ? "The second term, dz_2.T @ h_1, arises at step 2, where w_hh multiplied h_1."
    : "The first term, dz_1.T @ h_0, arises at step 1, where w_hh multiplied h_0; it has come back " +
      "through dz_2 @ w_hh. Who takes h_1 for a constant loses it.";
}

// The equation with samples in rows or, if it differs, in columns
const inConvention = ([rows, columns = rows]) => (state.columns ? columns : rows);

// The frame as a picture of its own
const TOP = 200; // of its arrays, below the equations
function frameAsPicture() {
  const { title, equations } = frameOfPass(currentPass());
  const canvas = element("canvas"), style = getComputedStyle(document.body);
  const plates = [...document.querySelectorAll("#frame figure")];
  [canvas.width, canvas.height] = [60 + 290 * plates.length, TOP + 310];
  const pen = canvas.getContext("2d");
  pen.fillStyle = style.backgroundColor;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = style.color;
  pen.font = "bold 26px sans-serif";
  pen.fillText(title, 30, 44);
  pen.font = "20px monospace";
  equations.map(inConvention).forEach((line, k) => pen.fillText(line, 30, 82 + 28 * k));
  pen.imageSmoothingEnabled = false;
  plates.forEach((figure, k) => {
    const plate = figure.querySelector(".plate"), x = 30 + 290 * k;
    const wide = 2 * parseFloat(plate.style.width), high = 2 * parseFloat(plate.style.height);
    pen.drawImage(figure.querySelector("canvas"), x, TOP, wide, high);
    pen.strokeStyle = style.color;
    pen.strokeRect(x, TOP, wide, high);
    pen.font = "18px monospace";
    const [name, size] = ["b", ".shape"].map((part) => figure.querySelector(part).textContent);
    pen.fillText(name, x, TOP - 10);
    pen.font = "15px monospace";
    pen.fillText(size, x, TOP + high + 22, 270);
  });
  return canvas;
}

function savePicture() {
  const name = `bptt-${state.pass}-t${state.t}.png`;
  element("a", { href: frameAsPicture().toDataURL("image/png"), download: name }).click();
}
