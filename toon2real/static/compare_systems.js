// CompareSystems: one picture through several systems, under one zoom and one pan.

const WHOLE = { zoom: 1, x: 0.5, y: 0.5 };
const CLOSEST = 24; // the largest zoom

const HELP =
  "Zoom with + and −, or click a picture and turn the wheel; 0 shows the whole picture. To move, drag, or press Shift " +
  "and an arrow key. Left and right arrow: another picture; r: a random one; s: swipe bar. Drop a picture of your own " +
  "anywhere here. Luma correlation compares the brightness of output and input (1: the same places are bright)";
const OF_TRUTH = "; error is the mean difference from the truth, of 255";

function render({ model: bare, el }) {
  const model = connect(bare);
  let view = { ...WHOLE };
  let swipe = 0.5;
  const root = element("div", {
    class: "t2r t2r-compare",
    role: "group",
    "aria-label": "Compare systems on one picture",
  });
  const panels = element("div", { class: "t2r-panels" });
  const swiper = element("div", { class: "t2r-swiper", hidden: true });
  const told = element("output", { class: "t2r-told", "aria-live": "polite" });
  const zoomed = element("output", { class: "t2r-zoom" });
  const store = new PictureStore(model, () => draw());

  const columns = () => model.get("columns");
  const key = (column) => `${model.get("image")}/${column}`;
  const altOf = (column) => `${columns()[column].title}: ${model.get("name")}`;

  function panel(column, index) {
    const image = element("img", { draggable: "false", alt: "" });
    const box = element("div", { class: "t2r-view", "data-column": index }, image);
    const measure = element("small", { class: "t2r-measure" });
    const caption = element("figcaption", {}, column.colour ? dot(column.colour) : null, column.title);
    return element("figure", { class: "t2r-panel" }, caption, box, measure);
  }

  const makePanels = () => {
    panels.replaceChildren(...columns().map(panel));
    for (const select of [left, right]) {
      select.replaceChildren(...columns().map((column, index) => element("option", { value: index }, column.title)));
    }
    left.value = 0;
    right.value = Math.max(
      0,
      columns().findLastIndex((column) => column.kind === "system"),
    );
    draw();
  };

  // One transform for all pictures: zoom and pan cannot differ between panels.
  function place(image) {
    const [x, y] = [view.x, view.y].map((middle) => `${(0.5 - middle * view.zoom) * 100}%`);
    image.style.transform = `translate(${x}, ${y}) scale(${view.zoom})`;
    image.style.imageRendering = view.zoom >= 3 ? "pixelated" : "auto";
  }

  function look(change) {
    const zoom = clamp(change.zoom ?? view.zoom, 1, CLOSEST);
    const half = 0.5 / zoom;
    view = { zoom, x: clamp(change.x ?? view.x, half, 1 - half), y: clamp(change.y ?? view.y, half, 1 - half) };
    for (const image of root.querySelectorAll(".t2r-view img")) place(image);
    zoomed.textContent = `${view.zoom.toFixed(1)}×`;
  }

  // A picture that is still being translated must not stand under the name of the next one.
  function fill(image, column) {
    const wanted = model.get("image");
    const there = columns()[column].kind !== "truth" || wanted < model.get("truths");
    const known = there && !store.failed.has(key(column));
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
      figure.querySelector("img").alt = altOf(index);
      figure.querySelector(".t2r-measure").textContent = measures[index] ?? "";
    });
    told.textContent = `${model.get("image") + 1} of ${model.get("total")}: ${model.get("name")}`;
    if (!swiper.hidden) drawSwipe();
  }

  function drawSwipe() {
    for (const [image, side] of [
      [under, left],
      [over, right],
    ]) {
      fill(image, Number(side.value));
      image.alt = altOf(Number(side.value));
    }
    lid.style.clipPath = `inset(0 0 0 ${swipe * 100}%)`;
    bar.style.left = `${swipe * 100}%`;
    handle.value = swipe;
  }

  const goTo = (index) => {
    const total = model.get("total");
    if (total) model.save({ image: (index + total) % total });
  };
  const random = () => goTo(model.get("image") + 1 + Math.floor(Math.random() * (model.get("total") - 1)));

  // The swipe bar: the right picture lies over the left one, cut at the bar.
  const left = element("select", { "aria-label": "Left of the bar", onchange: drawSwipe });
  const right = element("select", { "aria-label": "Right of the bar", onchange: drawSwipe });
  const bar = element("div", { class: "t2r-edge" });
  const handle = element("input", { type: "range", min: 0, max: 1, step: 0.01, "aria-label": "Place of the bar" });
  const swipeTo = (share) => {
    swipe = clamp(share, 0, 1);
    drawSwipe();
  };
  handle.addEventListener("input", () => swipeTo(Number(handle.value)));
  const under = element("img", { draggable: "false", alt: "" });
  const over = element("img", { draggable: "false", alt: "" });
  const lid = element("div", { class: "t2r-over" }, over);
  swiper.append(
    element("div", { class: "t2r-sides" }, left, right),
    handle,
    element("div", { class: "t2r-view" }, under, lid, bar),
  );
  const toggleSwipe = () => {
    swiper.hidden = !swiper.hidden;
    swipeButton.setAttribute("aria-pressed", !swiper.hidden);
    draw();
    swiper.scrollIntoView({ block: "nearest" });
  };
  const swipeButton = button("Swipe", "Swipe between two pictures that lie over each other (s)", toggleSwipe);

  // Somebody's own picture: read here, translated by Python.
  const own = element("input", { type: "file", accept: "image/*", hidden: true });
  const take = async (file) => {
    if (file) model.send({ kind: "own", name: file.name }, [await file.arrayBuffer()]);
  };
  own.addEventListener("change", () => take(own.files[0]));
  const hovered = (over) => (event) => {
    event.preventDefault();
    root.classList.toggle("t2r-over-me", over);
  };
  root.addEventListener("dragover", hovered(true));
  root.addEventListener("dragleave", hovered(false));
  root.addEventListener("drop", (event) => {
    hovered(false)(event);
    take(event.dataTransfer.files[0]);
  });

  // What a panel shows, drawn into a square with this left upper corner, from this share of its width on
  function drawView(context, image, left, top, size, from = 0) {
    if (image.style.visibility === "hidden") return;
    const scale = (size / Math.max(image.naturalWidth, image.naturalHeight)) * view.zoom;
    const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
    const x = left + size / 2 + (0.5 - view.x) * size * view.zoom - width / 2;
    const y = top + size / 2 + (0.5 - view.y) * size * view.zoom - height / 2;
    context.save();
    context.beginPath();
    context.rect(left + from * size, top, (1 - from) * size, size);
    context.clip();
    context.imageSmoothingEnabled = view.zoom < 3;
    context.drawImage(image, x, y, width, height);
    context.restore();
  }

  async function download() {
    const [size, gap, line] = [320, 6, 24];
    const titles = columns().map((column) => column.title);
    if (!swiper.hidden) titles.push(`${titles[left.value]} | ${titles[right.value]}`);
    const canvas = element("canvas", { width: titles.length * (size + gap) - gap, height: size + 2 * line });
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.font = "14px sans-serif";
    context.fillStyle = "black";
    const images = [...panels.querySelectorAll("img"), under];
    titles.forEach((title, index) => {
      const x = index * (size + gap);
      context.fillText(title, x, 16, size);
      context.fillText(model.get("measures")[index] ?? "", x, size + line + 16, size);
      drawView(context, images[index], x, line, size);
      if (images[index] === under) drawView(context, over, x, line, size, swipe);
    });
    const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
    saveFile("comparison.png", blob);
  }

  const group = (...buttons) => element("div", { class: "t2r-group" }, ...buttons);

  let drag = null;
  root.addEventListener(
    "wheel",
    (event) => {
      const box = event.target.closest(".t2r-view");
      if (!box || !root.matches(":focus-within")) return; // who scrolls past is not held up
      event.preventDefault();
      const area = box.getBoundingClientRect();
      const zoom = clamp(view.zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2), 1, CLOSEST);
      const dx = (event.clientX - area.left) / area.width - 0.5;
      const dy = (event.clientY - area.top) / area.height - 0.5;
      look({ zoom, x: view.x + dx / view.zoom - dx / zoom, y: view.y + dy / view.zoom - dy / zoom });
    },
    { passive: false },
  );
  root.addEventListener("pointerdown", (event) => {
    const box = event.target.closest(".t2r-view");
    if (!box || event.button) return; // of a mouse, the first button
    drag = { x: event.clientX, y: event.clientY, view, area: box.getBoundingClientRect(), bar: event.target === bar };
    box.setPointerCapture(event.pointerId);
    root.focus({ preventScroll: true });
  });
  root.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (drag.bar) return swipeTo((event.clientX - drag.area.left) / drag.area.width);
    const scale = drag.area.width * drag.view.zoom;
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
    0: () => look(WHOLE),
  });

  root.append(
    element(
      "div",
      { class: "t2r-bar" },
      group(
        button("◀", "Previous picture (left arrow)", () => goTo(model.get("image") - 1)),
        button("▶", "Next picture (right arrow)", () => goTo(model.get("image") + 1)),
        button("Random", "Random picture (r)", random),
      ),
      told,
      group(
        button("−", "Zoom out (-)", () => look({ zoom: view.zoom / 1.5 })),
        zoomed,
        button("+", "Zoom in (+)", () => look({ zoom: view.zoom * 1.5 })),
        button("Whole", "Whole picture (0)", () => look(WHOLE)),
      ),
      group(
        swipeButton,
        button("Your picture…", "Your picture: translate one of your own", () => own.click()),
        button("Save", "Save this view as PNG", download),
        own,
      ),
    ),
    model.notice,
    panels,
    swiper,
    element("p", { class: "t2r-help" }, `${HELP}${model.get("truths") ? OF_TRUTH : ""}.`),
  );
  el.append(root);
  const turn = () => {
    store.failed.clear();
    draw();
  };
  model.on("change:image", turn);
  model.on("change:measures change:total change:name", draw);
  model.on("change:columns", makePanels);
  makePanels();
  look(WHOLE);
  return () => {
    model.close();
    store.close();
  };
}

export default { render };
