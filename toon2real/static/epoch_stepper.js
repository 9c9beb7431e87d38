// EpochStepper: one slider over the saved epochs of several runs, their samples and their curves.

const CURVE = { width: 640, height: 170, left: 48, right: 12, top: 10, bottom: 22 };

function nearestSaved(epochs, epoch) {
  return epochs.filter((saved) => saved <= epoch).at(-1) ?? epochs[0];
}

function drawCurves(svg, model, goTo) {
  svg.replaceChildren();
  const curve = model.get("curves").find((one) => one.name === model.get("curve"));
  if (!curve) return;
  const points = curve.series.flatMap((series) => series.points);
  const epochs = points.map((point) => point[0]);
  const values = points.map((point) => point[1]);
  const [firstEpoch, lastEpoch] = [Math.min(0, ...epochs), Math.max(1, ...epochs)];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  const x = (epoch) => CURVE.left + ((epoch - firstEpoch) / (lastEpoch - firstEpoch)) * (CURVE.width - CURVE.left - CURVE.right);
  const y = (value) => CURVE.top + ((high + margin - value) / (high - low + 2 * margin)) * (CURVE.height - CURVE.top - CURVE.bottom);

  const say = (text, attributes) => {
    const label = drawing("text", attributes);
    label.textContent = text;
    svg.append(label);
  };
  for (const value of [low, high]) {
    svg.append(drawing("line", { x1: CURVE.left, x2: CURVE.width - CURVE.right, y1: y(value), y2: y(value), class: "t2r-rule" }));
    say(Number(value.toPrecision(3)), { x: CURVE.left - 6, y: y(value) + 4, "text-anchor": "end" });
  }
  say(firstEpoch, { x: x(firstEpoch), y: CURVE.height - 5, "text-anchor": "middle" });
  say(`epoch ${lastEpoch}`, { x: x(lastEpoch), y: CURVE.height - 5, "text-anchor": "end" });

  for (const series of curve.series) {
    const path = series.points.map(([epoch, value]) => `${x(epoch)},${y(value)}`).join(" ");
    svg.append(drawing("polyline", { points: path, stroke: series.colour, class: "t2r-line" }));
    for (const [epoch, value] of series.points.length < 40 ? series.points : []) {
      svg.append(drawing("circle", { cx: x(epoch), cy: y(value), r: 2.5, fill: series.colour }));
    }
  }
  const at = x(model.get("epoch"));
  svg.append(drawing("line", { x1: at, x2: at, y1: CURVE.top, y2: CURVE.height - CURVE.bottom, class: "t2r-cursor" }));
  svg.onclick = (event) => {
    const box = svg.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * CURVE.width;
    const share = (place - CURVE.left) / (CURVE.width - CURVE.left - CURVE.right);
    goTo(firstEpoch + share * (lastEpoch - firstEpoch));
  };
}

function render({ model, el }) {
  let playing = null;
  const root = element("div", { class: "t2r t2r-stepper", role: "group", "aria-label": "Step through the epochs of a training" });
  const slider = element("input", { type: "range", min: 0, step: 1, "aria-label": "Saved epoch" });
  const told = element("output", { class: "t2r-told", "aria-live": "polite" });
  const play = element("button", { type: "button", class: "t2r-play", "aria-label": "Play" }, "▶");
  const choice = element("select", { "aria-label": "Curve" });
  const pictures = element("div", { class: "t2r-rows" });
  const curves = drawing("svg", { viewBox: `0 0 ${CURVE.width} ${CURVE.height}`, class: "t2r-curves", role: "img" });
  const legend = element("div", { class: "t2r-legend" });
  const store = new PictureStore(model, () => drawPictures());

  const epochs = () => model.get("epochs");
  const place = () => Math.max(0, epochs().indexOf(nearestSaved(epochs(), model.get("epoch"))));
  const goToPlace = (index) => {
    const epoch = epochs()[clamp(index, 0, epochs().length - 1)];
    if (epoch !== undefined && epoch !== model.get("epoch")) save(model, { epoch });
  };
  const goToEpoch = (epoch) => {
    const near = epochs().map((saved) => Math.abs(saved - epoch));
    goToPlace(near.indexOf(Math.min(...near)));
  };
  const stop = () => {
    clearInterval(playing);
    playing = null;
    play.textContent = "▶";
    play.setAttribute("aria-label", "Play");
  };
  const toggle = () => {
    if (playing) return stop();
    if (place() === epochs().length - 1) goToPlace(0);
    playing = setInterval(() => (place() === epochs().length - 1 ? stop() : goToPlace(place() + 1)), model.get("interval"));
    play.textContent = "❚❚";
    play.setAttribute("aria-label", "Pause");
  };

  function makeRows() {
    const row = (label, colour, alt, note) =>
      element("figure", { class: "t2r-row" },
        element("figcaption", {}, element("span", { class: "t2r-dot", style: `background:${colour}` }), label, element("small", {}, note)),
        element("img", { alt }));
    const runs = model.get("rows");
    pictures.replaceChildren(row("Input", "transparent", "The cartoons that are translated", ""), ...runs.map((run) => row(run.title, run.colour, "", "")));
    legend.replaceChildren(...runs.map((run) => element("span", {}, element("span", { class: "t2r-dot", style: `background:${run.colour}` }), run.title)));
    choice.replaceChildren(...model.get("curves").map((curve) => element("option", { value: curve.name, selected: curve.name === model.get("curve") }, curve.name)));
    slider.max = epochs().length - 1;
  }

  function drawPictures() {
    const rows = [...pictures.children];
    const input = store.get("input");
    if (input) showPicture(rows[0].querySelector("img"), input);
    model.get("rows").forEach((run, index) => {
      const figure = rows[index + 1];
      const epoch = nearestSaved(run.epochs, model.get("epoch"));
      const image = figure.querySelector("img");
      figure.querySelector("small").textContent = ` epoch ${epoch}${run.running ? ", training" : ""}`;
      image.alt = `What ${run.title} makes of the cartoons at epoch ${epoch}`;
      const url = store.get(`${index}/${epoch}`);
      if (url) showPicture(image, url).then(() => (image.dataset.epoch = epoch));
      for (const ahead of [1, 2, 3, -1]) {
        const next = epochs()[place() + ahead];
        if (next !== undefined) store.get(`${index}/${nearestSaved(run.epochs, next)}`);
      }
    });
  }

  function draw() {
    slider.value = place();
    slider.setAttribute("aria-valuetext", `epoch ${model.get("epoch")}`);
    told.textContent = `epoch ${model.get("epoch")} of ${epochs().at(-1) ?? 0}`;
    drawPictures();
    drawCurves(curves, model, goToEpoch);
    curves.setAttribute("aria-label", `${model.get("curve")} over the epochs`);
  }

  slider.addEventListener("input", () => goToPlace(Number(slider.value)));
  play.addEventListener("click", toggle);
  choice.addEventListener("change", () => save(model, { curve: choice.value }));
  onKeys(root, {
    ArrowLeft: () => goToPlace(place() - 1),
    ArrowRight: () => goToPlace(place() + 1),
    Home: () => goToPlace(0),
    End: () => goToPlace(epochs().length - 1),
    " ": toggle,
  });
  const rebuild = () => (makeRows(), draw());
  model.on("change:rows", rebuild);
  model.on("change:epoch change:curve", draw);
  const follow = setInterval(() => model.get("rows").some((run) => run.running) && model.send({ kind: "refresh" }), 3000);

  root.append(element("div", { class: "t2r-bar" }, play, slider, told), pictures,
    element("div", { class: "t2r-bar" }, choice, legend), curves);
  el.append(root);
  rebuild();
  return () => {
    clearInterval(follow);
    stop();
    model.off("change:rows", rebuild);
    model.off("change:epoch change:curve", draw);
    store.close();
  };
}

export default { render };
