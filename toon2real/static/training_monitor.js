// TrainingMonitor: how far a training is, what it looks like, and three buttons.

const IN_A_CELL =
  "The kernel is busy, so these buttons wait. A cell that trains can be stopped with the notebook's own button; " +
  "fit(background=True) keeps the kernel free.";

function render({ model: bare, el }) {
  const model = connect(bare, IN_A_CELL);
  let url = null;
  let heard = false; // has the kernel ever answered?
  const root = element("div", { class: "t2r t2r-monitor", role: "group", "aria-label": "A training under way" });
  const title = element("strong");
  const state = element("span", { class: "t2r-state", role: "status" });
  const words = element("span", { class: "t2r-told" });
  const bar = element("progress", { max: 1, value: 0, "aria-label": "Steps done" });
  const note = element("p", { class: "t2r-help" });
  const losses = element("div", { class: "t2r-legend" });
  const curve = element("div", { class: "t2r-losses" });
  const image = element("img", { alt: "" });
  const caption = element("figcaption", {});
  const judged = element("div", { class: "t2r-judged" });
  const hint = element("span", { class: "t2r-help", role: "status" });

  const ask = (kind, words) => {
    hint.textContent = words;
    model.send({ kind });
  };
  const stop = button("■ Stop", "Stop after the current step, and save", () => ask("stop", "stopping …"));
  const goOn = button("▶ Go on", "Go on from where it was saved", () => ask("go_on", "going on …"));
  const look = button("Sample now", "Translate the samples after the current step", () => ask("look", "sampling …"));

  function drawButtons() {
    const state = model.get("status").state;
    stop.disabled = look.disabled = state !== "training" || !heard;
    goOn.disabled = state !== "stopped";
  }

  function draw() {
    const status = model.get("status");
    title.textContent = status.title;
    if (state.textContent !== status.state) hint.textContent = "";
    state.textContent = status.state;
    state.dataset.state = status.state;
    words.textContent = status.words;
    bar.max = status.total || 1;
    bar.value = status.step ?? 0;
    note.textContent = status.note;
    const value = ({ name, value, ink }) =>
      element("span", {}, ink ? dot(ink) : null, `${name} `, element("b", {}, value));
    losses.replaceChildren(
      element("span", {}, "Losses, smoothed over about 100 steps:"),
      ...(status.losses ?? []).map(value),
    );
    judged.hidden = !status.judged;
    judged.replaceChildren(
      element("div", {}, status.judged ?? ""),
      element("div", { class: "t2r-legend" }, ...(status.metrics ?? []).map(value)),
    );
    root.dataset.step = status.step;
    drawButtons();
  }

  function drawCurve() {
    curve.innerHTML = model.get("curve"); // lines and numbers, no names
  }

  function drawNewest() {
    const bytes = model.get("newest");
    if (!bytes?.byteLength) return;
    const before = url;
    url = pictureUrl(bytes);
    showPicture(image, url).then(() => before && URL.revokeObjectURL(before));
    caption.textContent = image.alt = model.get("caption");
    hint.textContent = "";
  }

  model.on("msg:custom", ({ kind }) => {
    heard = true;
    if (kind === "failed") hint.textContent = "";
    drawButtons();
  });
  model.on("change:status", draw);
  model.on("change:curve", drawCurve);
  model.on("change:newest", drawNewest);
  root.append(
    element("div", { class: "t2r-bar" }, title, state, words),
    element("div", { class: "t2r-bar" }, bar),
    element("div", { class: "t2r-bar" }, stop, goOn, look, hint),
    model.notice,
    note,
    losses,
    curve,
    element("figure", { class: "t2r-newest" }, caption, image),
    judged,
  );
  el.append(root);
  draw();
  drawCurve();
  drawNewest();
  model.send({ kind: "hello" });
  return () => {
    model.close();
    if (url) URL.revokeObjectURL(url);
  };
}

export default { render };
