// The picker on a page of its own, after frame_picker.js: all frames stand in the page, decisions are kept by the
// browser and saved as a file.

const counted = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

function standalone(root, data) {
  const storage = `toon2real picks ${data.catalogue}`;
  const frames = data.frames.map((frame, place) => ({ ...frame, place }));
  const byNumber = new Map(frames.map((frame) => [frame.frame, frame]));
  const twins = data.twins.map((pair) => pair.map((number) => byNumber.get(number)));
  const said = new Map(JSON.parse(localStorage.getItem(storage) ?? "[]"));
  const batches = [];
  const before = [];
  let shown = {
    view: { tab: "kept", order: "time", film: null, shots: true, shot: null },
    ids: [], // frames, in order: a tile each
  };
  let [version, changes, message] = [0, 0, ""];

  const verdict = (frame) => (said.has(frame.frame) ? said.get(frame.frame) : frame.hand);
  const byShot = () => shown.view.shots && !shown.view.shot;
  const shotKey = (frame) => (frame.shot === null ? frame.frame : `${frame.film} ${frame.shot}`);

  // The near-duplicates that others take the place of: `settle` of the kit's picks
  function settle(pairs) {
    const out = new Set();
    while (pairs.length) {
      const waiting = new Set(pairs.map(([, second]) => second));
      for (const [first, second] of pairs) if (!waiting.has(first)) out.add(second);
      pairs = pairs.filter((pair) => !pair.some((frame) => out.has(frame)));
    }
    return out;
  }

  // What of each shot is more than is wanted, the best first
  function surplus(good, said) {
    const [counts, out] = [new Map(), new Set()];
    for (const frame of [...good].sort((a, b) => Boolean(said(b)) - Boolean(said(a)) || a.rank - b.rank)) {
      const count = (counts.get(shotKey(frame)) ?? 0) + 1;
      counts.set(shotKey(frame), count);
      if (data.per_shot && count > data.per_shot) out.add(frame);
    }
    return out;
  }

  // What is left where this was said of the frames (true, false or null), worked out as the kit's picks do it
  function leave(said) {
    const alive = new Set(frames.filter((frame) => !frame.firm && (said(frame) ?? frame.clean)));
    const alike = twins.filter(([a, b]) => alive.has(a) && alive.has(b) && !(said(a) && said(b)));
    const duplicate = settle(alike.map(([a, b]) => (said(b) ? [b, a] : [a, b])));
    const good = [...alive].filter((frame) => !duplicate.has(frame));
    const shot = surplus(good, said);
    const kept = new Set(good.filter((frame) => said(frame) ?? !(shot.has(frame) || data.picked)));
    return { kept, duplicate, shot };
  }
  let now = leave(verdict);
  const isKept = (frame) => now.kept.has(frame);
  const inShot = (frame, [film, shot]) => frame.film === film && frame.shot === shot;
  const shotOf = (frame) =>
    frame.shot === null ? [frame] : frames.filter((one) => inShot(one, [frame.film, frame.shot]));
  const inTab = {
    all: () => true,
    kept: isKept,
    rejected: (frame) => !isKept(frame),
    "by hand": (frame) => verdict(frame) !== null,
    duplicate: (frame) => now.duplicate.has(frame),
    shot: (frame) => now.shot.has(frame),
  };
  const nearest = Object.fromEntries(
    Object.entries(data.near).map(([tab, near]) => [tab, new Map(near.map((number, place) => [number, place]))]),
  );
  const within = (tab) =>
    inTab[tab] ? frames.filter(inTab[tab]) : data.near[tab].map((number) => byNumber.get(number));

  function select({ tab, order, film, shots, shot }) {
    let found = within(tab).filter((frame) => film === null || frame.film === film);
    if (shot) found = found.filter((frame) => inShot(frame, shot));
    const near = (frame) => (nearest[tab] ?? nearest.all).get(frame.frame) ?? frames.length;
    found.sort((a, b) => (order === "near" && near(a) - near(b)) || a.place - b.place);
    if (!shots || shot) return found;
    const first = new Map();
    for (const frame of found) {
      const key = shotKey(frame);
      if (!first.has(key) || (frame.best && !first.get(key).best)) first.set(key, frame);
    }
    return [...first.values()];
  }

  // What is decided about a tile: its frame, or of a shot all frames; only those that the filters leave are kept, and
  // in a tab of rejects the frame that is shown.
  function decide(list, keep) {
    const batch = list.map((frame) => [frame.frame, said.has(frame.frame), said.get(frame.frame)]);
    for (const frame of list) said.set(frame.frame, keep);
    batches.push(batch);
    const done = keep === null ? "left to the filters" : keep ? "kept" : "rejected";
    changed(`${counted(list.length, "frame")} ${done}`);
  }
  const free = (list, instead) => {
    const asked = new Set(list);
    const left = leave((frame) => (asked.has(frame) ? null : verdict(frame))).kept;
    const passing = list.filter((frame) => left.has(frame));
    return passing.length ? passing : instead;
  };
  const ofTile = (frame, keep) => {
    const among = ["all", "kept", "by hand"].includes(shown.view.tab);
    if (!byShot() || (keep && !among)) return [frame];
    return keep ? free(shotOf(frame), [frame]) : shotOf(frame);
  };

  function changed(words) {
    now = leave(verdict);
    message = words;
    changes += 1;
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
    if (isKept(frame)) return "";
    if (frame.why) return frame.why;
    return now.duplicate.has(frame) ? "near-duplicate of another frame" : `${data.per_shot} of its shot are kept`;
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
    changes,
    total: shown.ids.length,
    place: shown.view.shot
      ? `Shot at ${shown.ids[0]?.when ?? ""}`
      : counted(shown.ids.length, shown.view.shots ? "shot" : "frame"),
    tabs: data.tabs
      .map((name) => ({ name, count: within(name).length }))
      .filter(({ name, count }) => count || !(name in data.near)),
    films: data.films.map(({ title }, film) => {
      const own = frames.filter((frame) => frame.film === film);
      return { film, title, frames: own.length, kept: own.filter(isKept).length };
    }),
    thresholds: [],
    kept: frames.filter(isKept).length,
    target: data.target,
    undo: batches.length > 0,
    message,
    problem: "",
    like: { ready: false, message: "" },
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
    notice: "",
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
