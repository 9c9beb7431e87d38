// CompareSystems: one picture through several systems, under one zoom and one pan.

const NEAREST = { zoom: 1, x: 0.5, y: 0.5 };

function render({ model, el }) {
  let view = { ...NEAREST };
  let swipe = 0.5;
  const root = element("div", { class: "t2r t2r-compare", role: "group", "aria-label": "Compare systems on one picture" });
  const panels = element("div", { class: "t2r-panels" });
  const swiper = element("div", { class: "t2r-swiper", hidden: true });
  const problem = element("p", { class: "t2r-problem", role: "alert" });
  const told = element("output", { class: "t2r-told", "aria-live": "polite" });
  const store = new PictureStore(model, () => draw());

  const columns = () => model.get("columns");
  const key = (column) => `${model.get("image")}/${column}`;

  function panel(column, index) {
    const image = element("img", { draggable: "false", alt: `${column.title}: ${model.get("name")}` });
    const box = element("div", { class: "t2r-view", "data-column": index }, image);
    const measure = element("small", { class: "t2r-measure" });
    return element("figure", { class: "t2r-panel" },
      element("figcaption", {}, element("span", { class: "t2r-dot", style: `background:${column.colour ?? "transparent"}` }), column.title), box, measure);
  }

  const makePanels = () => {
    panels.replaceChildren(...columns().map(panel));
    for (const select of [left, right]) {
      select.replaceChildren(...columns().map((column, index) => element("option", { value: index }, column.title)));
    }
    left.value = 0;
    right.value = Math.max(0, columns().findLastIndex((column) => column.kind === "system"));
    draw();
  };

  // One transform for all pictures: zoom and pan cannot differ between panels.
  function place(image) {
    image.style.transform = `translate(${(0.5 - view.x * view.zoom) * 100}%, ${(0.5 - view.y * view.zoom) * 100}%) scale(${view.zoom})`;
    image.style.imageRendering = view.zoom >= 3 ? "pixelated" : "auto";
  }

  function look(change) {
    const zoom = clamp(change.zoom ?? view.zoom, 1, 24);
    const half = 0.5 / zoom;
    view = { zoom, x: clamp(change.x ?? view.x, half, 1 - half), y: clamp(change.y ?? view.y, half, 1 - half) };
    for (const image of root.querySelectorAll(".t2r-view img")) place(image);
    root.dataset.zoom = view.zoom.toFixed(2);
  }

  // A picture that is still being translated must not stand under the name of the next one.
  function fill(image, column) {
    const wanted = model.get("image");
    const known = columns()[column].kind !== "truth" || wanted < model.get("truths");
    const url = known ? store.get(key(column)) : null;
    image.parentElement.dataset.waiting = known && !url;
    image.style.visibility = known ? "visible" : "hidden";
    if (!known) image.dataset.image = wanted;
    if (url) showPicture(image, url).then(() => (image.dataset.image = wanted));
    place(image);
  }

  function draw() {
    const measures = model.get("measures");
    [...panels.children].forEach((figure, index) => {
      fill(figure.querySelector("img"), index);
      figure.querySelector("img").alt = `${columns()[index].title}: ${model.get("name")}`;
      figure.querySelector(".t2r-measure").textContent = measures[index] ?? "";
    });
    told.textContent = `${model.get("image") + 1} of ${model.get("total")}: ${model.get("name")}`;
    problem.textContent = model.get("problem");
    if (!swiper.hidden) drawSwipe();
  }

  function drawSwipe() {
    const [under, over] = swiper.querySelectorAll("img");
    fill(under, Number(left.value));
    fill(over, Number(right.value));
    const box = swiper.querySelector(".t2r-over");
    box.style.clipPath = `inset(0 0 0 ${swipe * 100}%)`;
    bar.style.left = `${swipe * 100}%`;
    handle.value = swipe;
  }

  const goTo = (index) => {
    const total = model.get("total");
    if (total) save(model, { image: (index + total) % total });
  };
  const random = () => goTo(model.get("image") + 1 + Math.floor(Math.random() * (model.get("total") - 1)));
  const button = (text, label, action) => element("button", { type: "button", "aria-label": label, title: label, onclick: action }, text);

  // The swipe bar: the right picture lies over the left one, cut at the bar.
  const left = element("select", { "aria-label": "Left of the bar", onchange: drawSwipe });
  const right = element("select", { "aria-label": "Right of the bar", onchange: drawSwipe });
  const bar = element("div", { class: "t2r-edge" });
  const handle = element("input", { type: "range", min: 0, max: 1, step: 0.01, "aria-label": "Place of the bar" });
  handle.addEventListener("input", () => ((swipe = Number(handle.value)), drawSwipe()));
  swiper.append(
    element("div", { class: "t2r-bar" }, left, handle, right),
    element("div", { class: "t2r-view t2r-wide" }, element("img", { draggable: "false", alt: "The left picture" }),
      element("div", { class: "t2r-over" }, element("img", { draggable: "false", alt: "The right picture" })), bar));
  const toggleSwipe = () => {
    swiper.hidden = !swiper.hidden;
    swipeButton.setAttribute("aria-pressed", !swiper.hidden);
    draw();
  };
  const swipeButton = button("⇔", "Lay two pictures over each other (s)", toggleSwipe);

  // Somebody's own picture: read here, translated by Python.
  const own = element("input", { type: "file", accept: "image/*", hidden: true });
  const take = async (file) => {
    if (file) model.send({ kind: "own", name: file.name }, undefined, [await file.arrayBuffer()]);
  };
  own.addEventListener("change", () => take(own.files[0]));
  root.addEventListener("dragover", (event) => event.preventDefault());
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });

  async function download() {
    const size = 320;
    const canvas = element("canvas", { width: columns().length * (size + 6) - 6, height: size + 24 });
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.font = "14px sans-serif";
    context.imageSmoothingEnabled = view.zoom < 3;
    [...panels.querySelectorAll("img")].forEach((image, index) => {
      const x = index * (size + 6);
      const fit = (size / Math.max(image.naturalWidth, image.naturalHeight)) * view.zoom;
      const [w, h] = [image.naturalWidth * fit, image.naturalHeight * fit];
      const middle = { x: x + size / 2 + (0.5 - view.x) * size * view.zoom, y: 24 + size / 2 + (0.5 - view.y) * size * view.zoom };
      context.save();
      context.beginPath();
      context.rect(x, 24, size, size);
      context.clip();
      context.drawImage(image, middle.x - w / 2, middle.y - h / 2, w, h);
      context.restore();
      context.fillStyle = "black";
      context.fillText(columns()[index].title, x, 16);
    });
    const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
    const url = URL.createObjectURL(blob);
    element("a", { href: url, download: "comparison.png" }).click();
    URL.revokeObjectURL(url);
  }

  let drag = null;
  root.addEventListener("wheel", (event) => {
    const box = event.target.closest(".t2r-view");
    if (!box) return;
    event.preventDefault();
    const area = box.getBoundingClientRect();
    const zoom = clamp(view.zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2), 1, 24);
    const [dx, dy] = [(event.clientX - area.left) / area.width - 0.5, (event.clientY - area.top) / area.height - 0.5];
    look({ zoom, x: view.x + dx / view.zoom - dx / zoom, y: view.y + dy / view.zoom - dy / zoom });
  }, { passive: false });
  root.addEventListener("pointerdown", (event) => {
    const box = event.target.closest(".t2r-view");
    if (!box) return;
    drag = { x: event.clientX, y: event.clientY, view, size: box.getBoundingClientRect().width };
    box.setPointerCapture(event.pointerId);
    root.focus({ preventScroll: true });
  });
  root.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const scale = drag.size * drag.view.zoom;
    look({ x: drag.view.x - (event.clientX - drag.x) / scale, y: drag.view.y - (event.clientY - drag.y) / scale });
  });
  for (const end of ["pointerup", "pointercancel"]) root.addEventListener(end, () => (drag = null));

  // Arrow keys go to other pictures; with Shift, or up and down, they move the view.
  const move = (x, y) => look({ x: view.x + (0.1 * x) / view.zoom, y: view.y + (0.1 * y) / view.zoom });

  onKeys(root, {
    ArrowLeft: (event) => (event.shiftKey ? move(-1, 0) : goTo(model.get("image") - 1)),
    ArrowRight: (event) => (event.shiftKey ? move(1, 0) : goTo(model.get("image") + 1)),
    ArrowUp: () => move(0, -1),
    ArrowDown: () => move(0, 1),
    r: random,
    s: toggleSwipe,
    "+": () => look({ zoom: view.zoom * 1.5 }),
    "-": () => look({ zoom: view.zoom / 1.5 }),
    0: () => look(NEAREST),
  });

  root.append(
    element("div", { class: "t2r-bar" },
      button("◀", "Previous picture (left arrow)", () => goTo(model.get("image") - 1)),
      button("▶", "Next picture (right arrow)", () => goTo(model.get("image") + 1)),
      button("⚄", "Another picture by chance (r)", random), told,
      button("+", "Zoom in (+)", () => look({ zoom: view.zoom * 1.5 })),
      button("−", "Zoom out (-)", () => look({ zoom: view.zoom / 1.5 })),
      button("1:1", "Whole picture (0)", () => look(NEAREST)),
      swipeButton,
      button("Your picture…", "Translate a picture of your own", () => own.click()),
      button("Save", "Save this view as PNG", download), own),
    problem, panels, swiper,
    element("p", { class: "t2r-help" }, "Wheel, + and −: zoom; 0: whole picture. Drag, Shift and arrow keys: move. Left and right: other pictures, r: by chance, s: swipe. Drop a picture of your own anywhere here."));
  el.append(root);
  model.on("change:image change:measures change:total change:name change:problem", draw);
  model.on("change:columns", makePanels);
  makePanels();
  look(NEAREST);
  return () => {
    model.off("change:image change:measures change:total change:name change:problem", draw);
    model.off("change:columns", makePanels);
    store.close();
  };
}

export default { render };
