// FramePicker: tiles of shots or frames, to keep and to reject. pick_page.js has the same `picker` on its page.

const GAP = 8;
const CAPTION = 38; // pixels under a picture
const MOST_PICTURES = 2000; // pictures that the browser keeps

const LISTS = ["all", "kept", "rejected", "by hand"]; // the other tabs show what a filter marks
const ORDERS = { time: "time", near: "near threshold", like: "like my picks" };

const HELP =
  "Click a tile, Shift-click or Shift-arrows for several. k: keep, x: reject, c: leave to the filters, z: undo, " +
  "Enter: open a shot, Escape: back. Keeping a shot keeps what the filters leave of it; among rejects, the frame shown. ";

// `source` knows: help (words), notice (a node for what went wrong), state(), send(command), rows(offset, count), pictures(frames) -> {frame: address},
// and, where addresses cost memory, forget(address).
function picker(root, source) {
  let state = source.state();
  let view = null; // the version of the view that is shown
  let wanted = state.view;
  let wishes = 0; // that are not granted yet
  let cursor = 0;
  let anchor = 0;
  let size = 132;
  const rows = new Map(); // number of a tile -> what is known of it
  let asking = false; // a question is on its way
  const moves = new Map(); // name of a threshold -> what is to be done to it
  let moving = false; // a threshold is being worked out
  const chosen = new Set();
  const tiles = new Map(); // number of a tile -> its node, as far as it can be seen
  const pictures = new Map(); // frame -> address of its picture
  const places = []; // where one was before a shot was opened

  const labelled = (text, control) => element("label", {}, element("span", {}, text), control);

  // What is kept, of the target and by film
  const goal = element("progress", { max: 1, value: 0, "aria-label": "Frames kept, of the target" });
  const kept = element("output", { class: "t2r-told" });
  const films = element("table", { class: "t2r-films" });
  const byFilm = element(
    "details",
    { class: "t2r-fold", ontoggle: () => drawFilms() },
    element("summary", {}, "By film"),
    films,
  );
  const sliders = element("div", { class: "t2r-sliders" });
  const thresholds = element("details", { class: "t2r-fold" }, element("summary", {}, "Thresholds"), sliders);

  // What is shown
  const tabs = element("div", { class: "t2r-tabs", role: "group", "aria-label": "Which frames are shown" });
  const order = element(
    "select",
    { "aria-label": "Order", onchange: () => look({ order: order.value }) },
    ...Object.entries(ORDERS).map(([name, title]) => element("option", { value: name }, title)),
  );
  const film = element("select", {
    "aria-label": "Film",
    onchange: () => look({ film: film.value === "" ? null : Number(film.value) }),
  });
  const shots = element("input", { type: "checkbox", onchange: () => look({ shots: shots.checked }) });
  const sizes = element("input", {
    type: "range",
    min: 80,
    max: 260,
    value: size,
    "aria-label": "Size of the pictures",
  });
  const again = button("Sort again", "Sort again, with your new decisions (o)", () => look({}));
  const back = button("← All shots", "Back to all shots (Escape)", () => leave());
  const where = element("strong", { class: "t2r-where" });

  // What is done
  const keep = button("✓ Keep", "Keep the selection (k)", () => decide(true), { class: "t2r-keep" });
  const reject = button("✗ Reject", "Reject the selection (x)", () => decide(false), { class: "t2r-reject" });
  const clear = button("Leave to filters", "Remove your decisions about the selection (c)", () => decide(null));
  const undo = button("Undo", "Undo the last decision (z)", () => source.send({ kind: "undo" }));
  const message = element("output", { class: "t2r-told", "aria-live": "polite" });
  const likeness = element("p", { class: "t2r-help" });
  const space = element("div", { class: "t2r-space" });
  const grid = element(
    "div",
    { class: "t2r-grid", role: "listbox", "aria-multiselectable": "true", tabindex: 0 },
    space,
  );

  // A second wish may be uttered before the first is granted: they add up.
  const look = (change) => {
    wanted = { ...wanted, ...change };
    wishes += 1;
    source.send({ kind: "view", ...wanted });
  };
  const open = (index) => {
    const row = rows.get(index);
    if (!row || row.shot === null || state.view.shot) return;
    places.push({ cursor: index, scroll: grid.scrollTop });
    look({ shot: [row.film, row.shot] });
  };
  const leave = () => {
    if (state.view.shot) source.send({ kind: "back" });
    else choose(cursor);
  };

  // Where the tiles are
  const columns = () => Math.max(1, Math.floor((space.clientWidth + GAP) / (size + GAP)));
  const side = () => (space.clientWidth + GAP) / columns() - GAP;
  const pitch = () => side() + CAPTION + GAP;
  const seen = () => {
    const first = Math.floor(grid.scrollTop / pitch()) - 1;
    const last = Math.ceil((grid.scrollTop + grid.clientHeight) / pitch()) + 1;
    return [clamp(first * columns(), 0, state.total), clamp(last * columns(), 0, state.total)];
  };

  function makeTile(index) {
    const image = element("img", { draggable: "false", alt: "" });
    const openIt = (event) => {
      event.stopPropagation();
      open(index);
    };
    const tile = element(
      "div",
      { class: "t2r-tile", role: "option", id: `${root.id}-${index}`, "aria-posinset": index + 1 },
      image,
      element("span", { class: "t2r-mark", "aria-hidden": "true" }),
      element("span", { class: "t2r-open", title: "Open the shot (Enter)", onclick: openIt }),
      element(
        "span",
        { class: "t2r-quick" },
        element("span", { class: "t2r-keep", title: "Keep (k)", onclick: (event) => quick(event, index, true) }, "✓"),
        element(
          "span",
          { class: "t2r-reject", title: "Reject (x)", onclick: (event) => quick(event, index, false) },
          "✗",
        ),
      ),
      element("div", { class: "t2r-when" }),
      element("div", { class: "t2r-why" }),
    );
    tile.addEventListener("click", (event) => choose(index, event));
    tile.addEventListener("dblclick", () => open(index));
    space.append(tile);
    return tile;
  }

  // All text of strangers (names of files and films, licences) is set as text, never as HTML.
  function fillTile(tile, index) {
    const [width, column, line] = [side(), index % columns(), Math.floor(index / columns())];
    tile.style.transform = `translate(${column * (width + GAP)}px, ${line * pitch()}px)`;
    tile.style.width = `${width}px`;
    tile.setAttribute("aria-setsize", state.total);
    tile.setAttribute("aria-selected", chosen.has(index));
    tile.classList.toggle("t2r-cursor-at", index === cursor);
    const row = rows.get(index);
    if (!row) return;
    const many = row.size > 1;
    tile.dataset.frame = row.frame;
    tile.dataset.kept = row.kept > 0;
    tile.dataset.hand = row.hand;
    tile.querySelector(".t2r-mark").textContent = row.kept > 0 ? "✓" : "✗";
    tile.querySelector(".t2r-open").textContent = many ? `${row.size} ▸` : "";
    tile.querySelector(".t2r-when").textContent = many ? `${row.when} · ${row.kept} kept` : row.when;
    tile.querySelector(".t2r-why").textContent = row.why || row.title;
    const alone = row.kept ? "kept" : "left out";
    const verdict = many ? `shot of ${row.size} frames, ${row.kept} kept` : alone;
    const words = `${row.title} ${row.when}: ${[verdict, row.why].filter(Boolean).join(", ")}`;
    tile.setAttribute("aria-label", words);
    tile.title = `${words}${row.credit ? `\n${row.credit}` : ""}`;
    const image = tile.querySelector("img");
    image.alt = `${row.title} ${row.when}`;
    const url = pictures.get(row.frame);
    if (url && image.dataset.wanted !== url) showPicture(image, url).then(() => (image.dataset.frame = row.frame));
  }

  function draw() {
    if (!space.clientWidth) return;
    space.style.height = `${Math.ceil(state.total / columns()) * pitch()}px`;
    const [first, last] = seen();
    for (const [index, tile] of tiles) {
      if (index >= first && index < last) continue;
      tile.remove();
      tiles.delete(index);
    }
    for (let index = first; index < last; index++) {
      if (!tiles.has(index)) tiles.set(index, makeTile(index));
      fillTile(tiles.get(index), index);
    }
    grid.setAttribute("aria-activedescendant", tiles.has(cursor) ? `${root.id}-${cursor}` : "");
    want(first, last);
  }

  // What is missing of what is seen, or older than the last decision, is asked for: one question at a time, so that
  // whoever scrolls past a thousand tiles does not wait for them.
  async function want(first, last) {
    if (asking) return;
    const known = [...Array(last - first).keys()].map((number) => rows.get(first + number));
    const stale = known.some((row) => row?.changes !== state.changes);
    const missing = stale ? [] : known.map((row) => row.frame).filter((frame) => !pictures.has(frame));
    if (!stale && !missing.length) return;
    asking = true;
    await (stale ? askRows(first, last - first) : askPictures(missing));
    asking = false;
    draw();
  }

  async function askRows(offset, count) {
    const { version, changes } = state;
    const answer = await source.rows(offset, count);
    if (version === state.version) answer.forEach((row, number) => rows.set(offset + number, { ...row, changes }));
  }

  async function askPictures(frames) {
    for (const [frame, url] of Object.entries(await source.pictures(frames))) pictures.set(Number(frame), url);
    const shown = new Set([...tiles.keys()].map((index) => rows.get(index)?.frame));
    for (const [frame, url] of pictures) {
      if (pictures.size <= MOST_PICTURES) break;
      if (shown.has(frame)) continue;
      source.forget?.(url);
      pictures.delete(frame);
    }
  }

  function choose(index, event = {}) {
    if (!state.total) return;
    const next = clamp(index, 0, state.total - 1);
    if (event.ctrlKey || event.metaKey) {
      if (!chosen.delete(next)) chosen.add(next);
      anchor = next;
    } else {
      if (!event.shiftKey) anchor = next;
      chosen.clear();
      for (let one = Math.min(anchor, next); one <= Math.max(anchor, next); one++) chosen.add(one);
    }
    cursor = next;
    const top = Math.floor(cursor / columns()) * pitch();
    if (top < grid.scrollTop) grid.scrollTop = top;
    if (top + pitch() > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + pitch() - grid.clientHeight;
    drawPlace();
    draw();
  }

  const drawPlace = () => {
    const many = chosen.size > 1 ? `${chosen.size} chosen` : "";
    where.textContent = [state.place, many].filter(Boolean).join(" · ");
  };

  function decide(verdict) {
    const which = chosen.size ? [...chosen] : [cursor];
    if (!state.total) return;
    source.send({ kind: "decide", version: state.version, tiles: which, keep: verdict });
    choose(Math.max(...which) + 1);
  }

  function quick(event, index, verdict) {
    event.stopPropagation();
    if (!chosen.has(index)) choose(index);
    decide(verdict);
    grid.focus({ preventScroll: true });
  }

  // Everything around the tiles is drawn from the state.
  function drawFilms() {
    const cell = (...content) => element("td", {}, ...content);
    const action = (row, keep, text, label) =>
      button(text, `${label} ${row.title}`, () => source.send({ kind: "film", film: row.film, keep }));
    films.replaceChildren(
      ...(byFilm.open ? state.films : []).map((row) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, row.title),
          cell(
            element("meter", {
              min: 0,
              max: Math.max(1, row.frames),
              value: row.kept,
              "aria-label": `Kept of ${row.title}`,
            }),
          ),
          cell(`${row.kept} of ${row.frames} kept`),
          cell(
            action(row, true, "✓ Keep", "Keep what the filters leave of"),
            " ",
            action(row, false, "✗ Reject", "Reject all of"),
            " ",
            action(row, null, "Leave to filters", "Remove all decisions about"),
          ),
        ),
      ),
    );
    if (film.options.length !== state.films.length + 1) {
      // an open list stays open
      film.replaceChildren(
        element("option", { value: "" }, "all films"),
        ...state.films.map((row) => element("option", { value: row.film }, row.title)),
      );
    }
    film.value = wanted.film ?? "";
  }

  // While one value is worked out, only the latest of the next ones waits.
  function move(name, value, keep) {
    moves.set(name, { kind: "threshold", name, value, keep });
    if (!moving) nextMove();
  }

  function nextMove() {
    const [name, command] = moves.entries().next().value ?? [];
    moving = name !== undefined;
    root.setAttribute("aria-busy", moving);
    if (!moving) return;
    moves.delete(name);
    source.send(command);
  }

  function makeSlider(one) {
    const input = element("input", {
      type: "range",
      "aria-label": `${one.name}: ${one.help}`,
    });
    const turn = () => move(one.name, state.thresholds.find(({ name }) => name === one.name).other, true);
    const unit = element("button", { type: "button", "aria-label": `Another unit for ${one.name}`, onclick: turn });
    const value = element("output", {});
    const line = element(
      "label",
      { title: one.help, "data-name": one.name },
      element("span", {}, one.name.replace("_", " ")),
      input,
      value,
      one.other === null ? element("span", {}) : unit,
      element("small", {}),
    );
    input.addEventListener("input", () => {
      value.textContent = input.value;
      move(one.name, Number(input.value), false);
    });
    input.addEventListener("change", () => move(one.name, Number(input.value), true));
    return line;
  }

  function drawSliders() {
    if (!sliders.children.length) sliders.append(...state.thresholds.map(makeSlider));
    state.thresholds.forEach((one, number) => {
      const [, input, value, unit, count] = sliders.children[number].children;
      unit.textContent = one.unit;
      Object.assign(input, { min: one.low, max: one.high, step: one.step });
      if (root.getRootNode().activeElement !== input) input.value = one.value;
      value.textContent = Number(input.value);
      count.textContent = one.marks === null ? "" : `marks ${one.marks}`;
    });
    thresholds.hidden = !state.thresholds.length;
  }

  const makeTab = (tab) =>
    button(`${tab.name} ${tab.count}`, `${tab.name}: ${tab.count}`, () => look({ tab: tab.name, shot: null }), {
      "aria-pressed": String(tab.name === wanted.tab),
      "data-tab": tab.name,
    });

  function drawTabs() {
    const old = root.getRootNode().activeElement?.dataset?.tab;
    tabs.replaceChildren(
      ...state.tabs.filter(({ name }) => LISTS.includes(name)).map(makeTab),
      element("span", { class: "t2r-help" }, "by filter:"),
      ...state.tabs.filter(({ name }) => !LISTS.includes(name)).map(makeTab),
    );
    if (old) tabs.querySelector(`[data-tab="${old}"]`)?.focus();
    const like = order.querySelector("[value=like]");
    like.hidden = like.disabled = !state.like.ready; // Safari shows what is hidden
    order.value = wanted.order;
    shots.checked = wanted.shots;
  }

  function drawState() {
    state = source.state();
    asking = false; // what was asked before is out of date, or went wrong
    if (view !== state.version || state.problem) wishes = state.problem ? 0 : Math.max(0, wishes - 1);
    if (!wishes) wanted = state.view;
    if (view !== state.version) {
      view = state.version;
      rows.clear();
      chosen.clear();
      for (const tile of tiles.values()) tile.remove();
      tiles.clear();
      const place = state.view.shot ? null : places.splice(0).at(-1);
      cursor = anchor = place?.cursor ?? 0;
      requestAnimationFrame(() => {
        draw();
        grid.scrollTop = place?.scroll ?? 0;
        if (place) choose(place.cursor);
      });
    }
    goal.value = Math.min(1, state.kept / state.target);
    kept.textContent = `${state.kept} of ${state.target} kept`;
    undo.disabled = !state.undo;
    message.textContent = state.message;
    likeness.textContent = state.like.message;
    likeness.hidden = !state.like.message;
    back.hidden = !state.view.shot;
    drawPlace();
    grid.setAttribute("aria-label", state.place);
    space.dataset.empty = state.total ? "" : "Nothing here.";
    root.dataset.version = state.version;
    root.dataset.changes = state.changes;
    drawFilms();
    drawSliders();
    drawTabs();
    draw();
    nextMove();
  }

  const step = (by, event) => choose(cursor + by, { shiftKey: event.shiftKey });
  const screen = () => Math.max(1, Math.floor(grid.clientHeight / pitch())) * columns();
  root.id = `t2r-${Math.random().toString(36).slice(2)}`;
  onKeys(root, {
    ArrowLeft: (event) => step(-1, event),
    ArrowRight: (event) => step(1, event),
    ArrowUp: (event) => step(-columns(), event),
    ArrowDown: (event) => step(columns(), event),
    PageUp: (event) => step(-screen(), event),
    PageDown: (event) => step(screen(), event),
    Home: (event) => step(-state.total, event),
    End: (event) => step(state.total, event),
    Enter: () => open(cursor),
    Escape: leave,
    k: () => decide(true),
    x: () => decide(false),
    c: () => decide(null),
    z: () => undo.click(),
    o: () => look({}),
  });
  root.tabIndex = -1; // the tiles take the focus
  sizes.addEventListener("input", () => {
    const row = Math.floor(grid.scrollTop / pitch()) * columns();
    size = Number(sizes.value);
    grid.scrollTop = Math.floor(row / columns()) * pitch();
    draw();
  });
  grid.addEventListener("scroll", draw);
  const resized = new ResizeObserver(draw);
  resized.observe(grid);

  root.append(
    element("div", { class: "t2r-bar" }, goal, kept, byFilm, thresholds),
    tabs,
    element(
      "div",
      { class: "t2r-bar" },
      back,
      where,
      labelled("Order", order),
      again,
      labelled("Film", film),
      element("label", {}, shots, element("span", {}, "one tile a shot")),
      labelled("Size", sizes),
    ),
    element("div", { class: "t2r-bar" }, keep, reject, clear, undo, message),
    source.notice,
    grid,
    likeness,
    element("p", { class: "t2r-help" }, source.help),
  );
  drawState();
  const close = () => {
    resized.disconnect();
    for (const url of pictures.values()) source.forget?.(url);
  };
  return { drawState, close };
}

function render({ model: bare, el }) {
  const model = connect(bare);
  const root = element("div", { class: "t2r t2r-picker", role: "group", "aria-label": "Pick frames" });
  const ask = questions(model);
  const source = {
    help: `${HELP}Each decision is in the catalogue at once.`,
    notice: model.notice,
    state: () => model.get("state"),
    send: (command) => model.send(command),
    rows: async (offset, count) => (await ask({ kind: "rows", offset, count })).rows,
    pictures: async (frames) => {
      const answer = await ask({ kind: "pictures", frames });
      return Object.fromEntries(frames.map((frame, number) => [frame, pictureUrl(answer.buffers[number])]));
    },
    forget: (url) => URL.revokeObjectURL(url),
  };
  el.append(root);
  const view = picker(root, source);
  model.on("change:state", view.drawState);
  return () => {
    model.close();
    view.close();
  };
}

export default { render };
