// HumanStudy: two pictures, one question. The same code serves the notebook and the page that works from a file.

function study(root, { picture, answer }) {
  let trial = null;
  let since = 0;
  const question = element("p", { class: "t2r-question", "aria-live": "polite" });
  const input = element("figure", { class: "t2r-input" }, element("figcaption", {}, "The cartoon"), element("img", { alt: "The cartoon" }));
  const choices = ["left", "right"].map((side, index) =>
    element("button", { type: "button", class: "t2r-choice", "aria-label": `The ${side} picture`, onclick: () => choose(index) },
      element("img", { alt: `The ${side} picture` })));
  const progress = element("progress", { max: 1, value: 0, "aria-label": "Answers given" });
  const told = element("output", { class: "t2r-told" });

  function choose(index) {
    if (!trial || choices[0].disabled) return;
    choices.forEach((button) => (button.disabled = true));
    answer({ trial: trial.number, chosen: index, seconds: (performance.now() - since) / 1000 });
  }

  async function show(next, done, total) {
    trial = next;
    progress.value = total ? done / total : 1;
    told.textContent = `${done} of ${total}`;
    for (const node of [input, ...choices]) node.hidden = !trial;
    if (!trial) {
      question.textContent = "That was the last one. Thank you!";
      return;
    }
    question.textContent = trial.question;
    input.hidden = !trial.input;
    const wanted = [[input, trial.input], [choices[0], trial.pictures[0]], [choices[1], trial.pictures[1]]];
    await Promise.all(wanted.map(async ([node, name]) => name && showPicture(node.querySelector("img"), await picture(name))));
    choices.forEach((button) => (button.disabled = false));
    since = performance.now();
    root.dataset.trial = trial.number;
  }

  root.append(element("div", { class: "t2r-bar" }, progress, told), question,
    element("div", { class: "t2r-study" }, input, ...choices),
    element("p", { class: "t2r-help" }, "Click a picture, or press the left or the right arrow key."));
  onKeys(root, { ArrowLeft: () => choose(0), ArrowRight: () => choose(1) });
  return show;
}

function render({ model, el }) {
  const root = element("div", { class: "t2r t2r-human", role: "group", "aria-label": "Which picture?" });
  const waiting = new Map();
  const listen = (message, buffers) => {
    if (message.kind !== "picture") return;
    waiting.get(message.key)?.(pictureUrl(buffers[0]));
    waiting.delete(message.key);
  };
  const picture = (key) =>
    new Promise((done) => {
      waiting.set(key, done);
      model.send({ kind: "picture", key });
    });
  const show = study(root, { picture, answer: (given) => model.send({ kind: "answer", ...given }) });
  const next = () => show(model.get("trial"), model.get("done"), model.get("total"));
  model.on("msg:custom", listen);
  model.on("change:trial", next);
  el.append(root);
  next();
  return () => {
    model.off("msg:custom", listen);
    model.off("change:trial", next);
  };
}

// On a page of its own: the trials and pictures stand in the page, the answers are kept by the browser and saved as a file.
function standalone(root, { trials, pictures, study: id, participant }) {
  root.classList.add("t2r-human");
  const storage = `toon2real study ${id}`;
  const answers = JSON.parse(localStorage.getItem(storage) ?? "[]");
  const nobody = `somebody ${Math.random().toString(36).slice(2, 6)}`;
  const who = element("input", { type: "text", value: participant, placeholder: "Your name", "aria-label": "Your name" });
  const save = element("button", { type: "button" }, "Save my answers");
  const download = () => {
    const text = JSON.stringify({ study: id, participant: who.value.trim() || nobody, answers }, null, 1);
    const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    element("a", { href: url, download: "answers.json" }).click();
  };
  const answer = (given) => {
    answers.push({ ...given, at: new Date().toISOString() });
    localStorage.setItem(storage, JSON.stringify(answers));
    next();
  };
  const show = study(root, { picture: async (name) => pictures[name], answer });
  const next = () => show(trials[answers.length] ?? null, answers.length, trials.length);
  save.addEventListener("click", download);
  root.append(element("div", { class: "t2r-bar" }, who, save));
  next();
}
