// The picker on a page of its own, after frame_picker.js: all frames stand in the page, decisions are kept by the
// browser and saved as a file.

function standalone(root, data) {
  const storage = `toon2real picks ${data.catalogue}`;
  const frames = data.frames.map((frame, place) => ({ ...frame, place }));
  const byNumber = new Map(frames.map((frame) => [frame.frame, frame]));
  const said = new Map(JSON.parse(localStorage.getItem(storage) ?? "[]"));
  const batches = [];
  const before = [];
  let shown = {
    view: { tab: "kept", order: "time", film: null, shots: true, shot: null },
    ids: [], // frames, in order: a tile each
  };
  let [version, decided, told] = [0, 0, ""];

  const verdict = (frame) => (said.has(frame.frame) ? said.get(frame.frame) : frame.hand);
  const byShot = () => shown.view.shots && !shown.view.shot;
  const isKept = (frame) => !frame.firm && (verdict(frame) ?? frame.free);
  const inShot = (frame, [film, shot]) => frame.film === film && frame.shot === shot;
  const shotOf = (frame) =>
    frame.shot === null ? [frame] : frames.filter((one) => inShot(one, [frame.film, frame.shot]));
  const inTab = {
    all: () => true,
    kept: isKept,
    rejected: (frame) => !isKept(frame),
    "by hand": (frame) => verdict(frame) !== null,
  };
  const within = (tab) =>
    inTab[tab] ? frames.filter(inTab[tab]) : data.near[tab].map((number) => byNumber.get(number));

  function select({ tab, order, film, shots, shot }) {
    let found = within(tab).filter((frame) => film === null || frame.film === film);
    if (shot) found = found.filter((frame) => inShot(frame, shot));
    if (order === "time" || !data.near[tab]) found.sort((a, b) => a.place - b.place);
    if (!shots || shot) return found;
    const first = new Map();
    for (const frame of found) {
      const key = frame.shot === null ? frame.frame : `${frame.film} ${frame.shot}`;
      if (!first.has(key) || (frame.best && !first.get(key).best)) first.set(key, frame);
    }
    return [...first.values()];
  }

  // What is decided about a tile: its frame, or of a shot all frames; only those that the filters leave are kept.
  function decide(list, keep) {
    const batch = list.map((frame) => [frame.frame, said.has(frame.frame), said.get(frame.frame)]);
    for (const frame of list) said.set(frame.frame, keep);
    batches.push(batch);
    const done = keep === null ? "left to the filters" : keep ? "kept" : "rejected";
    changed(`${list.length} ${list.length === 1 ? "frame" : "frames"} ${done}`);
  }
  const free = (list, instead) => {
    const passing = list.filter((frame) => frame.free);
    return passing.length ? passing : instead;
  };
  const ofTile = (frame, keep) => {
    if (!byShot()) return [frame];
    return keep ? free(shotOf(frame), [frame]) : shotOf(frame);
  };

  function changed(words) {
    told = words;
    decided += 1;
    localStorage.setItem(storage, JSON.stringify([...said]));
    view.drawState();
  }
  const show = (next) => {
    shown = next;
    version += 1;
    view.drawState();
  };
  const commands = {
    view: ({ kind, ...wanted }) => {
      if (wanted.shot && !shown.view.shot) before.push(shown);
      show({ view: wanted, ids: select(wanted) });
    },
    back: () => show(before.pop()),
    decide: ({ tiles, keep }) => {
      const tiled = tiles.map((index) => shown.ids[index]).filter(Boolean);
      decide(
        tiled.flatMap((frame) => ofTile(frame, keep)),
        keep,
      );
    },
    film: ({ film, keep }) => {
      const all = frames.filter((frame) => frame.film === film);
      decide(keep ? free(all, []) : all, keep);
    },
    undo: () => {
      for (const [frame, had, was] of batches.pop() ?? []) {
        if (had) said.set(frame, was);
        else said.delete(frame);
      }
      changed("undone");
    },
  };

  function reason(frame) {
    const own = verdict(frame);
    if (own !== null) return own ? "kept by hand" : "rejected by hand";
    return isKept(frame) ? "" : frame.why;
  }

  function row(frame) {
    const shot = byShot() ? shotOf(frame) : [frame];
    return {
      ...frame,
      title: data.films[frame.film].title,
      why: reason(frame),
      size: shot.length,
      kept: shot.filter(isKept).length,
      hand: verdict(frame) !== null,
    };
  }

  const state = () => ({
    view: shown.view,
    version,
    said: decided,
    total: shown.ids.length,
    place: shown.view.shot
      ? `Shot at ${shown.ids[0]?.when ?? ""}`
      : `${shown.ids.length} ${shown.view.shots ? "shots" : "frames"}`,
    tabs: data.tabs.map((name) => ({ name, count: within(name).length })),
    films: data.films.map(({ title }, film) => {
      const own = frames.filter((frame) => frame.film === film);
      return { film, title, frames: own.length, kept: own.filter(isKept).length };
    }),
    thresholds: [],
    kept: frames.filter(isKept).length,
    target: data.target,
    undo: batches.length > 0,
    told,
    problem: "",
    like: { ready: false, told: "" },
  });

  function download() {
    const decisions = [...said].map(([number, keep]) => {
      const { film, pts, name } = byNumber.get(number);
      return { film: data.films[film].content, pts, name, keep };
    });
    saveJson("picks.json", { catalogue: data.catalogue, who: who.value, decisions });
  }

  root.classList.add("t2r-picker");
  shown.ids = select(shown.view);
  const who = element("input", { type: "text", "aria-label": "Your name", placeholder: "Your name" });
  const view = picker(root, {
    help: `${HELP}Decisions stay in this browser; save them and give the file back: ${data.command}`,
    state,
    send: (command) => commands[command.kind](command),
    rows: async (offset, count) => shown.ids.slice(offset, offset + count).map(row),
    pictures: async (numbers) => Object.fromEntries(numbers.map((number) => [number, data.pictures[number]])),
  });
  root.prepend(
    element(
      "div",
      { class: "t2r-bar" },
      element("strong", {}, data.title),
      who,
      button("Save my decisions", "Save my decisions as a file", download, { class: "t2r-keep" }),
    ),
  );
  root.querySelector(".t2r-grid").focus();
}
