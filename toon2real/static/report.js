// The report page: theme, epoch slider, copy buttons. Without it the page shows the last epoch and hides the controls.
(() => {
  const root = document.documentElement, all = (q, at = document) => [...at.querySelectorAll(q)], store = { get: () => { try { return localStorage.theme } catch { } }, set: t => { try { localStorage.theme = t } catch { } } };
  root.classList.add("js");

  // theme: what the system says, until the reader says otherwise
  const theme = document.getElementById("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const label = () => { theme.textContent = dark() ? "Light" : "Dark"; theme.setAttribute("aria-label", `Switch to the ${dark() ? "light" : "dark"} theme`) };
  if (["light", "dark"].includes(store.get())) root.dataset.theme = store.get();
  theme.hidden = false; label();
  theme.onclick = () => { store.set(root.dataset.theme = dark() ? "light" : "dark"); label() };
  system.addEventListener("change", label);

  // epochs: each strip shows its newest sheet that is not after the chosen epoch
  for (const box of all(".epochs")) {
    const { epochs, frames, best } = JSON.parse(box.querySelector("script").textContent), slider = box.querySelector("input"), out = box.querySelector("output"), play = box.querySelector("button");
    const strips = all("img[data-run]", box).map(img => ({ img, mark: box.querySelector(`[data-epoch="${img.dataset.run}"]`), sheets: frames[img.dataset.run] }));
    let timer = null, warm = null;
    const preload = () => warm ??= strips.flatMap(s => s.sheets.map(([, url]) => Object.assign(new Image(), { src: url })));
    const draw = () => {
      const epoch = epochs[slider.value];
      out.textContent = epoch ? `after epoch ${epoch}` : "before training";
      slider.setAttribute("aria-valuetext", out.textContent);
      for (const { img, mark, sheets } of strips) {
        const [e, url] = sheets.filter(([e]) => e <= epoch).at(-1) ?? sheets[0];
        if (img.getAttribute("src") !== url) img.src = url;
        mark.textContent = [e === epoch ? "" : `epoch ${e}`, e === best[img.dataset.run] ? "its best" : ""].filter(Boolean).join(", ");
      }
    };
    const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play" };
    slider.addEventListener("pointerdown", preload); slider.addEventListener("focus", preload);
    slider.oninput = () => { stop(); draw() };
    play.onclick = () => {
      if (timer) return stop();
      preload(); play.textContent = "Stop";
      if (+slider.value === epochs.length - 1) slider.value = 0;
      draw();
      timer = setInterval(() => { slider.value++; draw(); if (+slider.value === epochs.length - 1) stop() }, 450);
    };
    draw();
  }

  // copy
  for (const b of all(".block button")) b.onclick = async () => {
    const pre = b.parentElement.querySelector("pre"), range = document.createRange();
    range.selectNodeContents(pre);
    getSelection().removeAllRanges(); getSelection().addRange(range);
    try { await navigator.clipboard.writeText(pre.textContent); b.textContent = "Copied" } catch { b.textContent = "Selected" }
    setTimeout(() => b.textContent = "Copy", 1500);
  };
})();
