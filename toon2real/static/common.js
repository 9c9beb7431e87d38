// Shared by all widgets. Python puts this file before the widget's own script.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined)
      node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function button(text, label, action, more = {}) {
  return rename(element("button", { type: "button", onclick: action, ...more }), text, label);
}

function rename(button, text, label) {
  button.textContent = text;
  button.title = label;
  button.setAttribute("aria-label", label);
  return button;
}

// The colour of a run, a system or a curve
function dot(colour) {
  return element("span", { class: "t2r-dot", style: `background:${colour}` });
}

// Hands a file to whoever looks on.
function saveFile(name, blob) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // some browsers read it after the click
}

function saveJson(name, content) {
  saveFile(name, new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
}

function drawing(tag, attributes = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

const PATIENCE = 3000; // milliseconds without an answer
const GONE = "The kernel does not answer: restart it and run this cell again.";
const BUSY =
  "The kernel is busy: this widget goes on when it is free. " +
  "If no cell is running, restart the kernel and run this cell again.";

// The model as our widgets use it: its listeners end together, and `notice` says what went wrong in Python, and that the
// kernel is busy or gone. Python confirms every message.
function connect(model, busy = BUSY) {
  const problem = element("p", { class: "t2r-problem", role: "alert" });
  const kernel = element("p", { class: "t2r-kernel", role: "status" });
  const listeners = [];
  let patience = null; // a timer while an answer is awaited

  const on = (names, listener) => {
    listeners.push([names, listener]);
    model.on(names, listener);
  };
  const say = (words) => {
    clearTimeout(patience);
    patience = null;
    kernel.textContent = words;
    kernel.dataset.gone = words === GONE;
  };
  const send = (message, buffers) => {
    try {
      model.send(message, undefined, buffers);
    } catch {
      return say(GONE); // the notebook has closed the connection
    }
    if (kernel.textContent !== GONE) patience ??= setTimeout(() => (kernel.textContent = busy), PATIENCE);
  };
  const save = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const close = () => {
    clearTimeout(patience);
    for (const [names, listener] of listeners) model.off(names, listener);
  };
  const draw = () => (problem.textContent = model.get("problem"));
  on("msg:custom", () => say(""));
  on("comm_live_update", () => say(GONE));
  on("change:problem", draw);
  draw();
  const notice = element("div", {}, problem, kernel);
  return { get: (name) => model.get(name), on, send, save, close, notice, waiting: () => patience !== null };
}

// Pictures come as bytes. A picture is shown once it is decoded, so that nothing flickers.
function pictureUrl(bytes) {
  return URL.createObjectURL(new Blob([bytes]));
}

async function showPicture(image, url) {
  image.dataset.wanted = url;
  const next = new Image();
  next.src = url;
  await next.decode().catch(() => {}); // of a widget that is closed meanwhile, or of a broken picture
  if (image.dataset.wanted === url) image.src = url;
}

// Asks Python for pictures by key, keeps the answers, and calls `arrived` when one comes.
class PictureStore {
  constructor(model, arrived = () => {}) {
    this.model = model;
    this.urls = new Map();
    this.asked = new Set();
    this.failed = new Set(); // asked for again after `failed.clear()`
    this.promised = new Map();
    model.on("msg:custom", ({ kind, key, asked }, buffers) => {
      if (kind !== "picture" && asked !== "picture") return;
      this.forget(key);
      if (kind === "picture") this.urls.set(key, pictureUrl(buffers[0]));
      else this.failed.add(key);
      this.promised.get(key)?.(this.urls.get(key));
      this.promised.delete(key);
      arrived(key);
    });
  }

  // The address of a picture; null until it has come
  get(key) {
    if (this.urls.has(key)) return this.urls.get(key);
    if (!this.asked.has(key) && !this.failed.has(key)) {
      this.asked.add(key);
      this.model.send({ kind: "picture", key });
    }
    return null;
  }

  // The same as a promise, which gives undefined for a picture that could not be made. A key is promised to one who waits.
  async soon(key) {
    return this.get(key) ?? new Promise((done) => this.promised.set(key, done));
  }

  waiting() {
    return this.asked.size;
  }

  forget(key) {
    if (this.urls.has(key)) URL.revokeObjectURL(this.urls.get(key));
    this.urls.delete(key);
    this.asked.delete(key);
    this.failed.delete(key);
  }

  close() {
    for (const key of [...this.urls.keys()]) this.forget(key);
  }
}

// Gives a function that asks Python: each question gets a number of its own, and a promise of the answer.
function questions(model) {
  const name = Math.random().toString(36).slice(2);
  const waiting = new Map();
  let last = 0;
  model.on("msg:custom", (message, buffers) => {
    waiting.get(message.number)?.({ ...message, buffers });
    waiting.delete(message.number);
  });
  return (question) =>
    new Promise((answered) => {
      const number = `${name}-${++last}`;
      waiting.set(number, answered);
      model.send({ ...question, number });
    });
}

// Keys work while the widget has the focus, and JupyterLab does not take them for its own.
// Typing into a field or a list is left alone.
function onKeys(root, actions) {
  root.tabIndex = 0;
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.addEventListener("keydown", (event) => {
    const inField = ["SELECT", "TEXTAREA"].includes(event.target.tagName) || event.target.type === "text";
    const onButton = ["BUTTON", "SUMMARY"].includes(event.target.tagName) && [" ", "Enter"].includes(event.key);
    const onRange = event.target.type === "range" && /^(Arrow|Page|Home|End)/.test(event.key);
    const action = actions[event.key];
    if (inField || onRange) return event.stopPropagation(); // or the notebook moves to another cell
    if (!action || onButton || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    action(event);
  });
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
