// EpochStepper: one slider over the saved epochs of several runs, their samples and their curves.

const CURVE = { height: 170, left: 56, right: 12, top: 10, bottom: 22 };
const WIDE = 8; // a curve whose largest value is so many times its smallest is drawn on a logarithmic scale

const HELP =
  "Left and right arrow keys: one epoch back or forward; Home and End: the first and the last; space: play. " +
  "Click a curve to go to an epoch. The dots have the runs' colours.";

function nearestSaved(epochs, epoch) {
  return epochs.filter((saved) => saved <= epoch).at(-1) ?? epochs[0];
}

function drawCurve(svg, curve, epoch, goTo) {
  const width = svg.clientWidth || 640;
  svg.setAttribute("viewBox", `0 0 ${width} ${CURVE.height}`);
  svg.setAttribute("aria-label", `${curve.name} over the epochs`);
  svg.replaceChildren();
  const points = curve.series.flatMap((series) => series.points);
  const epochs = points.map((point) => point[0]);
  const values = points.map((point) => point[1]);
  const [firstEpoch, lastEpoch] = [Math.min(0, ...epochs), Math.max(1, ...epochs)];
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const logarithmic = least > 0 && most / least > WIDE;
  const [scale, back] = logarithmic ? [Math.log, Math.exp] : [Number, Number];
  const [low, high] = [scale(least), scale(most)];
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  const across = (width - CURVE.left - CURVE.right) / (lastEpoch - firstEpoch);
  const down = (CURVE.height - CURVE.top - CURVE.bottom) / (high - low + 2 * margin);
  const x = (epoch) => CURVE.left + (epoch - firstEpoch) * across;
  const y = (value) => CURVE.top + (high + margin - scale(value)) * down;

  const say = (text, attributes) => {
    const label = drawing("text", attributes);
    label.textContent = text;
    svg.append(label);
  };
  const ruled = new Set([least, back((low + high) / 2), most]);
  for (const value of ruled) {
    const line = { x1: CURVE.left, x2: width - CURVE.right, y1: y(value), y2: y(value), class: "t2r-rule" };
    svg.append(drawing("line", line));
    say(Number(value.toPrecision(3)), { x: CURVE.left - 6, y: y(value) + 4, "text-anchor": "end" });
  }
  if (logarithmic) say("logarithmic scale", { x: width / 2, y: CURVE.height - 5, "text-anchor": "middle" });
  say(firstEpoch, { x: x(firstEpoch), y: CURVE.height - 5, "text-anchor": "middle" });
  say(`epoch ${lastEpoch}`, { x: x(lastEpoch), y: CURVE.height - 5, "text-anchor": "end" });

  for (const series of curve.series) {
    const path = series.points.map(([epoch, value]) => `${x(epoch)},${y(value)}`).join(" ");
    svg.append(drawing("polyline", { points: path, stroke: series.colour, class: "t2r-line" }));
    for (const [epoch, value] of series.points.length < 40 ? series.points : []) {
      svg.append(drawing("circle", { cx: x(epoch), cy: y(value), r: 2.5, fill: series.colour }));
    }
  }
  const at = x(epoch);
  svg.append(drawing("line", { x1: at, x2: at, y1: CURVE.top, y2: CURVE.height - CURVE.bottom, class: "t2r-cursor" }));
  svg.onclick = (event) => {
    const place = event.clientX - svg.getBoundingClientRect().left;
    goTo(firstEpoch + (place - CURVE.left) / across);
  };
}

// The last value that a curve has up to an epoch
function valueAt(points, epoch) {
  const value = points.filter((point) => point[0] <= epoch).at(-1)?.[1];
  return value === undefined ? "–" : Number(value.toPrecision(3));
}

// One of the curves whose name stands in `trait`, a list to choose it from, and its values at the epoch
function chart(model, trait, title, goTo) {
  const choice = element("select", {
    "aria-label": `Curve of a ${trait}`,
    onchange: () => model.save({ [trait]: choice.value }),
  });
  const svg = drawing("svg", { height: CURVE.height, class: "t2r-curves", role: "img" });
  const values = element("div", { class: "t2r-legend" });
  const node = element(
    "div",
    {},
    element("div", { class: "t2r-bar" }, element("label", {}, title, choice)),
    values,
    svg,
  );
  const draw = () => {
    const own = model.get("curves").filter((curve) => curve.trait === trait);
    node.hidden = !own.length;
    if (!own.length) return;
    const names = own.map((curve) => curve.name);
    if (names.join() !== [...choice.options].map((option) => option.value).join()) {
      choice.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    }
    choice.value = model.get(trait);
    const [curve, epoch] = [own.find((one) => one.name === choice.value) ?? own[0], model.get("epoch")];
    const value = ({ colour, points }) => element("span", {}, dot(colour), valueAt(points, epoch));
    values.replaceChildren(...curve.series.map(value));
    drawCurve(svg, curve, epoch, goTo);
  };
  return { node, draw };
}

function render({ model: bare, el }) {
  const model = connect(bare);
  let playing = null;
  let polls = 0;
  const root = element("div", {
    class: "t2r t2r-stepper",
    role: "group",
    "aria-label": "Step through the epochs of a training",
  });
  const slider = element("input", { type: "range", min: 0, step: 1, "aria-label": "Saved epoch" });
  const told = element("output", { class: "t2r-at", "aria-live": "polite" });
  const play = button("▶", "Play (space)", () => toggle(), { class: "t2r-play" });
  const pictures = element("div", { class: "t2r-rows" });
  const note = element("p", { class: "t2r-help", role: "status" });
  const store = new PictureStore(model, () => drawPictures());

  const epochs = () => model.get("epochs");
  const place = () => Math.max(0, epochs().indexOf(nearestSaved(epochs(), model.get("epoch"))));
  const goToPlace = (index) => {
    const epoch = epochs()[clamp(index, 0, epochs().length - 1)];
    if (epoch !== undefined && epoch !== model.get("epoch")) model.save({ epoch });
  };
  const goToEpoch = (epoch) => {
    const near = epochs().map((saved) => Math.abs(saved - epoch));
    goToPlace(near.indexOf(Math.min(...near)));
  };
  const stop = () => {
    clearInterval(playing);
    playing = null;
    rename(play, "▶", "Play (space)");
  };
  const toggle = () => {
    if (playing) return stop();
    if (place() === epochs().length - 1) goToPlace(0);
    playing = setInterval(
      () => (place() === epochs().length - 1 ? stop() : goToPlace(place() + 1)),
      model.get("interval"),
    );
    rename(play, "❚❚", "Pause (space)");
  };

  // The rows are made once; following a training changes their words, not the pictures, so that nothing flickers.
  function makeRows() {
    const row = (key, label, colour, alt) =>
      element(
        "figure",
        { class: "t2r-row", "data-key": key },
        element("figcaption", {}, dot(colour), label, element("small")),
        element("img", { alt }),
      );
    const runs = model.get("rows");
    const inputs = model.get("inputs");
    const alone = inputs.length === 1;
    const input = (index) =>
      row(
        `${index}/input`,
        alone ? "Input" : `Input of ${runs[index].title}`,
        "transparent",
        "The pictures that are translated",
      );
    const shown = runs.map((run, index) => row(String(index), run.title, run.colour, ""));
    pictures.replaceChildren(
      ...(alone ? [input(0), ...shown] : shown.flatMap((figure, index) => [input(index), figure])),
    );
    note.textContent = alone ? "" : "These runs sampled different pictures: each is shown with its own.";
  }

  const keyAt = (index, epoch) => `${index}/${nearestSaved(model.get("rows")[index].epochs, epoch)}`;

  function drawPictures() {
    for (const figure of pictures.querySelectorAll("[data-key$='/input']")) {
      const url = store.get(figure.dataset.key);
      const image = figure.querySelector("img");
      if (url && image.dataset.wanted !== url) showPicture(image, url);
    }
    model.get("rows").forEach((run, index) => {
      const figure = pictures.querySelector(`[data-key="${index}"]`);
      const epoch = nearestSaved(run.epochs, model.get("epoch"));
      const image = figure.querySelector("img");
      figure.querySelector("small").textContent = ` epoch ${epoch}${run.doing ? `, ${run.doing}` : ""}`;
      image.alt = `What ${run.title} makes of the pictures at epoch ${epoch}`;
      const url = store.get(`${index}/${epoch}`);
      image.style.visibility = store.failed.has(`${index}/${epoch}`) ? "hidden" : "visible";
      if (url && image.dataset.wanted !== url)
        showPicture(image, url).then(() => image.dataset.wanted === url && (image.dataset.epoch = epoch));
    });
    prefetch();
  }

  // Fetch what may be looked at next: from the shown epoch outwards, and few at a time, so that what is wanted now does
  // not wait long.
  function prefetch() {
    const here = place();
    const order = epochs()
      .map((epoch, at) => [at >= here ? at - here : 2 * (here - at), epoch])
      .sort((a, b) => a[0] - b[0]);
    for (const [, epoch] of order) {
      for (const index of model.get("rows").keys()) {
        if (store.waiting() >= 6) return;
        store.get(keyAt(index, epoch));
      }
    }
  }

  function draw() {
    slider.value = place();
    slider.setAttribute("aria-valuetext", `epoch ${model.get("epoch")}`);
    told.textContent = `epoch ${model.get("epoch")} of ${epochs().at(-1) ?? 0}`;
    drawPictures();
    drawCharts();
  }

  slider.addEventListener("input", () => goToPlace(Number(slider.value)));
  onKeys(root, {
    ArrowLeft: () => goToPlace(place() - 1),
    ArrowRight: () => goToPlace(place() + 1),
    Home: () => goToPlace(0),
    End: () => goToPlace(epochs().length - 1),
    " ": toggle,
  });
  const turn = () => {
    store.failed.clear();
    draw();
  };
  const refresh = () => {
    slider.max = epochs().length - 1;
    turn();
  };
  const shown = [chart(model, "measure", "Measure", goToEpoch), chart(model, "loss", "Loss", goToEpoch)];
  const charts = element("div", { class: "t2r-charts" }, ...shown.map((one) => one.node));
  const drawCharts = () => shown.forEach((one) => one.draw());
  const resized = new ResizeObserver(drawCharts);
  resized.observe(charts);
  model.on("change:rows change:epochs change:curves", refresh);
  model.on("change:epoch change:measure change:loss", turn);
  // A training under way is followed; whether one began anew is asked less often.
  const follow = setInterval(() => {
    if (model.waiting()) return;
    polls += 1;
    if (polls % 5 === 0 || model.get("rows").some((run) => run.running)) model.send({ kind: "refresh" });
  }, 3000);

  root.append(
    element("div", { class: "t2r-bar" }, play, slider, told),
    model.notice,
    note,
    pictures,
    charts,
    element("p", { class: "t2r-help" }, HELP),
  );
  el.append(root);
  makeRows();
  refresh();
  return () => {
    clearInterval(follow);
    resized.disconnect();
    stop();
    model.close();
    store.close();
  };
}

export default { render };
