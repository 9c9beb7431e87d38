// HumanStudy: two pictures, one question. The same code serves the notebook and the page that works from a file.

// `picture(key)` promises an address; `answer(given)` keeps an answer; `farewell` is said at the end.
// It gives `show`, for the next question, and `again`, for an answer that was not kept.
function study(root, { picture, answer, farewell }) {
  let trial = null;
  let since = 0;
  const question = element("p", { class: "t2r-question", "aria-live": "polite" });
  const input = element(
    "figure",
    { class: "t2r-input" },
    element("figcaption", {}, "The cartoon"),
    element("img", { alt: "The cartoon" }),
  );
  const choices = ["left", "right"].map((side, index) =>
    element(
      "button",
      { type: "button", class: "t2r-choice", "aria-label": `The ${side} picture`, onclick: () => choose(index) },
      element("img", { alt: `The ${side} picture` }),
    ),
  );
  const progress = element("progress", { max: 1, value: 0, "aria-label": "Answers given" });
  const told = element("output", { class: "t2r-told" });
  const help = element("p", { class: "t2r-help" }, "Click a picture, or press the left or the right arrow key.");

  function choose(index) {
    if (!trial || choices[0].disabled) return;
    choices.forEach((button) => (button.disabled = true));
    root.focus({ preventScroll: true }); // a button that is disabled hears no keys
    answer({ trial: trial.number, chosen: index, seconds: (performance.now() - since) / 1000 });
  }

  const again = () => choices.forEach((button) => (button.disabled = false));

  async function show(next, done, total) {
    trial = next;
    progress.value = total ? done / total : 1;
    told.textContent = `${done} of ${total}`;
    for (const node of [input, ...choices, help]) node.hidden = !trial;
    if (!trial) {
      question.textContent = `That was the last one. Thank you! ${farewell}`;
      return;
    }
    question.textContent = trial.question;
    input.hidden = !trial.input;
    const wanted = [
      [input, trial.input],
      [choices[0], trial.pictures[0]],
      [choices[1], trial.pictures[1]],
    ];
    const shown = wanted.map(async ([node, name]) => {
      const url = name && (await picture(name));
      if (url) await showPicture(node.querySelector("img"), url);
      return !name || url;
    });
    if (!(await Promise.all(shown)).every(Boolean)) return; // Python says what is wrong
    again();
    since = performance.now();
    root.dataset.trial = trial.number;
  }

  root.append(
    element("div", { class: "t2r-bar" }, progress, told),
    question,
    element("div", { class: "t2r-study" }, input, ...choices),
    help,
  );
  onKeys(root, { ArrowLeft: () => choose(0), ArrowRight: () => choose(1) });
  return { show, again };
}

function render({ model: bare, el }) {
  const model = connect(bare);
  const root = element("div", { class: "t2r t2r-human", role: "group", "aria-label": "Which picture?" });
  const store = new PictureStore(model);
  const { show, again } = study(root, {
    picture: (key) => store.soon(key),
    answer: (given) => model.send({ kind: "answer", ...given }),
    farewell: model.get("farewell"),
  });
  const next = () => show(model.get("trial"), model.get("done"), model.get("total"));
  model.on("change:trial", next);
  model.on("msg:custom", ({ kind, asked }) => kind === "failed" && asked === "answer" && again());
  root.append(model.notice);
  el.append(root);
  next();
  return () => {
    model.close();
    store.close();
  };
}

// On a page of its own: trials and pictures stand in the page, answers are kept by the browser and saved as a file.
function standalone(root, { trials, pictures, study: id, participant }) {
  root.classList.add("t2r-human");
  const storage = `toon2real study ${id}`;
  let answers = JSON.parse(localStorage.getItem(storage) ?? "[]");
  const somebody = () => `somebody ${Math.random().toString(36).slice(2, 6)}`;
  let nameless = somebody();
  const who = element("input", {
    type: "text",
    value: participant,
    placeholder: "Your name",
    "aria-label": "Your name",
  });
  const download = () => saveJson("answers.json", { study: id, participant: who.value.trim() || nameless, answers });
  const keep = (given) => {
    answers = given;
    localStorage.setItem(storage, JSON.stringify(answers));
    next();
  };
  const forget = () => {
    if (!confirm("Forget the answers that were given on this page?")) return;
    who.value = "";
    nameless = somebody();
    keep([]);
  };
  const { show } = study(root, {
    picture: async (key) => pictures[key],
    answer: (given) => keep([...answers, { ...given, at: new Date().toISOString() }]),
    farewell: "Now save your answers, and give the file to the person who asked you.",
  });
  const next = () => show(trials[answers.length] ?? null, answers.length, trials.length);
  root.append(
    element(
      "div",
      { class: "t2r-bar" },
      who,
      button("Save my answers", "Save my answers as a file", download),
      button("Start again", "Start again, for another person", forget),
    ),
  );
  next();
  root.focus();
}

export default { render };
