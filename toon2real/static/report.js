// The report page: theme, epoch slider, copy buttons. Without it the page shows the last epoch and hides the controls.
// The template includes this file, so keep Jinja's opening braces (brace brace, brace percent, brace hash) out of it.
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  theme(document.getElementById("theme"));
  document.querySelectorAll(".epochs").forEach(epochs);
  document.querySelectorAll(".block").forEach(copy);
  document.querySelectorAll(".scroll, .plot, .film, nav ol").forEach(more);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((fold) => (fold.open = true)));

  // What goes on beyond its right edge fades there.
  function more(box) {
    const mark = () => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
    box.addEventListener("scroll", mark, { passive: true });
    new ResizeObserver(mark).observe(box);
    mark();
  }

  // Light or dark: what the system says, until the reader says otherwise.
  function theme(button) {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const current = () => root.dataset.theme || (system.matches ? "dark" : "light");
    const other = () => (current() === "dark" ? "light" : "dark");

    function label() {
      button.textContent = other() === "dark" ? "Dark" : "Light";
      button.setAttribute("aria-label", `Switch to the ${other()} theme`);
    }

    const chosen = stored();
    if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
    button.hidden = false;
    label();
    button.onclick = () => {
      root.dataset.theme = other();
      store(root.dataset.theme);
      label();
    };
    system.addEventListener("change", label);
  }

  // A browser may forbid storage to a page that was opened from a file.
  function stored() {
    try {
      return localStorage.theme;
    } catch {
      return null;
    }
  }

  function store(name) {
    try {
      localStorage.theme = name;
    } catch {
      // then the choice lasts as long as the page
    }
  }

  // The slider: each strip shows its newest sheet that is not after the chosen epoch.
  function epochs(box) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const slider = box.querySelector("input");
    const output = box.querySelector("output");
    const play = box.querySelector("button");
    const strips = [...box.querySelectorAll("img[data-run]")].map((image) => {
      const run = image.dataset.run;
      const mark = box.querySelector(`[data-epoch="${run}"]`);
      return { image, mark, sheets: data.frames[run], best: data.best[run] };
    });
    let timer = null;
    let loaded = null;

    function preload() {
      const urls = strips.flatMap((strip) => strip.sheets.map(([, url]) => url));
      loaded ??= urls.map((url) => Object.assign(new Image(), { src: url }));
    }

    function draw() {
      const epoch = data.epochs[slider.value];
      output.textContent = epoch ? `after epoch ${epoch}` : "before training";
      slider.setAttribute("aria-valuetext", output.textContent);
      for (const { image, mark, sheets, best } of strips) {
        const past = sheets.filter(([e]) => e <= epoch);
        const [shown, url] = past.at(-1) ?? sheets[0];
        if (image.getAttribute("src") !== url) image.src = url;
        const remarks = [shown === epoch ? "" : `epoch ${shown}`, shown === best ? "its best" : ""];
        mark.textContent = remarks.filter(Boolean).join(", ");
      }
    }

    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    }

    function next() {
      slider.value++;
      draw();
      if (+slider.value === data.epochs.length - 1) stop();
    }

    slider.addEventListener("pointerdown", preload);
    slider.addEventListener("focus", preload);
    slider.oninput = () => {
      stop();
      draw();
    };
    play.onclick = () => {
      if (timer) return stop();
      preload();
      play.textContent = "Stop";
      if (+slider.value === data.epochs.length - 1) slider.value = 0;
      draw();
      timer = setInterval(next, 450);
    };
    draw();
  }

  // A copy button: where the clipboard is out of reach, the text is at least selected.
  function copy(block) {
    const button = block.querySelector("button");
    const text = block.querySelector("pre");
    button.onclick = async () => {
      getSelection().selectAllChildren(text);
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1500);
    };
  }
})();
