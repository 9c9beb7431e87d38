// What bench/picker.py does in the browser: each of `tries` acts, and waits until what it asked for is seen.
(() => {
  const root = document.querySelector(".t2r-picker");
  const grid = root.querySelector(".t2r-grid");
  const pause = (milliseconds) => new Promise((next) => setTimeout(next, milliseconds));
  const key = (name, more = {}) => grid.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, ...more }));
  const version = () => Number(root.dataset.version);
  const said = () => Number(root.dataset.changes);

  function shown() {
    const box = grid.getBoundingClientRect();
    const tiles = [...grid.querySelectorAll(".t2r-tile")].filter((tile) => {
      const own = tile.getBoundingClientRect();
      return own.bottom > box.top && own.top < box.bottom;
    });
    return tiles.length > 0 && tiles.every((tile) => tile.dataset.frame && tile.querySelector("img").dataset.frame === tile.dataset.frame);
  }

  // [milliseconds until it is done and all pictures are seen, the longest time between two frames meanwhile]
  async function clock(act, done = () => true) {
    let [last, stall, over] = [performance.now(), 0, false];
    const frame = () => {
      stall = Math.max(stall, performance.now() - last);
      last = performance.now();
      if (!over) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    const start = performance.now();
    act();
    while (!(done() && shown())) {
      if (performance.now() - start > 60000) throw new Error(`nothing came of ${act}`);
      await pause(4);
    }
    over = true;
    return [performance.now() - start, Math.max(stall, performance.now() - last)];
  }

  const changes = (number, act, by = 1) => {
    const before = number();
    return clock(act, () => number() >= before + by);
  };
  const slide = (last, name = "text", low = 0.1, high = 0.5) => {
    const input = root.querySelector(`[data-name=${name}] input`);
    input.value = low + Math.random() * (high - low);
    input.dispatchEvent(new Event("input"));
    if (last) input.dispatchEvent(new Event("change"));
  };

  window.tries = {
    "a page down (key)": () => {
      const top = grid.scrollTop;
      return clock(() => key("PageDown"), () => grid.scrollTop !== top);
    },
    "a jump anywhere (scroll bar)": () => clock(() => (grid.scrollTop = Math.random() * grid.scrollHeight)),
    "to the end or back (keys)": () => clock(() => key(grid.scrollTop > 1000 ? "Home" : "End")),
    "reject a shot (key)": () => changes(said, () => key("x")),
    "undo (key)": () => changes(said, () => key("z")),
    "keep twenty shots (keys)": () => {
      for (let i = 0; i < 19; i++) key("ArrowRight", { shiftKey: true });
      return changes(said, () => key("k"));
    },
    "sort again (key)": () => changes(version, () => key("o")),
    "another tab (click)": () => {
      const tabs = [...root.querySelectorAll("[data-tab][aria-pressed=false]")];
      return changes(version, () => tabs[Math.floor(Math.random() * tabs.length)].click());
    },
    "a threshold, let go (slider)": () => changes(version, () => slide(true), 2),
    "a threshold, after a second's moving (slider)": async () => {
      for (let i = 0; i < 20; i++) await pause(50, slide(false));
      slide(true);
      const [start, last] = [performance.now(), { version: version(), at: performance.now() }];
      while (performance.now() - last.at < 1000) {
        if (version() !== last.version) Object.assign(last, { version: version(), at: performance.now() });
        await pause(4);
      }
      return [last.at - start, 0];
    },
    "more near-duplicates (slider)": () => changes(version, () => slide(true, "duplicate", 9, 13)),
    "one tile a shot, on or off (tick box)": () => changes(version, () => root.querySelector(".t2r-bar input[type=checkbox]").click()),
  };
})();
